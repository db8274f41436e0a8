"""Where models are served: the port, its adapters, and its fake."""
