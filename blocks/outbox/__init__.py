"""Alerts that are to be delivered: the port, its adapter for SQL databases, and its fake."""
