"""The commands `gateway` and `accounts`: the gateway process, its deliveries, and who may sign in.

They need no Prefect server. Addresses come from the running stack, if there is one; environment variables override
them. A password is typed or read from standard input; it is never an argument.
"""

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from blocks.common.errors import NotFound
from deployments.secret_store import SecretStore
from deployments.state import state_folder
from local.processes import StackError
from local.stack import STACK_STOPPED, find_stack
from ratchet.commands.group import Environment, Group, text_or_exit
from runtime.foreign_text import visible
from services.gateway.__main__ import serve
from tasks.approval.rules.names import check_person_name
from tasks.shared.rules.refusal import Refusal

if TYPE_CHECKING:
    from blocks.database.ledger import Ledger
    from blocks.inbox.base import DeliveryStatus, Inbox
    from services.gateway.approvals_ui.accounts import Accounts
    from services.gateway.approvals_ui.tokens import Tokens

gateway = Group("The gateway: its process, the deliveries of git hosts, and their outcomes.", refused=2)
accounts = Group("Password accounts of the approvals page.", refused=2)

Delivery = Annotated[str, typer.Argument(help="A delivery id, as `gateway list` shows it.")]
Limit = Annotated[int, typer.Option(help="Maximum number of rows.")]
Rules = Annotated[Path | None, typer.Option(help="The file of trigger rules; default: deployments/triggers.yaml.")]
By = Annotated[
    str, typer.Option(help="Your name; it is recorded.", default_factory=getpass.getuser, show_default="your login")
]
Name = Annotated[str, typer.Argument(help="The name under which the person signs, preferably an e-mail address.")]


@gateway.callback()
@accounts.callback()
def _use_variables_of_running_stack() -> None:
    stack = find_stack()
    for name, value in (stack.environment_variables() if stack else {}).items():
        os.environ.setdefault(name, value)


@gateway.command("serve")
@wraps(serve)
def serve_gateway(**options: Any) -> None:
    """Run the gateway."""
    with _trust_of_stack(options["environment"]):
        serve(**options)


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
    inbox = _existing_inbox(environment)
    entries = inbox.delivery_statuses(limit, state=state) if inbox else ()
    return "\n".join(map(_delivery_line, entries)) or "nothing has been delivered"


@gateway.command("notes")
def list_notes(limit: Limit = 50, environment: Environment = "local") -> str:
    """List notes: invalid signatures, altered and replayed deliveries, and why a delivery waits."""
    inbox = _existing_inbox(environment)
    notes = inbox.notes(limit) if inbox else ()
    lines = (f"{note.at:%Y-%m-%d %H:%M:%S}  {note.kind:<17} {note.subject_id}  {note.text}" for note in notes)
    return "\n".join(lines) or "there are no notes"


@gateway.command("show")
def show_delivery(delivery: Delivery, environment: Environment = "local") -> str:
    """Show a delivery, its runs and their reports."""
    if (inbox := _existing_inbox(environment)) is None:
        raise NotFound(f"there is no delivery {delivery!r}: nothing has been delivered")
    return delivery_text(inbox, delivery)


def delivery_text(inbox: "Inbox", delivery_id: str) -> str:
    """Return all details of one delivery, with the reports of its runs. Raises NotFound."""
    entry = inbox.delivery_status(delivery_id)
    delivery, outcome = entry.turn.delivery, entry.outcome
    lines = [
        _delivery_line(entry),
        f"body    sha256 {delivery.digest}",
        f"turn    {entry.turn.number}, requested by {entry.turn.requested_by} "
        f"at {entry.turn.requested_at:%Y-%m-%d %H:%M:%S}",
        f"change  {delivery.change or 'none'}",
    ]
    for run in outcome.runs if outcome else ():
        lines.append(f"run     {run.run_id}  {run.deployment}  by the rule {run.rule!r}")
        if text := inbox.report_text(run.run_id):
            lines += ["", text]
    return "\n".join(lines)


