"""Outside effects and deployments, each written down once: the port, its adapter for SQL databases, and its fake."""
