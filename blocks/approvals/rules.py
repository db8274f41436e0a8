"""What holds in every adapter: a request is about one digest, and a second decision must agree with the first."""

from collections.abc import Sequence

from blocks.approvals.base import ApprovalRequest, Decision
from blocks.common.errors import Conflict, NotFound


def no_request(request_id: str, open_requests: Sequence[ApprovalRequest]) -> NotFound:
    """Return the error of an unknown request; it lists the open ones."""
    listed = ", ".join(f"{each.id} ({each.model} {each.version})" for each in open_requests) or "none"
    return NotFound(f"ledger: no approval request {request_id!r}. Open requests: {listed}.")


def check_same_request(recorded: ApprovalRequest, given: ApprovalRequest) -> None:
    """Accept a repeated request.

    Raises:
        Conflict: it asks about another digest than the recorded one.
    """
    if recorded.digest != given.digest:
        raise Conflict(
            f"ledger: approval request {given.id!r} exists over digest {recorded.digest}, not {given.digest}. "
            "Ask under another id: what was asked cannot be exchanged."
        )


def outcome(decisions: Sequence[Decision], approvals: int) -> Decision | None:
    """Return the decision that ended a request: the first rejection, or the last approval that it takes."""
    approved = 0
    for decision in decisions:
        approved += decision.approved is True
        if not decision.approved or approved >= max(1, approvals):
            return decision
    return None


def recorded_before(decisions: Sequence[Decision], given: Decision, approvals: int) -> Decision | None:
    """Return the recorded decision that `given` repeats; None when it is new and still counts.

    Raises:
        Conflict: the request is decided already, or this person has decided otherwise or over another digest.
    """
    own = [each for each in decisions if _same_person(each.by, given.by)]
    for each in own:
        if (each.approved, each.digest) == (given.approved, given.digest):
            return each
    standing = own[0] if own else outcome(decisions, approvals)
    if standing is None:
        return None
    verdict = "approved" if standing.approved else "rejected"
    raise Conflict(
        f"ledger: approval request {given.request_id!r} is decided already: {verdict} by {standing.by} "
        f"on {standing.at.isoformat()} over digest {standing.digest} ({standing.reason or 'no reason given'}). "
        "The first decision stays; make a new request."
    )


def _same_person(one: str, other: str) -> bool:
    return " ".join(one.casefold().split()) == " ".join(other.casefold().split())
