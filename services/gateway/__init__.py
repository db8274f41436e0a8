"""The gateway: the only public HTTP service, for webhook deliveries of git hosts and for the approvals page."""
