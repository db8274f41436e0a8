variable "name" {
  type        = string
  default     = "ratchet"
  description = "Prefix of the names of all resources."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must be a small letter, then 1 to 30 small letters, digits and hyphens: it is part of a bucket's name."
  }
}

variable "environment" {
  type        = string
  default     = "production"
  description = "Name of the environment's file in deployments/environments/ that is written from the outputs."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,62}$", var.environment))
    error_message = "environment must be a small letter, then small letters, digits and hyphens."
  }
}

variable "models" {
  type        = list(string)
  default     = ["churn"]
  description = "Names of the models: the orchestrator may start jobs and change endpoints of these alone. Apply again after a model is added."

  validation {
    condition     = length(var.models) > 0 && alltrue([for model in var.models : can(regex("^[a-z][a-z0-9_-]{0,62}$", model))])
    error_message = "models must be names of folders below models/, and at least one: an empty name would be every name."
  }
}

variable "region" {
  type        = string
  description = "Region of all resources, such as eu-central-1. The price table needs the prices of this region."
}

variable "monthly_budget_usd" {
  type        = number
  description = "Monthly budget. An e-mail is sent when the month's forecast exceeds 80 % of it. model.yaml has its own budget gate."

  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd must be above 0."
  }
}

variable "alert_email" {
  type        = string
  default     = ""
  description = "E-mail address for alerts; AWS asks it for a confirmation. Empty: no e-mails."
}

variable "log_retention_days" {
  type        = number
  default     = 14
  description = "Retention of the logs of jobs, endpoints and flow runs."
}

variable "checkpoint_days" {
  type        = number
  default     = 7
  description = "Retention of the checkpoints of training jobs."
}

variable "subnets" {
  type        = list(string)
  default     = []
  description = "Subnets of the Prefect worker, with access to the internet or to VPC endpoints. Empty: no worker is created."
}

variable "vpc_id" {
  type        = string
  default     = ""
  description = "VPC of the subnets; needed for MLflow as a service, which gets a DNS name in it."
}

variable "security_groups" {
  type        = list(string)
  default     = []
  description = "Security groups of the worker and of MLflow's service."
}

variable "prefect_api_url" {
  type        = string
  default     = ""
  description = "Address of your Prefect server, such as https://prefect.example.com/api; needed with subnets."
}

variable "prefect_auth_secret_arn" {
  type        = string
  default     = ""
  description = "ARN of the secret with the server's PREFECT_API_AUTH_STRING. Empty: the server has none."
}

variable "worker_image_tag" {
  type        = string
  default     = "latest"
  description = "Tag of the image for worker and MLflow, in the repository that is created here."
}

variable "mlflow" {
  type        = string
  default     = "service"
  description = "managed: SageMaker's tracking server; service: our image on ECS with your database; none: your own server."

  validation {
    condition     = contains(["managed", "service", "none"], var.mlflow)
    error_message = "mlflow must be managed, service or none."
  }
}

variable "mlflow_size" {
  type        = string
  default     = "Small"
  description = "Size of the managed tracking server: Small, Medium or Large. AWS charges for each hour, also when it is not used."
}

variable "mlflow_database_secret_arn" {
  type        = string
  default     = ""
  description = "ARN of the secret with the SQLAlchemy URL of MLflow's PostgreSQL; needed for the service."
}

variable "endpoint" {
  type        = string
  default     = ""
  description = "Endpoint to use instead of AWS, for tests against moto. Budgets and managed MLflow are not created then."
}
