"""Where training programs run: the port, its adapters, and its fake."""
