"""The cloud cleanup port: finds and ends billable resources in a cloud account."""
