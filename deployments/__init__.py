"""Deployment: environments, registration, automations, CI templates, Terraform, the image."""
