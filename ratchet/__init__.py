"""The command line, `python -m ratchet COMMAND`, and `ratchet.frames` for notebooks."""
