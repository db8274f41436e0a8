# Two roles: `jobs` (training and serving) reads and writes its own bucket; `orchestrator` starts and stops jobs and
# endpoints whose names begin with a model's name, and may pass the role `jobs` to SageMaker only.

data "aws_iam_policy_document" "jobs_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["sagemaker.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "jobs" {
  statement {
    sid       = "OwnFiles"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.lake.arn}/training/*", "${aws_s3_bucket.lake.arn}/mlflow/*"]
  }
  statement {
    sid       = "Checkpoints"
    actions   = ["s3:DeleteObject"]
    resources = ["${aws_s3_bucket.lake.arn}/training/checkpoints/*"]
  }
  statement {
    sid       = "ReadReleasesAndLake"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.lake.arn}/releases/*", "${aws_s3_bucket.lake.arn}/lake/*"]
  }
  statement {
    sid       = "List"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.lake.arn]
  }
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
    resources = ["${local.arn}:logs:${var.region}:${local.account}:log-group:/aws/sagemaker/*"]
  }
  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]
    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["AWS/SageMaker", "/aws/sagemaker/TrainingJobs", "/aws/sagemaker/Endpoints"]
    }
  }
  statement {
    sid       = "ImageLogin"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    sid       = "Image"
    actions   = ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"]
    resources = [aws_ecr_repository.image.arn]
  }
  dynamic "statement" {
    for_each = var.mlflow == "managed" ? [1] : []
    content {
      sid       = "Tracking"
      actions   = ["sagemaker-mlflow:*"]
      resources = ["${local.arn}:sagemaker:${var.region}:${local.account}:mlflow-tracking-server/${local.mlflow_name}"]
    }
  }
}

resource "aws_iam_role" "jobs" {
  name               = "${var.name}-${var.environment}-jobs"
  assume_role_policy = data.aws_iam_policy_document.jobs_trust.json
}

resource "aws_iam_role_policy" "jobs" {
  name   = "jobs"
  role   = aws_iam_role.jobs.id
  policy = data.aws_iam_policy_document.jobs.json
}

data "aws_iam_policy_document" "tasks_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

data "aws_iam_policy_document" "orchestrator" {
  statement {
    sid = "Jobs"
    actions = [
      "sagemaker:CreateTrainingJob", "sagemaker:DescribeTrainingJob", "sagemaker:StopTrainingJob",
      "sagemaker:CreateTransformJob", "sagemaker:DescribeTransformJob", "sagemaker:StopTransformJob",
      "sagemaker:AddTags", "sagemaker:ListTags",
    ]
    resources = [for kind in ["training-job", "transform-job"] : "${local.arn}:sagemaker:${var.region}:${local.account}:${kind}/*"]
  }
  statement {
    sid = "Serving"
    actions = [
      "sagemaker:CreateModel", "sagemaker:DescribeModel", "sagemaker:DeleteModel",
      "sagemaker:CreateEndpointConfig", "sagemaker:DescribeEndpointConfig", "sagemaker:DeleteEndpointConfig",
      "sagemaker:CreateEndpoint", "sagemaker:UpdateEndpoint", "sagemaker:UpdateEndpointWeightsAndCapacities",
      "sagemaker:DescribeEndpoint", "sagemaker:DeleteEndpoint", "sagemaker:InvokeEndpoint",
      "sagemaker:AddTags", "sagemaker:ListTags",
    ]
    resources = [for kind in ["model", "endpoint-config", "endpoint"] : "${local.arn}:sagemaker:${var.region}:${local.account}:${kind}/*"]
  }
  statement {
    sid = "ReadOnly"
    actions = [
      "sagemaker:ListTrainingJobs", "sagemaker:ListTransformJobs", "sagemaker:ListEndpoints", "sagemaker:ListModels", "sagemaker:ListEndpointConfigs",
      "cloudwatch:GetMetricStatistics", "cloudwatch:DescribeAlarms", "pricing:GetProducts",
    ]
    resources = ["*"]
  }
  statement {
    sid       = "Alarms"
    actions   = ["cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"]
    resources = ["${local.arn}:cloudwatch:${var.region}:${local.account}:alarm:*"]
  }
  statement {
    sid       = "PassJobsRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.jobs.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["sagemaker.amazonaws.com"]
    }
  }
  statement {
    sid       = "JobLogs"
    actions   = ["logs:GetLogEvents", "logs:DescribeLogStreams"]
    resources = ["${local.arn}:logs:${var.region}:${local.account}:log-group:/aws/sagemaker/*"]
  }
  statement {
    sid       = "OwnLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.flows.arn}:*"]
  }
  statement {
    sid       = "Lake"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.lake.arn}/*"]
  }
  statement {
    sid       = "ListLake"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.lake.arn]
  }
  statement {
    sid       = "Alert"
    actions   = ["sns:Publish"]
    resources = [aws_sns_topic.alerts.arn]
  }
  dynamic "statement" {
    for_each = var.mlflow == "managed" ? [1] : []
    content {
      sid       = "Tracking"
      actions   = ["sagemaker-mlflow:*"]
      resources = ["${local.arn}:sagemaker:${var.region}:${local.account}:mlflow-tracking-server/${local.mlflow_name}"]
    }
  }
}

resource "aws_iam_role" "orchestrator" {
  name               = "${var.name}-${var.environment}-orchestrator"
  assume_role_policy = data.aws_iam_policy_document.tasks_trust.json
}

resource "aws_iam_role_policy" "orchestrator" {
  name   = "orchestrator"
  role   = aws_iam_role.orchestrator.id
  policy = data.aws_iam_policy_document.orchestrator.json
}
