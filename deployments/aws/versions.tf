terraform {
  required_version = ">= 1.7"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7"
    }
  }
}

provider "aws" {
  region                      = var.region
  max_retries                 = var.endpoint == "" ? null : 2
  s3_use_path_style           = var.endpoint != ""
  skip_credentials_validation = var.endpoint != ""
  skip_metadata_api_check     = var.endpoint != ""

  default_tags {
    tags = {
      project                = var.name
      "ratchet:environment"  = var.environment
      "ratchet:managed-with" = "terraform"
    }
  }

  dynamic "endpoints" {
    for_each = var.endpoint == "" ? [] : [var.endpoint]
    content {
      cloudwatch       = endpoints.value
      servicediscovery = endpoints.value
      ec2              = endpoints.value
      ecr              = endpoints.value
      ecs              = endpoints.value
      iam              = endpoints.value
      logs             = endpoints.value
      s3               = endpoints.value
      sagemaker        = endpoints.value
      sns              = endpoints.value
      sts              = endpoints.value
    }
  }
}

data "aws_caller_identity" "me" {}
data "aws_partition" "here" {}

locals {
  account = data.aws_caller_identity.me.account_id
  arn     = "arn:${data.aws_partition.here.partition}"
}
