"""The command line: `python -m ratchet COMMAND`."""
