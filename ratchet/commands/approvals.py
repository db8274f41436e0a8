"""The commands `approvals` and `alerts`: list them, and decide or acknowledge from a terminal.

The signed decision is stored in the ledger first; then the suspended flow run is resumed. If that fails, the decision
stands and the run finds it when it is resumed later.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from blocks.records.approvals import ApprovalRequest, Waiver
from local.stack import running_environment
from ratchet.commands.group import By, Environment, Group
from tasks.approval.rules.names import shown_name
from tasks.shared.rules.refusal import Refusal

if TYPE_CHECKING:
    from blocks.outbox.base import Outbox

approvals = Group("Open approval requests, and decisions on them, which are signed and stored in the ledger.")
alerts = Group("Open alerts, and the messages about them.")

Request = Annotated[str, typer.Option(help="The request's id; optional when only one request is open.")]
Reason = Annotated[str, typer.Option(help="The reason; it is recorded in the ledger.")]
Approver = Annotated[str, typer.Option(help="Your name or e-mail address; not that of the requester.")]


@approvals.command("list")
def list_requests(environment: Environment = "local") -> str:
    """List the open requests: id, requester, time left, digest."""
    return requests_text(running_environment(environment).approvals().open_requests(), datetime.now(UTC))


@approvals.command("show")
def show_request(request: Request = "", environment: Environment = "local") -> str:
    """Show the evidence of a request."""
    return select_request(running_environment(environment).approvals().open_requests(), request).evidence


@approvals.command()
def approve(by: Approver, reason: Reason, request: Request = "", environment: Environment = "local") -> str:
    """Approve a request, and resume the run that waits for it."""
    return _decide(environment, request, approved=True, by=by, reason=reason)


@approvals.command()
def reject(by: Approver, reason: Reason, request: Request = "", environment: Environment = "local") -> str:
    """Reject a request, and resume the run that waits for it."""
    return _decide(environment, request, approved=False, by=by, reason=reason)


def _decide(environment: str, request_id: str, *, approved: bool, by: str, reason: str) -> str:
    from services.decisions import record_decision

    env = running_environment(environment)
    request = select_request(env.approvals().open_requests(), request_id)
    decision = record_decision(env, request, approved=approved, by=by, reason=reason)
    verb = "approved" if decision.approved else "rejected"
    return f"{verb}: {request.id} by {decision.by}, over digest {decision.digest[:12]}…"


@approvals.command()
def waive(
    model: Annotated[str, typer.Option(help="The model.")],
    gate: Annotated[list[str], typer.Option(help="A gate, such as auc, or `auc by contract`; may be repeated.")],
    until: Annotated[
        str, typer.Option(help="The end of the waiver: ISO 8601 with a time zone, at most 90 days ahead.")
    ],
    by: By,
    reason: Reason,
    environment: Environment = "local",
) -> str:
    """Waive failed gates of a model for later runs, until a time."""
    from services.decisions import CHANNEL
    from tasks.shared.waivers import record_waiver

    try:
        end = datetime.fromisoformat(until)
    except ValueError as cause:
        remedy = "Write a time with its zone, such as 2026-12-31T00:00:00Z."
        raise Refusal("a waiver needs an end", where="--until", value=until, remedy=remedy) from cause
    env, gates = running_environment(environment), tuple(gate)
    waiver = Waiver(model, env.name, gates, by, reason, CHANNEL, datetime.now(UTC), end)
    return f"waived for {model} until {until}: {', '.join(gates)} (decision {record_waiver(env, waiver).number})"


def select_request(requests: Sequence[ApprovalRequest], request_id: str) -> ApprovalRequest:
    """Return the request with the id `request_id`, or the only open one when `request_id` is empty.

    Raises:
        Refusal: there is no such request, or there are several and no id is given.
    """
    matching = [request for request in requests if not request_id or request.id == request_id]
    if len(matching) == 1:
        return matching[0]
    open_ids = ", ".join(request.id for request in requests) or "none"
    problem = (
        "there is no such open request" if request_id else "say which request" if matching else "no request is open"
    )
    raise Refusal(problem, value=request_id or None, remedy=f"Open requests: {open_ids}.")


def requests_text(requests: Sequence[ApprovalRequest], now: datetime) -> str:
    """Return a line for each request: id, requester, time left, digest."""
    lines = []
    for request in requests:
        left = request.expires_at - now
        state = "EXPIRED" if left.total_seconds() <= 0 else f"{left.days} d {left.seconds // 3600} h left"
        who = shown_name(request.requested_by, authenticated=request.requester_authenticated)
        lines.append(f"{request.id:<28} by {who:<24} {state:<12} digest {request.digest[:12]}…")
    return "\n".join(lines) or "no approval request is open"


@alerts.command("list")
def list_alerts(environment: Environment = "local") -> str:
    """List the open alerts, then the messages that are not delivered."""
    outbox = running_environment(environment, check_blocks=False).outbox()  # a changed block is an alert itself
    return "\n".join(_alert_lines(outbox, datetime.now(UTC)))


def _alert_lines(outbox: "Outbox", now: datetime) -> Iterator[str]:
    from tasks.notification.delivery import open_causes

    causes = open_causes(outbox, now)
    yield from ("no alert is open",) if not causes else ()
    for cause in causes:
        signals = outbox.signals(cause)
        raised = [signal for signal in signals if signal.state == "raised"][-1]
        acknowledgements = [signal for signal in signals if signal.state == "acknowledged"]
        who = (
            f", acknowledged by {acknowledgements[-1].acknowledged_by}"
            if acknowledgements and acknowledgements[-1].at >= raised.at
            else ""
        )
        yield f"{raised.severity:<8} {cause}  since {raised.at:%Y-%m-%d %H:%M %Z}{who}"
        yield f"         {raised.summary}"
        yield from (f"         {label}: {target}" for label, target in raised.links.items())
    waiting = outbox.undelivered()
    if waiting:
        yield f"{len(waiting)} messages are not delivered yet:"
    for message, attempts in waiting:
        last = f"attempt {len(attempts)}: {attempts[-1].error}" if attempts else "not tried yet"
        yield f"         {message.channel}: {message.subject} ({last})"


@alerts.command("ack")
def acknowledge(
    alert: Annotated[str, typer.Argument(help="The alert's name, as `alerts list` shows it.")],
    by: By,
    note: Annotated[str, typer.Option(help="What you know about it, or do about it.")] = "",
    environment: Environment = "local",
) -> str:
    """Record that you handle an alert, so that no reminders are sent. The name is marked: nobody proved it here."""
    from services.decisions import CHANNEL
    from tasks.approval.rules.actions import Actor
    from tasks.notification.delivery import acknowledge

    env = running_environment(environment)
    acknowledged = acknowledge(env, alert, Actor(by), note, CHANNEL, datetime.now(UTC))
    return f"acknowledged by {acknowledged.acknowledged_by}: {acknowledged.cause}"


@alerts.command("deliver")
def deliver_messages(environment: Environment = "local") -> str:
    """Deliver the messages that are due."""
    from tasks.notification.delivery import deliver_messages

    env = running_environment(environment)
    counts = deliver_messages(env, env.outbox(), lambda: datetime.now(UTC))
    return f"{counts.delivered} delivered, {counts.failed} failed, {counts.not_due} scheduled for later"