def _delivery_line(entry: "DeliveryStatus") -> str:
    """Return time, id, event, commit, outcome and reason of a delivery."""
    delivery = entry.turn.delivery
    what = " ".join(filter(None, [delivery.event, delivery.repository, delivery.ref, delivery.commit[:12]]))
    reason = entry.outcome.reason if entry.outcome else "waits for the dispatcher"
    line = f"{delivery.received_at:%Y-%m-%d %H:%M:%S}  {delivery.id}  {what}  {entry.state.upper()}: {reason}"
    return visible(line)


@gateway.command()
def redeliver(delivery: Delivery, by: By, environment: Environment = "local") -> str:
    """Process a delivery again under the current rules; it starts a new run."""
    name = check_person_name(by, "--by")
    turn = _ledger(environment).inbox().request_reprocessing(delivery, name, datetime.now(UTC))
    return f"{turn.delivery.id}: turn {turn.number} waits for the dispatcher"


@gateway.command("missed")
def missed_pushes(
    by: By,
    ingest: Annotated[bool, typer.Option("--ingest", help="Add the missed commits to the inbox.")] = False,
    triggers: Rules = None,
    environment: Environment = "local",
) -> str:
    """List branches whose newest commit was never delivered; exit code 1 when there are any."""
    from services.gateway.dispatch import find_missed_pushes, ingest_missed_push, open_repository_cache
    from services.gateway.settings import TRIGGERS, read_triggers

    if ingest:
        check_person_name(by, "--ingest: give --by")
    inbox, rules = _ledger(environment).inbox(), read_triggers(triggers or TRIGGERS)
    missed = list(find_missed_pushes(inbox, rules, open_repository_cache(state_folder()), SecretStore()))
    lines: list[str] = []
    for push in missed:
        problem = f"{push.repository.name} {visible(push.branch)}: commit {push.commit} was never delivered"
        lines.append(f"{problem}; last delivered commit: {push.last_delivered or 'none'}")
        if ingest:
            lines.append(f"  added to the inbox as {ingest_missed_push(inbox, push, by, datetime.now(UTC))}")
    return text_or_exit("\n".join([*lines, f"{len(missed)} missed"]), ingest or not missed)


@gateway.command("check")
def check_rules(triggers: Rules = None) -> str:
    """Validate the trigger rules, and show which secrets are missing."""
    from services.gateway.settings import TRIGGERS, read_triggers, senders_without_secret

    rules, lines = read_triggers(triggers or TRIGGERS), []
    names = ", ".join(repository.name for repository in rules.repositories)
    for sender in senders_without_secret(rules, SecretStore()):
        secrets = ", ".join(rules.senders[sender].secrets)
        lines.append(f"{sender}: no secret is set ({secrets}): every delivery would be refused")
    counted = "1 rule" if len(rules.rules) == 1 else f"{len(rules.rules)} rules"
    return "\n".join([f"{counted} for {names or 'no repository'}", *lines])


def _ledger(environment: str) -> "Ledger":
    from services.gateway.settings import open_ledger

    with _trust_of_stack(environment):
        return open_ledger(environment)


def _existing_inbox(environment: str) -> "Inbox | None":
    """Return the inbox; None when there is no ledger yet, because a command that only reads does not create it."""
    from blocks.database.ledger import SqlLedger

    ledger = _ledger(environment)
    return None if isinstance(ledger, SqlLedger) and not ledger.exists() else ledger.inbox()


@contextmanager
def _trust_of_stack(environment: str) -> Iterator[None]:
    """Report a missing trust file of the local environment as what it is without a stack: the stack does not run."""
    from blocks.environment_settings import NoTrustFile

    try:
        yield
    except NoTrustFile as cause:
        if environment != "local" or find_stack():
            raise
        raise StackError(STACK_STOPPED) from cause


