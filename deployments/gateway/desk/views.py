"""Requests as the page and the API show them: what is asked, its state, its history; and the list of all."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from blocks.environment import Environment
from blocks.ledger.base import ApprovalRequest, Decision, Link, Refused
from blocks.ledger.chain import record_of
from blocks.ledger.rules import outcome
from tasks.logic.approve.evidence import Evidence, parse_evidence, text_digest
from tasks.logic.refusal import Refusal
from tasks.trust import policy_now, sound_chain

State = Literal["waiting", "expired", "approved", "rejected"]
MOST_DECIDED = 50
"""So many requests that are over are listed, the newest first."""


@dataclass(frozen=True)
class Shown:
    """A request with what became of it; `evidence` is None where its text is not that of its digest."""

    request: ApprovalRequest
    state: State
    needed: int
    evidence: Evidence | None
    decisions: tuple[Decision, ...]
    refusals: tuple[Refused, ...]
    now: datetime

    @property
    def left(self) -> str:
        """How long the request may still be decided."""
        left = self.request.expires_at - self.now
        if left <= timedelta(0):
            return "expired"
        hours = left.seconds // 3600
        return f"{left.days} d {hours} h left" if left.days else f"{hours} h {left.seconds % 3600 // 60} min left"

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Who has approved."""
        return tuple(each.by for each in self.decisions if each.approved)


def show(world: Environment, request: ApprovalRequest, links: Sequence[Link], now: datetime) -> Shown:
    """Return a request with what the links say of it."""
    records = [record_of(link) for link in links if link.request_id == request.id]
    decisions = tuple(each for each in records if isinstance(each, Decision))
    refusals = tuple(each for each in records if isinstance(each, Refused))
    end, needed = outcome(decisions, request.approvals), max(1, request.approvals)
    state: State = ("approved" if end.approved else "rejected") if end else "waiting"
    if not end and now >= request.expires_at:
        state = "expired"
    with suppress(Refusal):  # model.yaml as it is now cannot be read: whoever decides is told so
        needed = max(needed, policy_now(world, request.model).approvals)
    return Shown(request, state, needed, _evidence(request), decisions, refusals, now)


def listed(world: Environment, now: datetime) -> tuple[list[Shown], list[Shown]]:
    """Return the requests that wait, oldest first, and those that are over, newest first."""
    ledger = world.ledger()
    links, waiting = ledger.links(), ledger.open_requests()
    names = dict.fromkeys(link.request_id for link in reversed(links) if link.kind == "decision")
    still = {request.id for request in waiting}
    over = [ledger.approval_request(name) for name in [name for name in names if name not in still][:MOST_DECIDED]]
    found = [show(world, each, links, now) for each in (*waiting, *over) if each.environment == world.name]
    open_ = [each for each in found if each.state == "waiting"]
    return open_, [each for each in found if each.state != "waiting"]


def damage(world: Environment) -> str:
    """Return what is wrong with the record of decisions, "" when it is sound."""
    try:
        sound_chain(world, world.ledger())
    except Refusal as refusal:
        return str(refusal)
    return ""


def as_json(shown: Shown, *, whole: bool) -> dict[str, Any]:
    """Return a request for a program; `whole` with its evidence and history."""
    request = shown.request
    said: dict[str, Any] = {
        "id": request.id,
        "model": request.model,
        "environment": request.environment,
        "version": request.version,
        "state": shown.state,
        "verdict": shown.evidence.verdict if shown.evidence else None,
        "digest": request.digest,
        "requested_by": request.requested_by,
        "requested_at": request.requested_at.isoformat(),
        "expires_at": request.expires_at.isoformat(),
        "approvals": {"needed": shown.needed, "by": list(shown.approved_by)},
    }
    if whole:
        said |= {
            "authors": list(request.authors),
            "roles": list(request.roles),
            "evidence": json.loads(request.evidence) if shown.evidence else None,
            "decisions": [decision_json(each) for each in shown.decisions],
            "refused": [{"by": e.by, "why": e.problem, "at": e.at.isoformat()} for e in shown.refusals],
        }
    return said


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision for a program."""
    return {
        "approved": decision.approved,
        "by": decision.by,
        "reason": decision.reason,
        "channel": decision.channel,
        "authenticated": decision.authenticated,
        "at": decision.at.isoformat(),
        "digest": decision.digest,
    }


def _evidence(request: ApprovalRequest) -> Evidence | None:
    try:
        return parse_evidence(request.evidence) if text_digest(request.evidence) == request.digest else None
    except Refusal:
        return None
