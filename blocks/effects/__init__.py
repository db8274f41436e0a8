"""Outside effects and deployments, each recorded once: the port, its adapter for SQL databases, and its fake."""
