"""The commands `gateway` and `accounts`: the gateway process, its deliveries, and who may sign in.

They need no Prefect server. Addresses come from the running stack, if there is one; environment variables override
them.
"""

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from ratchet.commands.group import Environment, Group, text_or_exit
from services.gateway.__main__ import serve

gateway = Group("The gateway: its process, the deliveries of git hosts, and their outcomes.", refused=2)
accounts = Group("Password accounts of the approvals UI.", refused=2)

Delivery = Annotated[str, typer.Argument(help="A delivery id, as `gateway list` shows it.")]
Limit = Annotated[int, typer.Option(help="Maximum number of rows.")]
Rules = Annotated[Path | None, typer.Option(help="The file of trigger rules; default: deployments/triggers.yaml.")]
By = Annotated[
    str, typer.Option(help="Your name; it is recorded.", default_factory=getpass.getuser, show_default="your login")
]
Name = Annotated[str, typer.Argument(help="The name under which the person signs, preferably an e-mail address.")]

gateway.command()(serve)


@gateway.callback()
@accounts.callback()
def _use_variables_of_running_stack() -> None:
    from local.stack import find_stack

    stack = find_stack()
    for name, value in (stack.environment_variables() if stack else {}).items():
        os.environ.setdefault(name, value)


@gateway.command("list")
def list_deliveries(
    state: Annotated[
        Literal["open", "started", "ignored", "refused"] | None,
        typer.Option(help="List only deliveries in this state."),
    ] = None,
    limit: Limit = 50,
    environment: Environment = "local",
) -> str:
    """List the deliveries received and their outcomes."""
    from services.gateway.inbox_commands import accounts_text
    from services.gateway.settings import open_inbox

    return accounts_text(open_inbox(environment).delivery_statuses(limit, state=state))


@gateway.command("notes")
def list_notes(limit: Limit = 50, environment: Environment = "local") -> str:
    """List notes: invalid signatures, altered and replayed deliveries, and why a delivery waits."""
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
    """Process a delivery again under the current rules; it starts a new run."""
    from services.gateway.settings import open_inbox

    turn = open_inbox(environment).request_reprocessing(delivery, by, datetime.now(UTC))
    return f"{turn.delivery.id}: turn {turn.number} waits for the dispatcher"


@gateway.command("missed")
def missed_pushes(
    by: By,
    ingest: Annotated[bool, typer.Option("--ingest", help="Add the missed commits to the inbox.")] = False,
    triggers: Rules = None,
    environment: Environment = "local",
) -> str:
    """List branches whose newest commit was never delivered; exit code 1 when there are any."""
    from services.gateway.inbox_commands import missed_listing

    return text_or_exit(*missed_listing(environment, triggers, by if ingest else ""))


@gateway.command("check")
def check_rules(triggers: Rules = None) -> str:
    """Validate the trigger rules, and show which secrets are missing."""
    from services.gateway.inbox_commands import checked_rules

    return checked_rules(triggers)


@accounts.command("add")
def add_account(
    name: Name,
    role: Annotated[
        list[str] | None, typer.Option(help="A role of [gateway.permissions_by_role]; may be repeated.")
    ] = None,
    environment: Environment = "local",
) -> str:
    """Create an account, or set a new password and new roles of an existing one. It prompts for the password."""
    from ratchet.accounts import add_account

    return add_account(name, role or [], environment)


@accounts.command("list")
def list_accounts() -> str:
    """List the accounts, with their roles."""
    from ratchet.accounts import accounts, accounts_text

    return accounts_text(accounts())


@accounts.command("disable")
def disable_account(name: Name) -> str:
    """Disable an account and end its sessions."""
    from ratchet.accounts import accounts

    accounts().disable(name)
    return f"{name} is signed out and cannot sign in any more"
