variable "name" {
  type        = string
  default     = "ratchet"
  description = "Begins the name of everything that is made."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,30}$", var.name))
    error_message = "name must be a small letter, then 1 to 30 small letters, digits and hyphens: it is part of a bucket's name."
  }
}

variable "environment" {
  type        = string
  default     = "production"
  description = "Name of the file in deployments/environments/ that the outputs fill."

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,62}$", var.environment))
    error_message = "environment must be a small letter, then small letters, digits and hyphens."
  }
}

variable "region" {
  type        = string
  description = "Where everything is made, such as eu-central-1. The price table needs prices of it."
}

variable "monthly_budget_usd" {
  type        = number
  description = "A mail is sent when the forecast of the month is above 80 % of it. The gate in model.yaml is another."

  validation {
    condition     = var.monthly_budget_usd > 0
    error_message = "monthly_budget_usd must be above 0."
  }
}

variable "alert_email" {
  type        = string
  default     = ""
  description = "Who gets alerts by mail; AWS asks that address to confirm. Empty: nobody by mail."
}

variable "log_retention_days" {
  type        = number
  default     = 14
  description = "How long logs of jobs, endpoints and flow runs are kept."
}

variable "checkpoint_days" {
  type        = number
  default     = 7
  description = "How long checkpoints of training jobs are kept."
}

variable "subnets" {
  type        = list(string)
  default     = []
  description = "Subnets with a way to the internet or to VPC endpoints for the Prefect worker. Empty: no worker is made."
}

variable "vpc_id" {
  type        = string
  default     = ""
  description = "VPC of the subnets; needed for MLflow as a service, which has a name in it."
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
  description = "ARN of the secret that holds the server's PREFECT_API_AUTH_STRING. Empty: it has none."
}

variable "worker_image_tag" {
  type        = string
  default     = "latest"
  description = "Tag of the image in the repository that this makes, which worker and MLflow run."
}

variable "mlflow" {
  type        = string
  default     = "service"
  description = "managed: SageMaker's tracking server; service: our image on ECS, on your database; none: one that you have."

  validation {
    condition     = contains(["managed", "service", "none"], var.mlflow)
    error_message = "mlflow must be managed, service or none."
  }
}

variable "mlflow_size" {
  type        = string
  default     = "Small"
  description = "Size of the managed tracking server: Small, Medium or Large. It is paid for by the hour, used or not."
}

variable "mlflow_database_secret_arn" {
  type        = string
  default     = ""
  description = "ARN of the secret that holds the SQLAlchemy address of MLflow's PostgreSQL; needed for the service."
}

variable "endpoint" {
  type        = string
  default     = ""
  description = "Another address than AWS's, for tests against moto. Budgets and managed MLflow are left out then."
}
