# The worker of an ECS work pool: it starts one ECS task per flow run. The pool itself belongs to Prefect:
# `prefect work-pool create` creates it (docs/aws.md).

locals {
  image  = "${aws_ecr_repository.image.repository_url}:${var.worker_image_tag}"
  pool   = "${var.name}-${var.environment}"
  worker = length(var.subnets) > 0
}

resource "aws_ecs_cluster" "flows" {
  name = "${var.name}-${var.environment}"
}

data "aws_iam_policy_document" "start" {
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
  statement {
    sid       = "Logs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = ["${aws_cloudwatch_log_group.flows.arn}:*"]
  }
  dynamic "statement" {
    for_each = length(local.secrets) > 0 ? [1] : []
    content {
      sid       = "Secrets"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = local.secrets
    }
  }
}

locals {
  secrets = compact([var.prefect_auth_secret_arn, var.mlflow == "service" ? var.mlflow_database_secret_arn : ""])
}

# Permissions that ECS needs to start a task: image, log stream, secrets.
resource "aws_iam_role" "start" {
  name               = "${var.name}-${var.environment}-start"
  assume_role_policy = data.aws_iam_policy_document.tasks_trust.json
}

resource "aws_iam_role_policy" "start" {
  name   = "start"
  role   = aws_iam_role.start.id
  policy = data.aws_iam_policy_document.start.json
}

# Permissions of the worker: start, describe and stop tasks of this cluster, with these two roles. It registers, lists and
# describes task definitions, and describes networks, of the whole account: AWS knows no narrower permission for most of these.
data "aws_iam_policy_document" "worker" {
  statement {
    sid       = "Tasks"
    actions   = ["ecs:RunTask", "ecs:StopTask", "ecs:DescribeTasks", "ecs:TagResource"]
    resources = ["*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [aws_ecs_cluster.flows.arn]
    }
  }
  statement {
    sid       = "Definitions"
    actions   = ["ecs:RegisterTaskDefinition", "ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition", "ecs:ListTaskDefinitions"]
    resources = ["*"]
  }
  statement {
    sid       = "Network"
    actions   = ["ec2:DescribeSubnets", "ec2:DescribeVpcs"]
    resources = ["*"]
  }
  statement {
    sid       = "PassRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.orchestrator.arn, aws_iam_role.start.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "worker" {
  name               = "${var.name}-${var.environment}-worker"
  assume_role_policy = data.aws_iam_policy_document.tasks_trust.json
}

resource "aws_iam_role_policy" "worker" {
  name   = "worker"
  role   = aws_iam_role.worker.id
  policy = data.aws_iam_policy_document.worker.json
}

resource "aws_ecs_task_definition" "worker" {
  count                    = local.worker ? 1 : 0
  family                   = "${var.name}-${var.environment}-worker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = "256"
  memory                   = "1024"
  execution_role_arn       = aws_iam_role.start.arn
  task_role_arn            = aws_iam_role.worker.arn
  container_definitions = jsonencode([{
    name        = "worker"
    image       = local.image
    essential   = true
    entryPoint  = []
    command     = ["prefect", "worker", "start", "--pool", local.pool, "--type", "ecs"]
    environment = [{ name = "PREFECT_API_URL", value = var.prefect_api_url }]
    secrets     = var.prefect_auth_secret_arn == "" ? [] : [{ name = "PREFECT_API_AUTH_STRING", valueFrom = var.prefect_auth_secret_arn }]
    logConfiguration = {
      logDriver = "awslogs"
      options   = { awslogs-group = aws_cloudwatch_log_group.flows.name, awslogs-region = var.region, awslogs-stream-prefix = "worker" }
    }
  }])

  lifecycle {
    precondition {
      condition     = can(regex("^https://", var.prefect_api_url))
      error_message = "With subnets, prefect_api_url must be the https address of your Prefect server."
    }
  }
}

resource "aws_ecs_service" "worker" {
  count           = local.worker ? 1 : 0
  name            = "worker"
  cluster         = aws_ecs_cluster.flows.id
  task_definition = aws_ecs_task_definition.worker[0].arn
  desired_count   = 1
  launch_type     = "FARGATE"
  network_configuration {
    subnets         = var.subnets
    security_groups = var.security_groups
  }

  # AWS's default; set here because an emulator without it would show a change in each plan.
  lifecycle { ignore_changes = [availability_zone_rebalancing] }
}
