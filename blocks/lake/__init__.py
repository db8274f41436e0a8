"""Append-only data sets: the port, its adapters, and its fake."""
