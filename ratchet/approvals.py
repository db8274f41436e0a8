"""The approval requests that wait, and decisions on them from a terminal.

A decision goes into the ledger first, signed; then the sleeping flow run is woken. Should that fail, the decision
stands and the run finds it when it is resumed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from blocks.approvals.base import ApprovalRequest, Waiver
from ratchet.running import running
from services.decisions import CHANNEL, record_decision
from tasks.shared.rules.refusal import Refusal
from tasks.shared.waivers import record_waiver


def select_request(requests: Sequence[ApprovalRequest], request_id: str) -> ApprovalRequest:
    """Return the request with the id `request_id`, or the only one that waits when `request_id` is empty.

    Raises:
        Refusal: there is none, or more than one and none was named.
    """
    matching = [request for request in requests if not request_id or request.id == request_id]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(request.id for request in requests) or "none"
    problem = "no such request waits" if request_id else "say which request" if matching else "no request waits"
    raise Refusal(problem, value=request_id or None, remedy=f"Open requests: {known}.")


def requests_text(requests: Sequence[ApprovalRequest], now: datetime) -> str:
    """Return a line for each request: id, requester, time left, digest."""
    lines = []
    for request in requests:
        left = request.expires_at - now
        state = "EXPIRED" if left.total_seconds() <= 0 else f"{left.days} d {left.seconds // 3600} h left"
        lines.append(f"{request.id:<28} by {request.requested_by:<24} {state:<12} digest {request.digest[:12]}…")
    return "\n".join(lines) or "no approval request waits"


def waiting(environment: str) -> str:
    """Return the list of the requests that wait."""
    return requests_text(running(environment).approvals().open_requests(), datetime.now(UTC))


def evidence(environment: str, wanted: str) -> str:
    """Return the evidence that a request shows. Raises Refusal as `choose` does."""
    return select_request(running(environment).approvals().open_requests(), wanted).evidence


def decide(environment: str, wanted: str, *, approved: bool, by: str, reason: str) -> str:
    """Record a decision, wake the run, and return what to tell.

    Raises:
        Refusal: no such request, or the decision does not count.
    """
    env = running(environment)
    request = select_request(env.approvals().open_requests(), wanted)
    made = record_decision(env, request, approved=approved, by=by, reason=reason)
    return f"{'approved' if made.approved else 'rejected'}: {request.id} by {made.by}, over digest {made.digest[:12]}…"


def open_gates(environment: str, model: str, gates: Sequence[str], by: str, reason: str, until: str) -> str:
    """Waive failed gates of a model for the runs after this, and return what to tell.

    Raises:
        Refusal: `until` is no time, or the waiver does not count.
    """
    env = running(environment)
    try:
        end = datetime.fromisoformat(until or "no time")
    except ValueError as cause:
        remedy = "Write a time with its zone, such as 2026-12-31T00:00:00Z."
        raise Refusal("a waiver needs an end", where="--until", value=until, remedy=remedy) from cause
    waiver = Waiver(model, env.name, tuple(gates), by, reason, CHANNEL, datetime.now(UTC), end)
    return f"waived for {model} until {until}: {', '.join(gates)} (decision {record_waiver(env, waiver).number})"
