"""The AWS infrastructure as Terraform, and the conversion of its outputs to an environment's file."""
