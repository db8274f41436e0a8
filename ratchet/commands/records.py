"""The commands `approvals`, `alerts`, `audit` and `evidence`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ratchet.commands.group import By, Environment, Group, text_or_exit

approvals = Group("Open approval requests, and decisions on them, which are signed and stored in the ledger.")
alerts = Group("Open alerts, and the messages about them.")
audit = Group("The record of decisions, verified without a server.", refused=2)
evidence = Group("The evidence packs of promoted models, read without a server.", refused=2)

Request = Annotated[str, typer.Option(help="The request's id; optional when only one request is open.")]
Reason = Annotated[str, typer.Option(help="The reason; it is recorded in the ledger.")]
Approver = Annotated[str, typer.Option(help="Your name or e-mail address; not that of the requester.")]
File = Annotated[Path | None, typer.Option(help="Read a file that `audit export` wrote instead of the database.")]
Keys = Annotated[list[str] | None, typer.Option(help="A trusted public key; may be repeated.")]


@approvals.command("list")
def list_requests(environment: Environment = "local") -> str:
    """List the open requests: id, requester, time left, digest."""
    from ratchet.approvals import waiting

    return waiting(environment)


@approvals.command("show")
def show_request(request: Request = "", environment: Environment = "local") -> str:
    """Show the evidence of a request."""
    from ratchet.approvals import evidence

    return evidence(environment, request)


@approvals.command()
def approve(request: Request = "", by: Approver = "", reason: Reason = "", environment: Environment = "local") -> str:
    """Approve a request, and resume the run that waits for it."""
    from ratchet.approvals import decide

    return decide(environment, request, approved=True, by=by, reason=reason)


@approvals.command()
def reject(request: Request = "", by: Approver = "", reason: Reason = "", environment: Environment = "local") -> str:
    """Reject a request, and resume the run that waits for it."""
    from ratchet.approvals import decide

    return decide(environment, request, approved=False, by=by, reason=reason)


@approvals.command()
def waive(
    model: Annotated[str, typer.Option(help="The model.")] = "",
    gate: Annotated[list[str] | None, typer.Option(help="A gate, such as auc, or `auc by contract`.")] = None,
    until: Annotated[
        str, typer.Option(help="The end of the waiver: ISO 8601 with a time zone, at most 90 days ahead.")
    ] = "",
    by: By = "",
    reason: Reason = "",
    environment: Environment = "local",
) -> str:
    """Waive failed gates of a model for later runs, until a time."""
    from ratchet.approvals import open_gates

    return open_gates(environment, model, gate or [], by, reason, until)


@alerts.command("list")
def list_alerts(environment: Environment = "local") -> str:
    """List the open alerts, then the messages that are not delivered."""
    from ratchet.alerts import open_alerts

    return open_alerts(environment)


@alerts.command("ack")
def acknowledge(
    alert: Annotated[str, typer.Argument(help="The alert's name, as `alerts list` shows it.")],
    by: By = "",
    note: Annotated[str, typer.Option(help="What you know about it, or do about it.")] = "",
    environment: Environment = "local",
) -> str:
    """Record that you handle an alert, so that no reminders are sent."""
    from ratchet.alerts import acknowledge

    return acknowledge(environment, alert, by, note)


@alerts.command("deliver")
def deliver_messages(environment: Environment = "local") -> str:
    """Deliver the messages that are due."""
    from ratchet.alerts import deliver

    return deliver(environment)


@audit.command("verify")
def verify_record(
    file: File = None,
    key: Keys = None,
    head: Annotated[str, typer.Option(help="The anchored head: its file, or number:hash as in a pack.")] = "",
    environment: Environment = "local",
) -> str:
    """Verify signatures, hashes, requests and the anchored head; exit code 1 and the first invalid row on failure."""
    from ratchet.audit import verified

    return text_or_exit(*verified(environment, file, key or [], head))


@audit.command("export")
def export_record(file: File = None, environment: Environment = "local") -> None:
    """Print the record as JSON lines, which `audit verify --file` reads."""
    from ratchet.audit import record, write_record

    write_record(*record(environment, file), sys.stdout)


@audit.command("key")
def public_key(environment: Environment = "local") -> str:
    """Print the public key of the environment's decisions."""
    from ratchet.audit import signing_of

    return signing_of(environment).signer("decisions").public_key_line


@evidence.command("verify")
def verify_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder, or the folder with `pack` and its signature.")],
    key: Keys = None,
    environment: Environment = "local",
) -> str:
    """Show whether each item is present, absent or changed; exit code 1 when the pack does not match its signature."""
    from ratchet.evidence import verified

    return text_or_exit(*verified(pack, key or [], environment))


@evidence.command("list")
def list_packs(environment: Environment = "local") -> str:
    """List the packs of an environment."""
    from ratchet.evidence import packs

    return "\n".join(map(str, packs(environment))) or "there is no evidence pack"
