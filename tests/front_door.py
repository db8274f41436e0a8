"""The command line, run in the test's own process."""

from typing import Any

from typer.main import get_command
from typer.testing import CliRunner, Result

from ratchet.cli import app


def ratchet(*arguments: str, typed: str | None = None) -> Result:
    """Run a command, with `typed` on its standard input; an error that is not meant for people is raised."""
    return CliRunner().invoke(app, arguments, input=typed, catch_exceptions=False)


def commands() -> dict[tuple[str, ...], Any]:
    """Return each command that there is by its words, such as ("runs", "list")."""
    top: Any = get_command(app)
    found: dict[tuple[str, ...], Any] = {}
    for name, one in top.commands.items():
        below = getattr(one, "commands", None)
        found |= {(name, more): each for more, each in below.items()} if below else {(name,): one}
    return found
