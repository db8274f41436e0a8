"""Processes that serve people and other hosts: the gateway (webhooks, approvals) and the model server."""
