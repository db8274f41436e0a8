# Two roles. `jobs` (training and serving) reads releases and the lake, and writes the parts training/ and mlflow/ of its own
# bucket. `orchestrator` starts and stops jobs, and changes endpoints and their alarms, whose names begin with the name of a
# model of `var.models`; it may pass the role `jobs` to SageMaker only. It lists, and reads metrics and prices, of the whole
# account: AWS knows no narrower permission for these. It writes the whole bucket.

locals {
  # Names on SageMaker begin with the model's name, with hyphens for underscores, cut to 26 characters at the shortest.
  model_names = [for model in var.models : "${trimsuffix(substr(replace(model, "_", "-"), 0, 26), "-")}*"]
}

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
    resources = [for each in setproduct(["training-job", "transform-job"], local.model_names) : "${local.arn}:sagemaker:${var.region}:${local.account}:${each[0]}/${each[1]}"]
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
    resources = [for each in setproduct(["model", "endpoint-config", "endpoint"], local.model_names) : "${local.arn}:sagemaker:${var.region}:${local.account}:${each[0]}/${each[1]}"]
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
    resources = [for name in local.model_names : "${local.arn}:cloudwatch:${var.region}:${local.account}:alarm:${name}"]
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
