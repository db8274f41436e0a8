"""What was decided, and what waits for a person: `approvals`, `alerts`, `audit`, `evidence`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ratchet.commands.group import By, Environment, Group, judged

approvals = Group("The approval requests that wait, and decisions on them; signed, into the ledger.")
alerts = Group("The alerts that are open, and the messages about them.")
audit = Group("The record of decisions, checked without a server.", refused=2)
evidence = Group("The evidence packs of promoted models, read without a server.", refused=2)

Request = Annotated[str, typer.Option(help="The request's id; may be left out when one waits.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the ledger.")]
Approver = Annotated[str, typer.Option(help="Your name or e-mail address; not that of the requester.")]
File = Annotated[Path | None, typer.Option(help="Read what `audit export` wrote instead of the database.")]
Keys = Annotated[list[str] | None, typer.Option(help="A public key that is trusted; may be given again.")]


@approvals.command("list")
def list_requests(environment: Environment = "local") -> str:
    """List the requests that wait: id, requester, time left, digest."""
    from ratchet.approvals import waiting

    return waiting(environment)


@approvals.command("show")
def show_request(request: Request = "", environment: Environment = "local") -> str:
    """Show the evidence of a request."""
    from ratchet.approvals import evidence

    return evidence(environment, request)


@approvals.command()
def approve(request: Request = "", by: Approver = "", reason: Reason = "", environment: Environment = "local") -> str:
    """Approve a request, and wake the run that waits for it."""
    from ratchet.approvals import decide

    return decide(environment, request, approved=True, by=by, reason=reason)


@approvals.command()
def reject(request: Request = "", by: Approver = "", reason: Reason = "", environment: Environment = "local") -> str:
    """Reject a request, and wake the run that waits for it."""
    from ratchet.approvals import decide

    return decide(environment, request, approved=False, by=by, reason=reason)


@approvals.command()
def waive(
    model: Annotated[str, typer.Option(help="The model.")] = "",
    gate: Annotated[list[str] | None, typer.Option(help="A gate, such as auc, or `auc by contract`.")] = None,
    until: Annotated[str, typer.Option(help="When it ends: ISO 8601 with a zone, at most 90 days ahead.")] = "",
    by: By = "",
    reason: Reason = "",
    environment: Environment = "local",
) -> str:
    """Open failed gates of a model for the runs after this, until a time."""
    from ratchet.approvals import open_gates

    return open_gates(environment, model, gate or [], by, reason, until)


@alerts.command("list")
def list_alerts(environment: Environment = "local") -> str:
    """List each open alert, then each message that no receiver has taken."""
    from ratchet.alerts import open_alerts

    return open_alerts(environment)


@alerts.command("ack")
def acknowledge(
    alert: Annotated[str, typer.Argument(help="The alert's name, as `alerts list` shows it.")],
    by: By = "",
    note: Annotated[str, typer.Option(help="What you know of it, or do about it.")] = "",
    environment: Environment = "local",
) -> str:
    """Say who looks after an alert, so that it is not reminded of."""
    from ratchet.alerts import acknowledge

    return acknowledge(environment, alert, by, note)


@alerts.command("deliver")
def deliver_messages(environment: Environment = "local") -> str:
    """Deliver the messages whose time has come."""
    from ratchet.alerts import deliver

    return deliver(environment)


@audit.command("verify")
def verify_record(
    file: File = None,
    key: Keys = None,
    head: Annotated[str, typer.Option(help="The anchored head: its file, or number:hash as a pack has it.")] = "",
    environment: Environment = "local",
) -> str:
    """Check signatures, hashes, requests and the anchored head; exit code 1 names the first row that is wrong."""
    from ratchet.audit import verified

    return judged(*verified(environment, file, key or [], head))


@audit.command("export")
def export_record(file: File = None, environment: Environment = "local") -> None:
    """Print the record as JSON lines, which `audit verify --file` reads."""
    from ratchet.audit import record, write_record

    write_record(*record(environment, file), sys.stdout)


@audit.command("key")
def public_key(environment: Environment = "local") -> str:
    """Print the public key that signs the environment's decisions."""
    from ratchet.audit import signing_of

    return signing_of(environment).signer("decisions").public_key_line


@evidence.command("verify")
def verify_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder, or the one that holds `pack` and its signature.")],
    key: Keys = None,
    environment: Environment = "local",
) -> str:
    """Say of each item whether it is present, absent or changed; exit code 1 when not all are as they were signed."""
    from ratchet.evidence import verified

    return judged(*verified(pack, key or [], environment))


@evidence.command("list")
def list_packs(environment: Environment = "local") -> str:
    """List the packs of an environment."""
    from ratchet.evidence import packs

    return "\n".join(map(str, packs(environment))) or "there is no evidence pack"
