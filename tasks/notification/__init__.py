"""Deliver alert messages to people, with retries until a receiver accepts them."""
