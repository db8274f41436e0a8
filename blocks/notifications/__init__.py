"""Notification channels that Prefect lacks, and one function that sends to any notification block."""
