"""Channels to people that Prefect has no block for, and one way to speak to any, its own blocks included."""
