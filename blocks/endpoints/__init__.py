"""The endpoint port, its adapters, and its fake: where models are served."""