@accounts.command("add")
def add_account(
    name: Name,
    role: Annotated[
        list[str] | None, typer.Option(help="A role of [gateway.permissions_by_role]; may be repeated.")
    ] = None,
    environment: Environment = "local",
) -> str:
    """Create an account, or set a new password and new roles of an existing one. It prompts for the password."""
    from services.gateway.settings import EnvironmentReader

    with _trust_of_stack(environment):
        known = EnvironmentReader(environment)().gateway.permissions_by_role
    for each in role or []:  # an unknown role would give no permission
        if each not in known:
            remedy = f"Known roles: {', '.join(known)}; see [gateway.permissions_by_role] in the environment's file."
            raise Refusal("there is no such role", where="--role", value=each, remedy=remedy)
    account = _open_accounts().add(name, _password(), role or [], datetime.now(UTC))
    return f"{account.name} may sign in, with {', '.join(account.roles)}"


@accounts.command("list")
def list_accounts() -> str:
    """List the accounts, with their roles."""
    from services.gateway.approvals_ui.store import store_file

    found = _open_accounts().list_all() if store_file(state_folder()).exists() else ()  # a list creates nothing
    lines = [
        f"{each.name:<40} {', '.join(each.roles):<30} {'disabled' if each.disabled else ''}".rstrip() for each in found
    ]
    return "\n".join(lines) or "there are no accounts yet: nobody can sign in with a password"


@accounts.command("disable")
def disable_account(name: Name) -> str:
    """Disable an account and end its sessions."""
    _open_accounts().disable(name)
    return f"{name} is signed out and cannot sign in any more"


token = Group("Personal tokens, with which programs act in a person's name.", refused=2)
accounts.add_typer(token, name="token")


@token.command("add")
def add_token(
    name: Name,
    action: Annotated[list[str], typer.Option(help="An action that the token allows; may be repeated.")],
    days: Annotated[int, typer.Option(help="Days until the token ends, at most 90.")] = 30,
) -> str:
    """Create a token for the person of an account, and print it once."""
    account = _open_accounts().find(name)
    if account is None or account.disabled:
        remedy = "Create one: accounts add. People of an identity provider make tokens on the page /actions."
        raise Refusal("there is no such account", where="account", value=name, remedy=remedy)
    secret, made = _open_tokens().add(account.name, "password", (), action, days, datetime.now(UTC))
    until = f"{made.ends_at:%Y-%m-%d %H:%M %Z}"
    return f"{secret}\ntoken {made.id} of {made.name}: {', '.join(made.actions)}, until {until}; it is not shown again"


@token.command("list")
def list_tokens() -> str:
    """List the tokens, without their secrets."""
    from services.gateway.approvals_ui.store import store_file

    found = _open_tokens().list_all() if store_file(state_folder()).exists() else ()
    lines = [
        f"{each.id}  {each.name:<40} {', '.join(each.actions):<30} {each.ends_at:%Y-%m-%d %H:%M %Z}"
        f"{'  revoked' if each.revoked else ''}"
        for each in found
    ]
    return "\n".join(lines) or "there are no tokens"


@token.command("revoke")
def revoke_token(
    token_id: Annotated[str, typer.Argument(help="The token's id, as `accounts token list` shows it.")],
) -> str:
    """End a token."""
    _open_tokens().revoke(token_id)
    return f"token {token_id} is not valid any more"


def _open_tokens() -> "Tokens":
    from services.gateway.approvals_ui.store import open_store
    from services.gateway.approvals_ui.tokens import Tokens

    return Tokens(open_store(state_folder()), _open_accounts())


def _open_accounts() -> "Accounts":
    from services.gateway.approvals_ui.accounts import Accounts
    from services.gateway.approvals_ui.store import open_store

    return Accounts(open_store(state_folder()))


def _password() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt="Repeat the password"))
    return sys.stdin.readline().rstrip("\r\n")
