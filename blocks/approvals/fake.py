"""Approvals in memory, for tests: the same rules as the real ones, and faults on demand."""

from dataclasses import dataclass, field, replace
from threading import Lock

from blocks.approvals.anchor import anchored
from blocks.approvals.base import ApprovalRequest, Approvals, Decision, Link, LinkKind, RefusedAttempt, Waiver
from blocks.approvals.chain import body_of, decisions_of, make_link, request_digest
from blocks.approvals.rules import check_same_request, no_request, outcome, recorded_before
from blocks.database.faults import FailingWrites
from blocks.database.moments import in_utc
from runtime.keys import Signer


@dataclass
class FakeApprovals(FailingWrites, Approvals):
    """Requests and decisions that live as long as the object does."""

    _requests: dict[str, ApprovalRequest] = field(default_factory=dict, init=False)
    _links: list[Link] = field(default_factory=list, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def request_approval(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id."""
        requested, expires = in_utc(request.requested_at), in_utc(request.expires_at)
        with self._lock:
            self.may_write()
            given = replace(request, requested_at=requested, expires_at=expires)
            recorded = self._requests.setdefault(request.id, given)
        check_same_request(recorded, request)
        return recorded

    def approval_request(self, request_id: str) -> ApprovalRequest:
        """Return a request. Raises NotFound, and lists the open ones."""
        if request_id not in self._requests:
            raise no_request(request_id, self.open_requests())
        return self._requests[request_id]

    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a decision, oldest first, expired ones included."""
        waiting = (each for each in list(self._requests.values()) if self.decision(each.id) is None)
        return tuple(each for each in waiting if model in {None, each.model})

    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models for which approval was ever requested in an environment, sorted."""
        here = (each for each in list(self._requests.values()) if each.environment == environment)
        return tuple(sorted({each.model for each in here}))

    def decide(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request; see `Approvals.decide`."""
        request = self.approval_request(decision.request_id)
        given = replace(decision, at=in_utc(decision.at), request_digest=request_digest(request))
        with self._lock:
            self.may_write()
            said = decisions_of(self.links(request.id))
            if (found := recorded_before(said, given, request.approvals)) is not None:
                return found
            self._append("decision", request.id, body_of(given), signer)
        return given

    def decision(self, request_id: str) -> Decision | None:
        """Return the decision that ended the request, or None while it is open."""
        if (request := self._requests.get(request_id)) is None:
            return None
        return outcome(decisions_of(self.links(request_id)), request.approvals)

    def waive(self, waiver: Waiver, signer: Signer) -> Link:
        """Sign and record a waiver."""
        given = replace(waiver, at=in_utc(waiver.at), until=in_utc(waiver.until))
        with self._lock:
            self.may_write()
            return self._append("waiver", "", body_of(given), signer)

    def refuse(self, attempt: RefusedAttempt, signer: Signer | None) -> Link:
        """Record an attempt that was refused."""
        given = replace(attempt, at=in_utc(attempt.at))
        with self._lock:
            self.may_write()
            return self._append("refusal", given.request_id, body_of(given), signer)

    def links(self, request_id: str | None = None) -> tuple[Link, ...]:
        """Return the chain from its beginning, or the links of one request."""
        return tuple(link for link in self._links if request_id in {None, link.request_id})

    def _append(self, kind: LinkKind, request_id: str, body: str, signer: Signer | None) -> Link:
        def link_at(number: int) -> Link | None:
            return self._links[number - 1] if number <= len(self._links) else None

        with anchored(signer.head if signer else None, link_at) as note:
            link = make_link(self._links[-1] if self._links else None, kind, request_id, body, signer)
            note(link)
            self._links.append(link)
        return link
