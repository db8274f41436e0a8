"""Append rows of a source to the lake; quarantine those that break a rule."""
