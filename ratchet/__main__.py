"""`python -m ratchet COMMAND`; `python -m ratchet --help` lists the commands."""

from ratchet.cli import app

app(prog_name="ratchet")
