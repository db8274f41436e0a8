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
from tasks.approval.review_attachments import attachments_folder
from tasks.approval.rules.evidence import Evidence, parse_evidence, text_digest
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import current_approval_policy, verified_chain

RequestState = Literal["waiting", "expired", "approved", "rejected"]
PNG_SIGNATURE, MAX_FILE_BYTES = b"\x89PNG\r\n\x1a\n", 4_000_000
MAX_CLOSED_REQUESTS = 50
"""So many requests that are over are listed, the newest first."""


@dataclass(frozen=True)
class ReviewAttachments:
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
class RequestView:
    """A request with what became of it; `evidence` is None where its text is not that of its digest."""

    request: ApprovalRequest
    state: RequestState
    approvals_needed: int
    evidence: Evidence | None
    decisions: tuple[Decision, ...]
    refusals: tuple[RefusedAttempt, ...]
    viewed_at: datetime

    @property
    def time_left(self) -> str:
        """How long the request may still be decided."""
        left = self.request.expires_at - self.viewed_at
        if left <= timedelta(0):
            return "expired"
        hours = left.seconds // 3600
        return f"{left.days} d {hours} h left" if left.days else f"{hours} h {left.seconds % 3600 // 60} min left"

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Who has approved."""
        return tuple(each.by for each in self.decisions if each.approved)


def request_view(env: Environment, request: ApprovalRequest, links: Sequence[Link], now: datetime) -> RequestView:
    """Return a request with what the links say of it."""
    records = [record_of(link) for link in links if link.request_id == request.id]
    decisions = tuple(each for each in records if isinstance(each, Decision))
    refusals = tuple(each for each in records if isinstance(each, RefusedAttempt))
    end, needed = outcome(decisions, request.approvals), max(1, request.approvals)
    state: RequestState = ("approved" if end.approved else "rejected") if end else "waiting"
    if not end and now >= request.expires_at:
        state = "expired"
    with suppress(Refusal):  # model.yaml as it is now cannot be read: whoever decides is told so
        needed = max(needed, current_approval_policy(env, request.model).approvals)
    return RequestView(request, state, needed, _verified_evidence(request), decisions, refusals, now)


def review_attachments(env: Environment, request: ApprovalRequest, evidence: Evidence | None) -> ReviewAttachments:
    """Return what is shown with the evidence, when it is just what was asked about."""
    if evidence is None or not evidence.attachments_digest:
        return ReviewAttachments(
            problem="Nothing was kept to be shown with this request: it is from before that was done."
        )
    folder = attachments_folder(env, request.model, request.version, evidence.attachments_digest)
    try:
        if folder_digest(folder) != evidence.attachments_digest:
            there = folder.is_dir()
            words = "are not those that were asked about" if there else "are not on this machine"
            return ReviewAttachments(
                problem=f"Plot, slices and data difference {words} ({folder.name}).", changed=there
            )
        said = {name: json.loads(_read_file(folder / name) or b"{}") for name in ("evaluation.json", "data.json")}
        checks, plot = _read_file(folder / "checks.md").decode(), _read_file(folder / "evaluation.png")
    except (OSError, ValueError) as cause:
        return ReviewAttachments(problem=f"Plot, slices and data difference cannot be read: {type(cause).__name__}.")
    return ReviewAttachments(
        said["evaluation.json"], said["data.json"], checks, plot if plot.startswith(PNG_SIGNATURE) else b""
    )


def _read_file(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES else b""


def list_requests(env: Environment, now: datetime) -> tuple[list[RequestView], list[RequestView]]:
    """Return the requests that wait, oldest first, and those that are over, newest first."""
    approvals = env.approvals()
    links, waiting = approvals.links(), approvals.open_requests()
    names = dict.fromkeys(link.request_id for link in reversed(links) if link.kind == "decision")
    still = {request.id for request in waiting}
    over = [
        approvals.approval_request(name) for name in [name for name in names if name not in still][:MAX_CLOSED_REQUESTS]
    ]
    found = [request_view(env, each, links, now) for each in (*waiting, *over) if each.environment == env.name]
    open_ = [each for each in found if each.state == "waiting"]
    return open_, [each for each in found if each.state != "waiting"]


def decision_chain_problem(env: Environment) -> str:
    """Return what is wrong with the record of decisions, "" when it is sound."""
    try:
        verified_chain(env)
    except Refusal as refusal:
        return str(refusal)
    return ""


def request_json(shown: RequestView, *, full: bool) -> dict[str, Any]:
    """Return a request for a program; `full` with its evidence and history."""
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
        "approvals": {"needed": shown.approvals_needed, "by": list(shown.approved_by)},
    }
    if full:
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


def _verified_evidence(request: ApprovalRequest) -> Evidence | None:
    try:
        return parse_evidence(request.evidence) if text_digest(request.evidence) == request.digest else None
    except Refusal:
        return None
