"""Approvals in memory, for tests: the same rules as in the database, and faults on demand."""

from dataclasses import dataclass, field, replace
from threading import Lock

from blocks.approvals.anchor import hold_anchored_head
from blocks.approvals.base import (
    Approvals,
    check_same_request,
    find_repeated_decision,
)
from blocks.approvals.chain import decisions_of, make_entry, record_to_json, request_digest
from blocks.database.common import FailingWrites, to_utc
from blocks.records.actions import ActionOrder
from blocks.records.approvals import (
    ApprovalRequest,
    ChainEntry,
    ChainEntryKind,
    Decision,
    ErasureRecord,
    RefusedAttempt,
    Waiver,
)
from runtime.keys import Signer


@dataclass
class FakeApprovals(FailingWrites, Approvals):
    """Requests and decisions that exist as long as the object."""

    _requests: dict[str, ApprovalRequest] = field(default_factory=dict, init=False)
    _links: list[ChainEntry] = field(default_factory=list, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def add_request(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id."""
        requested, expires = to_utc(request.requested_at), to_utc(request.expires_at)
        with self._lock:
            self.may_write()
            given = replace(request, requested_at=requested, expires_at=expires)
            recorded = self._requests.setdefault(request.id, given)
        check_same_request(recorded, request)
        return recorded

    def _find_request(self, request_id: str) -> ApprovalRequest | None:
        return self._requests.get(request_id)

    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a decision, oldest first, expired ones included."""
        waiting = (each for each in list(self._requests.values()) if self.final_decision(each.id) is None)
        return tuple(each for each in waiting if model in {None, each.model})

    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models for which approval was ever requested in an environment, sorted."""
        here = (each for each in list(self._requests.values()) if each.environment == environment)
        return tuple(sorted({each.model for each in here}))

    def record_decision(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request: see `Approvals.record_decision`."""
        request = self.get_request(decision.request_id)
        given = replace(decision, at=to_utc(decision.at), request_digest=request_digest(request))
        with self._lock:
            self.may_write()
            said = decisions_of(self.chain_entries(request.id))
            if (found := find_repeated_decision(said, given, request.approvals)) is not None:
                return found
            self._append("decision", request.id, record_to_json(given), signer)
        return given

    def record_waiver(self, waiver: Waiver, signer: Signer) -> ChainEntry:
        """Sign and record a waiver."""
        given = replace(waiver, at=to_utc(waiver.at), until=to_utc(waiver.until))
        with self._lock:
            self.may_write()
            return self._append("waiver", "", record_to_json(given), signer)

    def record_erasure(self, erasure: ErasureRecord, signer: Signer) -> ChainEntry:
        """Sign and record an erasure."""
        given = replace(erasure, at=to_utc(erasure.at))
        with self._lock:
            self.may_write()
            return self._append("erasure", "", record_to_json(given), signer)

    def record_order(self, order: ActionOrder, signer: Signer) -> ChainEntry:
        """Sign and record an order."""
        given = replace(order, at=to_utc(order.at), expires=to_utc(order.expires))
        with self._lock:
            self.may_write()
            return self._append("action", "", record_to_json(given), signer)

    def record_refusal(self, attempt: RefusedAttempt, signer: Signer | None) -> ChainEntry:
        """Record an attempt that was refused."""
        given = replace(attempt, at=to_utc(attempt.at))
        with self._lock:
            self.may_write()
            return self._append("refusal", given.request_id, record_to_json(given), signer)

    def chain_entries(self, request_id: str | None = None) -> tuple[ChainEntry, ...]:
        """Return the chain from its beginning, or the links of one request."""
        return tuple(link for link in self._links if request_id in {None, link.request_id})

    def _append(self, kind: ChainEntryKind, request_id: str, body: str, signer: Signer | None) -> ChainEntry:
        def link_at(number: int) -> ChainEntry | None:
            return self._links[number - 1] if number <= len(self._links) else None

        with hold_anchored_head(signer.head if signer else None, link_at) as note:
            link = make_entry(self._links[-1] if self._links else None, kind, request_id, body, signer)
            note(link)
            self._links.append(link)
        return link
