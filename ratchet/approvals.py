"""Approval requests: list them, and decide from a terminal.

The signed decision is stored in the ledger first; then the suspended flow run is resumed. If that fails, the decision
stands and the run finds it when it is resumed later.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.records.approvals import ApprovalRequest, Waiver
from local.stack import running_environment
from services.decisions import CHANNEL, record_decision
from tasks.shared.rules.refusal import Refusal
from tasks.shared.waivers import record_waiver


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
        lines.append(f"{request.id:<28} by {request.requested_by:<24} {state:<12} digest {request.digest[:12]}…")
    return "\n".join(lines) or "no approval request is open"


def waiting(environment: str) -> str:
    """Return the open requests as text."""
    return requests_text(running_environment(environment).approvals().open_requests(), datetime.now(UTC))


def evidence(environment: str, request_id: str) -> str:
    """Return the evidence of a request. Raises Refusal as `select_request` does."""
    return select_request(running_environment(environment).approvals().open_requests(), request_id).evidence


def decide(environment: str, request_id: str, *, approved: bool, by: str, reason: str) -> str:
    """Record a decision, resume the run, and return a message.

    Raises:
        Refusal: there is no such request, or the decision does not count.
    """
    env = running_environment(environment)
    request = select_request(env.approvals().open_requests(), request_id)
    decision = record_decision(env, request, approved=approved, by=by, reason=reason)
    verb = "approved" if decision.approved else "rejected"
    return f"{verb}: {request.id} by {decision.by}, over digest {decision.digest[:12]}…"


def open_gates(environment: str, model: str, gates: Sequence[str], by: str, reason: str, until: str) -> str:
    """Waive failed gates of a model for later runs, and return a message.

    Raises:
        Refusal: `until` is not a time, or the waiver does not count.
    """
    env = running_environment(environment)
    try:
        end = datetime.fromisoformat(until or "no time")
    except ValueError as cause:
        remedy = "Write a time with its zone, such as 2026-12-31T00:00:00Z."
        raise Refusal("a waiver needs an end", where="--until", value=until, remedy=remedy) from cause
    waiver = Waiver(model, env.name, tuple(gates), by, reason, CHANNEL, datetime.now(UTC), end)
    return f"waived for {model} until {until}: {', '.join(gates)} (decision {record_waiver(env, waiver).number})"
