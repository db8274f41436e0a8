"""Deliver alerts to people until they have arrived."""
