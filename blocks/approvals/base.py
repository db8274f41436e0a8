"""The approvals port: approval requests, and decisions about them. Append-only.

Decisions, waivers, refused attempts and erasures are one chain of signed links: `blocks.approvals.chain` defines its
form, and `blocks.approvals.anchor` records its end outside the database.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from blocks.approvals.chain import decisions_of
from blocks.common.errors import Conflict, NotFound
from blocks.records.actions import ActionOrder
from blocks.records.approvals import ApprovalRequest, ChainEntry, Decision, ErasureRecord, RefusedAttempt, Waiver
from blocks.records.identity import may_be_same_person
from runtime.keys import Signer


class Approvals(ABC):
    """Requests for approval and the chain of decisions about them. Each request is written once."""

    @abstractmethod
    def add_request(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id.

        Raises:
            Conflict: a request with that id exists over another digest.
        """

    def get_request(self, request_id: str) -> ApprovalRequest:
        """Return a request. Raises NotFound, and lists the open ones."""
        if (request := self._find_request(request_id)) is None:
            listed = ", ".join(f"{each.id} ({each.model} {each.version})" for each in self.open_requests()) or "none"
            raise NotFound(f"ledger: no approval request {request_id!r}. Open requests: {listed}.")
        return request

    @abstractmethod
    def _find_request(self, request_id: str) -> ApprovalRequest | None:
        """Return a request, or None."""

    @abstractmethod
    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a decision, oldest first, expired ones included."""

    @abstractmethod
    def model_names(self, environment: str) -> tuple[str, ...]:
        """Return the models for which approval was ever requested in an environment, sorted."""

    @abstractmethod
    def record_decision(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request, and return the recorded one.

        The first rejection ends a request, and so does the last approval that it requires. Of two simultaneous
        decisions that would end it, one is recorded. The same decision again (same person, verdict and digest) returns
        the recorded one.

        Raises:
            NotFound: no such request.
            Conflict: it is decided already, or that person has decided otherwise; the message says how and by whom.
            Corrupt: rows that the signer has signed are missing.
        """

    def final_decision(self, request_id: str) -> Decision | None:
        """Return the decision that ended the request, or None while it is open."""
        if (request := self._find_request(request_id)) is None:
            return None
        return final_decision(decisions_of(self.chain_entries(request_id)), request.approvals)

    @abstractmethod
    def record_waiver(self, waiver: Waiver, signer: Signer) -> ChainEntry:
        """Sign and record a waiver. Raises Corrupt as `record_decision` does."""

    @abstractmethod
    def record_erasure(self, erasure: ErasureRecord, signer: Signer) -> ChainEntry:
        """Sign and record an erasure. Raises Corrupt if rows that the signer has signed are missing."""

    @abstractmethod
    def record_order(self, order: ActionOrder, signer: Signer) -> ChainEntry:
        """Sign and record an order; its id is the hash of the entry. Raises Corrupt as `record_decision` does."""

    @abstractmethod
    def record_refusal(self, attempt: RefusedAttempt, signer: Signer | None) -> ChainEntry:
        """Record a refused attempt, signed if this process may sign."""

    @abstractmethod
    def chain_entries(self, request_id: str | None = None) -> tuple[ChainEntry, ...]:
        """Return the chain from its beginning, or the links of one request; nothing is verified."""


def check_same_request(recorded: ApprovalRequest, repeated: ApprovalRequest) -> None:
    """Raise Conflict if a repeated request has another digest than the recorded one."""
    if recorded.digest != repeated.digest:
        raise Conflict(
            f"ledger: approval request {repeated.id!r} exists over digest {recorded.digest}, not {repeated.digest}. "
            "Use another id: a request cannot be changed."
        )


def final_decision(decisions: Sequence[Decision], approvals: int) -> Decision | None:
    """Return the decision that closed a request: the first rejection, or the last required approval."""
    approved = 0
    for decision in decisions:
        approved += decision.approved is True
        if not decision.approved or approved >= max(1, approvals):
            return decision
    return None


def find_repeated_decision(decisions: Sequence[Decision], given: Decision, approvals: int) -> Decision | None:
    """Return the recorded decision that `given` repeats; None if it is new and the request is open.

    Raises:
        Conflict: the request is closed, or this person has decided differently or over another digest.
    """
    own = [each for each in decisions if may_be_same_person(each.by, given.by)]
    for each in own:
        if (each.approved, each.digest) == (given.approved, given.digest):
            return each
    standing = own[0] if own else final_decision(decisions, approvals)
    if standing is None:
        return None
    verdict = "approved" if standing.approved else "rejected"
    raise Conflict(
        f"ledger: approval request {given.request_id!r} is decided already: {verdict} by {standing.by} "
        f"on {standing.at.isoformat()} over digest {standing.digest} ({standing.reason or 'no reason given'}). "
        "The first decision stays; make a new request."
    )
