# Source of deployments/environments/<environment>.toml: terraform output -json | python -m ratchet environment write

output "environment" {
  value       = var.environment
  description = "Name of the environment."
}

output "region" {
  value       = var.region
  description = "Region of all resources."
}

output "bucket" {
  value       = aws_s3_bucket.lake.bucket
  description = "Bucket of the lake, of training jobs and of releases."
}

output "jobs_role_arn" {
  value       = aws_iam_role.jobs.arn
  description = "Role of training jobs and endpoints."
}

output "orchestrator_role_arn" {
  value       = aws_iam_role.orchestrator.arn
  description = "Role of flow runs."
}

output "start_role_arn" {
  value       = aws_iam_role.start.arn
  description = "Role with which ECS starts a flow run's task."
}

output "repository" {
  value       = aws_ecr_repository.image.repository_url
  description = "Repository that the image is pushed to."
}

output "alerts_topic_arn" {
  value       = aws_sns_topic.alerts.arn
  description = "Topic of alerts."
}

output "log_group" {
  value       = aws_cloudwatch_log_group.flows.name
  description = "Log group of flow runs."
}

output "cluster" {
  value       = aws_ecs_cluster.flows.name
  description = "Cluster of flow runs."
}

output "work_pool" {
  value       = local.pool
  description = "Name that the Prefect work pool must have."
}

output "tracking_uri" {
  value       = local.mlflow_managed ? aws_sagemaker_mlflow_tracking_server.mlflow[0].arn : local.mlflow_service ? "http://mlflow.${aws_service_discovery_private_dns_namespace.flows[0].name}:5000" : ""
  description = "ARN of the managed MLflow, or the service's address in the VPC; empty when you use your own server."
}
