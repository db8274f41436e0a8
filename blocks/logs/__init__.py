"""Where the log lines of flow runs are kept beside Prefect's own log: the port, its adapter, and its fake."""
