"""The platform's only entrance for others: deliveries of git hosts and the approvals UI."""
