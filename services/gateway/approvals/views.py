"""Requests as the page and the API show them: what is asked, its state, its history; and the list of all."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from blocks.approvals.base import ApprovalRequest, Decision, Link, RefusedAttempt
from blocks.approvals.chain import record_of
from blocks.approvals.rules import outcome
from blocks.environment import Environment
from runtime.digests import folder_digest
from tasks.approval.review_attachments import exhibits_folder
from tasks.approval.rules.evidence import Evidence, parse_evidence, text_digest
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import policy_now, sound_chain

State = Literal["waiting", "expired", "approved", "rejected"]
PNG, LARGEST = b"\x89PNG\r\n\x1a\n", 4_000_000
MOST_DECIDED = 50
"""So many requests that are over are listed, the newest first."""


@dataclass(frozen=True)
class Exhibits:
    """The files that are shown with the evidence; `problem` says why there are none.

    `changed`: they are there, and are not those of the digest that was asked about.
    """

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    checks: str = ""
    plot: bytes = b""
    problem: str = ""
    changed: bool = False


@dataclass(frozen=True)
class Shown:
    """A request with what became of it; `evidence` is None where its text is not that of its digest."""

    request: ApprovalRequest
    state: State
    needed: int
    evidence: Evidence | None
    decisions: tuple[Decision, ...]
    refusals: tuple[RefusedAttempt, ...]
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
    refusals = tuple(each for each in records if isinstance(each, RefusedAttempt))
    end, needed = outcome(decisions, request.approvals), max(1, request.approvals)
    state: State = ("approved" if end.approved else "rejected") if end else "waiting"
    if not end and now >= request.expires_at:
        state = "expired"
    with suppress(Refusal):  # model.yaml as it is now cannot be read: whoever decides is told so
        needed = max(needed, policy_now(world, request.model).approvals)
    return Shown(request, state, needed, _evidence(request), decisions, refusals, now)


def exhibits_of(world: Environment, request: ApprovalRequest, evidence: Evidence | None) -> Exhibits:
    """Return what is shown with the evidence, when it is just what was asked about."""
    if evidence is None or not evidence.exhibits:
        return Exhibits(problem="Nothing was kept to be shown with this request: it is from before that was done.")
    folder = exhibits_folder(world, request.model, request.version, evidence.exhibits)
    try:
        if folder_digest(folder) != evidence.exhibits:
            there = folder.is_dir()
            words = "are not those that were asked about" if there else "are not on this machine"
            return Exhibits(problem=f"Plot, slices and data difference {words} ({folder.name}).", changed=there)
        said = {name: json.loads(_file(folder / name) or b"{}") for name in ("evaluation.json", "data.json")}
        checks, plot = _file(folder / "checks.md").decode(), _file(folder / "evaluation.png")
    except (OSError, ValueError) as cause:
        return Exhibits(problem=f"Plot, slices and data difference cannot be read: {type(cause).__name__}.")
    return Exhibits(said["evaluation.json"], said["data.json"], checks, plot if plot.startswith(PNG) else b"")


def _file(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else b""


def listed(world: Environment, now: datetime) -> tuple[list[Shown], list[Shown]]:
    """Return the requests that wait, oldest first, and those that are over, newest first."""
    approvals = world.approvals()
    links, waiting = approvals.links(), approvals.open_requests()
    names = dict.fromkeys(link.request_id for link in reversed(links) if link.kind == "decision")
    still = {request.id for request in waiting}
    over = [approvals.approval_request(name) for name in [name for name in names if name not in still][:MOST_DECIDED]]
    found = [show(world, each, links, now) for each in (*waiting, *over) if each.environment == world.name]
    open_ = [each for each in found if each.state == "waiting"]
    return open_, [each for each in found if each.state != "waiting"]


def damage(world: Environment) -> str:
    """Return what is wrong with the record of decisions, "" when it is sound."""
    try:
        sound_chain(world)
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
