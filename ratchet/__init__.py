"""The front door: the command line, `python -m ratchet COMMAND`, and what it does as functions."""
