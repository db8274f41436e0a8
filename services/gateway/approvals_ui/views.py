"""Approval requests as the pages and the API show them: evidence, state and history, and the list of requests."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from blocks.approvals.base import final_decision
from blocks.approvals.chain import record_from_entry
from blocks.environment import Environment
from blocks.records.approvals import ApprovalRequest, ChainEntry, Decision, RefusedAttempt
from runtime.digests import folder_digest
from tasks.approval.review_attachments import attachments_folder
from tasks.approval.rules.evidence import Evidence, parse_evidence, text_digest
from tasks.approval.rules.names import shown_name
from tasks.shared.rules.refusal import Refusal
from tasks.shared.trust import current_approval_policy, verified_chain

RequestState = Literal["waiting", "expired", "approved", "rejected"]
PNG_SIGNATURE, MAX_FILE_BYTES = b"\x89PNG\r\n\x1a\n", 4_000_000
MAX_CLOSED_REQUESTS = 50
"""Maximum number of closed requests in the list, the newest first."""


@dataclass(frozen=True)
class ReviewAttachments:
    """The files that are shown with the evidence; `problem` says why there are none.

    `changed`: the files exist, but do not match the digest in the evidence.
    """

    evaluation: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    checks: str = ""
    plot: bytes = b""
    problem: str = ""
    changed: bool = False
    backtests: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestView:
    """A request with its state and decisions; `evidence` is None when the stored text does not match its digest."""

    request: ApprovalRequest
    state: RequestState
    approvals_needed: int
    evidence: Evidence | None
    decisions: tuple[Decision, ...]
    refusals: tuple[RefusedAttempt, ...]
    viewed_at: datetime

    @property
    def time_left(self) -> str:
        """The time until the request expires, as text."""
        left = self.request.expires_at - self.viewed_at
        if left <= timedelta(0):
            return "expired"
        hours = left.seconds // 3600
        return f"{left.days} d {hours} h left" if left.days else f"{hours} h {left.seconds % 3600 // 60} min left"

    @property
    def requester(self) -> str:
        """The requester's name, marked when nobody proved it."""
        return shown_name(self.request.requested_by, authenticated=self.request.requester_authenticated)

    @property
    def approved_by(self) -> tuple[str, ...]:
        """The names of those who have approved."""
        return tuple(each.by for each in self.decisions if each.approved)


def request_view(env: Environment, request: ApprovalRequest, links: Sequence[ChainEntry], now: datetime) -> RequestView:
    """Return a request with its decisions and refused attempts among the links of the ledger."""
    records = [record_from_entry(link) for link in links if link.request_id == request.id]
    decisions = tuple(each for each in records if isinstance(each, Decision))
    refusals = tuple(each for each in records if isinstance(each, RefusedAttempt))
    end, needed = final_decision(decisions, request.approvals), max(1, request.approvals)
    state: RequestState = ("approved" if end.approved else "rejected") if end else "waiting"
    if not end and now >= request.expires_at:
        state = "expired"
    with suppress(Refusal):  # the current model.yaml cannot be read: recording a decision will report it
        policy = current_approval_policy(env, request.model)
        needed = max(needed, policy.approvals_of(requester_authenticated=request.requester_authenticated))
    return RequestView(request, state, needed, _verified_evidence(request), decisions, refusals, now)


def review_attachments(env: Environment, request: ApprovalRequest, evidence: Evidence | None) -> ReviewAttachments:
    """Return the files that are shown with the evidence, if they match its digest."""
    if evidence is None or not evidence.attachments_digest:
        return ReviewAttachments(problem="This request has no attachments.")
    folder = attachments_folder(env, request.model, request.version, evidence.attachments_digest)
    try:
        if folder_digest(folder) != evidence.attachments_digest:
            exists = folder.is_dir()
            words = "were changed after the request" if exists else "are not on this machine"
            return ReviewAttachments(
                problem=f"Plot, slices and data difference {words} ({folder.name}).", changed=exists
            )
        names = ("evaluation.json", "data.json", "backtests.json")
        files = {name: json.loads(_read_file(folder / name) or b"{}") for name in names}
        checks, plot = _read_file(folder / "validation.md").decode(), _read_file(folder / "evaluation.png")
    except (OSError, ValueError) as cause:
        return ReviewAttachments(problem=f"Plot, slices and data difference cannot be read: {type(cause).__name__}.")
    return ReviewAttachments(
        files["evaluation.json"],
        files["data.json"],
        checks,
        plot if plot.startswith(PNG_SIGNATURE) else b"",
        backtests=files["backtests.json"],
    )


def _read_file(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES else b""


def list_requests(env: Environment, now: datetime) -> tuple[list[RequestView], list[RequestView]]:
    """Return the pending requests, oldest first, and the closed ones, newest first."""
    approvals = env.approvals()
    links, waiting = approvals.chain_entries(), approvals.open_requests()
    names = dict.fromkeys(link.request_id for link in reversed(links) if link.kind == "decision")
    open_ids = {request.id for request in waiting}
    closed_ids = [name for name in names if name not in open_ids][:MAX_CLOSED_REQUESTS]
    requests = (*waiting, *map(approvals.get_request, closed_ids))
    views = [request_view(env, each, links, now) for each in requests if each.environment == env.name]
    return [each for each in views if each.state == "waiting"], [each for each in views if each.state != "waiting"]


def decision_chain_problem(env: Environment) -> str:
    """Return what is wrong with the record of decisions, "" when it is valid."""
    try:
        verified_chain(env)
    except Refusal as refusal:
        return str(refusal)
    return ""


def request_json(view: RequestView, *, full: bool) -> dict[str, Any]:
    """Return a request as JSON values; with `full` also its evidence and history."""
    request = view.request
    content: dict[str, Any] = {
        "id": request.id,
        "model": request.model,
        "environment": request.environment,
        "version": request.version,
        "state": view.state,
        "verdict": view.evidence.verdict if view.evidence else None,
        "digest": request.digest,
        "requested_by": request.requested_by,
        "requester_authenticated": request.requester_authenticated,
        "requested_at": request.requested_at.isoformat(),
        "expires_at": request.expires_at.isoformat(),
        "approvals": {"needed": view.approvals_needed, "by": list(view.approved_by)},
    }
    if full:
        content |= {
            "authors": list(request.authors),
            "roles": list(request.roles),
            "evidence": json.loads(request.evidence) if view.evidence else None,
            "decisions": [decision_json(each) for each in view.decisions],
            "refused": [{"by": e.by, "why": e.reason, "at": e.at.isoformat()} for e in view.refusals],
        }
    return content


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return a decision as JSON values."""
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
