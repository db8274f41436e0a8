"""Batch inference: predictions for a table or a read of the lake, kept as a new snapshot."""
