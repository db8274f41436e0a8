"""Draw a data tier from the lake, split it once, and publish it for other models."""
