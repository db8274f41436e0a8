"""The command line, `python -m ratchet COMMAND`, and the functions behind it, for notebooks."""
