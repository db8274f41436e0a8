"""The infrastructure on AWS as Terraform, and the command that turns its outputs into an environment."""
