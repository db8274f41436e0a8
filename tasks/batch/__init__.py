"""Batch inference: predict the rows of a source or of the lake, and append the predictions to the lake."""
