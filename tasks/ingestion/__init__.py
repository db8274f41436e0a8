"""Ingestion: append the rows of a source to the lake, and quarantine the rows that break a rule."""
