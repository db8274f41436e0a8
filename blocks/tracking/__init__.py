"""Runs and model versions: the port, its adapters, and its fake."""
