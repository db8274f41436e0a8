# Tests with a mock provider, without a cloud or an emulator: they check the configuration only.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-central-1:123456789012:mocked" }
  }
  mock_resource "aws_service_discovery_service" {
    defaults = { arn = "arn:aws:servicediscovery:eu-central-1:123456789012:service/mocked" }
  }
  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:eu-central-1:123456789012:task-definition/mocked:1" }
  }
}

variables {
  region             = "eu-central-1"
  monthly_budget_usd = 200
}

run "the_smallest_configuration_makes_no_worker_and_no_tracking_server" {
  assert {
    condition     = aws_s3_bucket.lake.bucket == "ratchet-production-123456789012"
    error_message = "The bucket's name must be of name, environment and account, so that it is nobody else's."
  }
  assert {
    condition     = length(aws_ecs_service.worker) == 0 && length(aws_ecs_service.mlflow) == 0
    error_message = "Without subnets nothing may be started."
  }
  assert {
    condition     = length(aws_sagemaker_mlflow_tracking_server.mlflow) == 0 && output.tracking_uri == ""
    error_message = "The managed tracking server is paid for by the hour: only where it is asked for."
  }
}

run "the_bucket_is_closed_versioned_and_encrypted" {
  assert {
    condition     = alltrue([aws_s3_bucket_public_access_block.lake.block_public_acls, aws_s3_bucket_public_access_block.lake.block_public_policy, aws_s3_bucket_public_access_block.lake.ignore_public_acls, aws_s3_bucket_public_access_block.lake.restrict_public_buckets])
    error_message = "Every way to make the bucket public must be closed."
  }
  assert {
    condition     = aws_s3_bucket_versioning.lake.versioning_configuration[0].status == "Enabled"
    error_message = "The bucket must be versioned."
  }
  assert {
    condition     = length(aws_s3_bucket_policy.lake) == 1
    error_message = "Plain HTTP must be refused."
  }
}

run "nothing_of_the_lake_expires" {
  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.lake.rule : length(rule.expiration) == 0 || rule.filter[0].prefix == "training/checkpoints/"])
    error_message = "Only checkpoints may expire."
  }
}

run "the_budget_warns_before_and_at_its_limit" {
  assert {
    condition     = aws_budgets_budget.month[0].limit_amount == "200" && toset([for n in aws_budgets_budget.month[0].notification : n.threshold]) == toset([80, 100])
    error_message = "The budget must warn at 80 % of the forecast and at 100 % of the actual cost."
  }
}

run "a_worker_is_made_where_there_are_subnets" {
  variables {
    subnets                    = ["subnet-1"]
    security_groups            = ["sg-1"]
    vpc_id                     = "vpc-1"
    prefect_api_url            = "https://prefect.example.com/api"
    prefect_auth_secret_arn    = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:prefect"
    mlflow_database_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mlflow"
  }
  assert {
    condition     = length(aws_ecs_service.worker) == 1 && length(aws_ecs_service.mlflow) == 1
    error_message = "Worker and MLflow must be started."
  }
  assert {
    condition     = output.tracking_uri == "http://mlflow.ratchet-production.internal:5000"
    error_message = "MLflow must have a name that stays."
  }
  assert {
    condition     = jsondecode(aws_ecs_task_definition.worker[0].container_definitions)[0].secrets[0].name == "PREFECT_API_AUTH_STRING"
    error_message = "The server's password must come from a secret, not from the environment."
  }
}

run "a_worker_without_a_server_is_refused" {
  command = plan
  variables {
    subnets                    = ["subnet-1"]
    vpc_id                     = "vpc-1"
    mlflow_database_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mlflow"
  }
  expect_failures = [aws_ecs_task_definition.worker]
}

run "mlflow_as_a_service_without_a_database_is_refused" {
  command = plan
  variables {
    subnets         = ["subnet-1"]
    prefect_api_url = "https://prefect.example.com/api"
  }
  expect_failures = [aws_ecs_task_definition.mlflow]
}

run "mlflow_is_managed_where_asked_for" {
  variables { mlflow = "managed" }
  assert {
    condition     = length(aws_sagemaker_mlflow_tracking_server.mlflow) == 1 && length(aws_ecs_task_definition.mlflow) == 0
    error_message = "Managed: SageMaker's server alone."
  }
}

run "mlflow_of_another_kind_is_refused" {
  command = plan
  variables { mlflow = "docker" }
  expect_failures = [var.mlflow]
}

run "a_name_that_is_no_bucket_s_is_refused" {
  command = plan
  variables { name = "Ratchet!" }
  expect_failures = [var.name]
}

run "the_orchestrator_changes_what_bears_a_models_name_alone" {
  variables { models = ["churn", "house_price"] }
  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.orchestrator.statement :
      alltrue([for resource in statement.resources : can(regex("[/:](churn|house-price)\\*$", resource))])
      if contains(["Jobs", "Serving", "Alarms"], statement.sid)
    ])
    error_message = "Jobs, endpoints and alarms of other names belong to others."
  }
  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.orchestrator.statement :
      alltrue([for action in statement.actions : can(regex(":(List|Get|Describe)", action))])
      if contains(statement.resources, "*")
    ])
    error_message = "What is allowed on every resource may only read."
  }
  assert {
    condition = alltrue([
      for statement in data.aws_iam_policy_document.jobs.statement :
      alltrue([for resource in statement.resources : can(regex("/(training|mlflow)/", resource))])
      if length(setintersection(statement.actions, ["s3:PutObject", "s3:DeleteObject"])) > 0
    ])
    error_message = "A job writes training/ and mlflow/ alone: releases and the lake are not its own."
  }
}

run "no_model_is_refused_since_an_empty_name_is_every_name" {
  command = plan
  variables { models = [""] }
  expect_failures = [var.models]
}
