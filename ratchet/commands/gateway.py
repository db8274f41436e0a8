"""The gateway: its process, what came to it, and who may sign in: `gateway`, `accounts`.

As all that the gateway does, this needs no Prefect server. The running stack, when there is one, says where things
are; a variable that is set counts more.
"""

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from ratchet.commands.group import Environment, Group, judged
from services.gateway.__main__ import serve

gateway = Group("The gateway of git hosts: its process, what was delivered, and what became of it.", refused=2)
accounts = Group("Who may sign in on the approvals page with a password.", refused=2)

Delivery = Annotated[str, typer.Argument(help="A delivery, as `gateway list` shows it.")]
Limit = Annotated[int, typer.Option(help="List so many at most.")]
Rules = Annotated[Path | None, typer.Option(help="The file of rules; deployments/triggers.yaml when left out.")]
By = Annotated[
    str, typer.Option(help="Who asks; it is written down.", default_factory=getpass.getuser, show_default="your login")
]
Name = Annotated[str, typer.Argument(help="How the person signs: an e-mail address is best.")]

gateway.command()(serve)


@gateway.callback()
@accounts.callback()
def _by_the_running_stack() -> None:
    from local.stack import find_stack

    stack = find_stack()
    for name, value in (stack.environment_variables() if stack else {}).items():
        os.environ.setdefault(name, value)


@gateway.command("list")
def list_deliveries(
    state: Annotated[
        Literal["open", "started", "ignored", "refused"] | None, typer.Option(help="List those alone.")
    ] = None,
    limit: Limit = 50,
    environment: Environment = "local",
) -> str:
    """List what came, and what became of it."""
    from services.gateway.inbox_commands import accounts_text
    from services.gateway.settings import open_inbox

    return accounts_text(open_inbox(environment).entries(limit, state=state))


@gateway.command("notes")
def list_notes(limit: Limit = 50, environment: Environment = "local") -> str:
    """List forgeries, altered and replayed deliveries, and what waits and why."""
    from services.gateway.inbox_commands import notes_text
    from services.gateway.settings import open_inbox

    return notes_text(open_inbox(environment).notes(limit))


@gateway.command("show")
def show_delivery(delivery: Delivery, environment: Environment = "local") -> str:
    """Show a delivery, its runs and their reports."""
    from services.gateway.inbox_commands import delivery_text
    from services.gateway.settings import open_inbox

    return delivery_text(open_inbox(environment), delivery)


@gateway.command()
def redeliver(delivery: Delivery, by: By, environment: Environment = "local") -> str:
    """Take a delivery once more, under today's rules: a run of its own."""
    from services.gateway.settings import open_inbox

    turn = open_inbox(environment).ask_again(delivery, by, datetime.now(UTC))
    return f"{turn.delivery.id}: turn {turn.number} waits for the dispatcher"


@gateway.command("missed")
def missed_pushes(
    by: By,
    take_in: Annotated[bool, typer.Option("--take-in", help="Put what was missed into the inbox.")] = False,
    triggers: Rules = None,
    environment: Environment = "local",
) -> str:
    """List branches whose newest commit never came, as git says; exit code 1 when there are any."""
    from ratchet.deliveries import missed_listing

    return judged(*missed_listing(environment, triggers, by if take_in else ""))


@gateway.command("check")
def check_rules(triggers: Rules = None) -> str:
    """Read the rules, and say which secrets are missing."""
    from ratchet.deliveries import checked_rules

    return checked_rules(triggers)


@accounts.command("add")
def add_account(
    name: Name,
    role: Annotated[list[str] | None, typer.Option(help="A role of [gateway.roles]; may be given again.")] = None,
    environment: Environment = "local",
) -> str:
    """Make an account, or give one another password and other roles; the password is asked for."""
    from ratchet.accounts import added

    return added(name, role or [], environment)


@accounts.command("list")
def list_accounts() -> str:
    """List the accounts, with their roles."""
    from ratchet.accounts import accounts, accounts_text

    return accounts_text(accounts())


@accounts.command("disable")
def disable_account(name: Name) -> str:
    """Sign a person out, who cannot sign in any more."""
    from ratchet.accounts import accounts

    accounts().disable(name)
    return f"{name} cannot sign in any more, and is signed out"
