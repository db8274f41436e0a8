"""The approvals page of the gateway, with its API: here signed-in people approve or reject."""
