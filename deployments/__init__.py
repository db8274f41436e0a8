"""What is applied to infrastructure: environments, registration, automations, CI, Terraform, the image."""
