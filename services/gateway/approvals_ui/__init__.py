"""The approvals UI: web pages and an API in the gateway where signed-in people approve or reject."""
