# One switch: SageMaker's managed tracking server, our own on ECS, or neither.

locals {
  mlflow_name    = "${var.name}-${var.environment}"
  mlflow_managed = var.mlflow == "managed" && var.endpoint == ""
  mlflow_service = var.mlflow == "service" && local.worker
  mlflow_host    = "mlflow.${var.name}-${var.environment}.internal:5000"
}

data "aws_iam_policy_document" "mlflow" {
  statement {
    sid       = "Artifacts"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.lake.arn}/mlflow/*"]
  }
  statement {
    sid       = "ListArtifacts"
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.lake.arn]
  }
}

resource "aws_iam_role" "mlflow" {
  count              = var.mlflow == "none" ? 0 : 1
  name               = "${var.name}-${var.environment}-mlflow"
  assume_role_policy = var.mlflow == "managed" ? data.aws_iam_policy_document.jobs_trust.json : data.aws_iam_policy_document.tasks_trust.json
}

resource "aws_iam_role_policy" "mlflow" {
  count  = var.mlflow == "none" ? 0 : 1
  name   = "mlflow"
  role   = aws_iam_role.mlflow[0].id
  policy = data.aws_iam_policy_document.mlflow.json
}

resource "aws_sagemaker_mlflow_tracking_server" "mlflow" {
  count                        = local.mlflow_managed ? 1 : 0
  tracking_server_name         = local.mlflow_name
  tracking_server_size         = var.mlflow_size
  role_arn                     = aws_iam_role.mlflow[0].arn
  artifact_store_uri           = "s3://${aws_s3_bucket.lake.bucket}/mlflow"
  automatic_model_registration = false
}

resource "aws_ecs_task_definition" "mlflow" {
  count                    = local.mlflow_service ? 1 : 0
  family                   = "${var.name}-${var.environment}-mlflow"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "512"
  memory                   = "2048"
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.mlflow[0].arn
  container_definitions = jsonencode([{
    name         = "mlflow"
    image        = local.image
    essential    = true
    entryPoint   = []
    command      = ["sh", "-c", "mlflow db upgrade \"$DATABASE\" && exec mlflow server --host 0.0.0.0 --port 5000 --workers 1 --allowed-hosts ${local.mlflow_host} --cors-allowed-origins http://${local.mlflow_host} --backend-store-uri \"$DATABASE\" --artifacts-destination s3://${aws_s3_bucket.lake.bucket}/mlflow"]
    portMappings = [{ containerPort = 5000, protocol = "tcp" }]
    secrets      = [{ name = "DATABASE", valueFrom = var.mlflow_database_secret_arn }]
    logConfiguration = {
      logDriver = "awslogs"
      options   = { awslogs-group = aws_cloudwatch_log_group.flows.name, awslogs-region = var.region, awslogs-stream-prefix = "mlflow" }
    }
  }])

  lifecycle {
    precondition {
      condition     = var.mlflow_database_secret_arn != "" && var.vpc_id != ""
      error_message = "mlflow = service needs mlflow_database_secret_arn, the address of a PostgreSQL database, and vpc_id."
    }
  }
}

# A private DNS name in the VPC, so that the service is found after a restart. It has no password; its security group
# limits access.
resource "aws_service_discovery_private_dns_namespace" "flows" {
  count = local.mlflow_service ? 1 : 0
  name  = "${var.name}-${var.environment}.internal"
  vpc   = var.vpc_id
}

resource "aws_service_discovery_service" "mlflow" {
  count = local.mlflow_service ? 1 : 0
  name  = "mlflow"
  dns_config {
    namespace_id = aws_service_discovery_private_dns_namespace.flows[0].id
    dns_records {
      type = "A"
      ttl  = 10
    }
  }
}

resource "aws_ecs_service" "mlflow" {
  count           = local.mlflow_service ? 1 : 0
  name            = "mlflow"
  cluster         = aws_ecs_cluster.flows.id
  task_definition = aws_ecs_task_definition.mlflow[0].arn
  desired_count   = 1
  launch_type     = "FARGATE"
  service_registries {
    registry_arn = aws_service_discovery_service.mlflow[0].arn
  }
  network_configuration {
    subnets         = var.subnets
    security_groups = var.security_groups
  }

  # AWS's default; set here because an emulator without it would show a change in each plan.
  lifecycle { ignore_changes = [availability_zone_rebalancing] }
}
