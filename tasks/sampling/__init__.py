"""Sampling: draw a data tier from the lake, split it once, and publish its rows for other models."""
