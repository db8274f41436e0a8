"""A ledger in memory, for tests: the same rules as the real one, and faults on demand."""

from dataclasses import replace
from datetime import datetime
from threading import Lock

from pydantic import Field, PrivateAttr

from blocks.common.errors import Unavailable
from blocks.ledger.anchor import anchored
from blocks.ledger.base import (
    ApprovalRequest,
    Decision,
    Deployment,
    Effect,
    Ledger,
    Link,
    LinkKind,
    Refused,
    Waiver,
)
from blocks.ledger.chain import body_of, decisions_of, make_link, request_digest
from blocks.ledger.fake_inbox import FakeInbox, Kept
from blocks.ledger.fake_outbox import FakeOutbox, Told
from blocks.ledger.rules import check_same_request, in_utc, no_request, nothing_intended, outcome, recorded_before
from runtime.keys import Signer


class FakeLedger(FakeOutbox, FakeInbox, Ledger):
    """A record that lives as long as the object does."""

    _block_type_name = "Ratchet ledger (fake, in memory)"
    _block_type_slug = "ratchet-ledger-fake"

    fail_writes: int = Field(default=0, description="So many writes raise Unavailable before one works.")

    _effects: dict[str, Effect] = PrivateAttr(default_factory=dict)
    _requests: dict[str, ApprovalRequest] = PrivateAttr(default_factory=dict)
    _links: list[Link] = PrivateAttr(default_factory=list)
    _deployments: dict[str, Deployment] = PrivateAttr(default_factory=dict)
    _told: Told = PrivateAttr(default_factory=Told)
    _kept: Kept = PrivateAttr(default_factory=Kept)
    _lock: Lock = PrivateAttr(default_factory=Lock)

    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Write down an effect before it is done, or return the one that is there under the key."""
        with self._lock:
            self._may_write()
            return self._effects.setdefault(key, Effect(key, "intent", detail, "", in_utc(at)))

    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Write down that the effect is done; the first outcome stays."""
        with self._lock:
            self._may_write()
            if (effect := self._effects.get(key)) is None:
                raise nothing_intended(key)
            if effect.state == "intent":
                self._effects[key] = replace(effect, state="done", outcome=outcome, at=in_utc(at))
            return self._effects[key]

    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""
        return self._effects.get(key)

    def request_approval(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id."""
        asked, expires = in_utc(request.requested_at), in_utc(request.expires_at)
        with self._lock:
            self._may_write()
            given = replace(request, requested_at=asked, expires_at=expires)
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

    def decide(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request; see `Ledger.decide`."""
        request = self.approval_request(decision.request_id)
        given = replace(decision, at=in_utc(decision.at), request_digest=request_digest(request))
        with self._lock:
            self._may_write()
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
            self._may_write()
            return self._append("waiver", "", body_of(given), signer)

    def refuse(self, refused: Refused, signer: Signer | None) -> Link:
        """Record an attempt that was refused."""
        given = replace(refused, at=in_utc(refused.at))
        with self._lock:
            self._may_write()
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

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a line, or return the one with that id."""
        with self._lock:
            self._may_write()
            given = replace(deployment, at=in_utc(deployment.at))
            return self._deployments.setdefault(deployment.id, given)

    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models for which something was asked or deployed in an environment, sorted."""
        asked = {each.model for each in list(self._requests.values()) if each.environment == environment}
        tried = {each.model for each in list(self._deployments.values()) if each.environment == environment}
        return tuple(sorted(asked | tried))

    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the lines of a model in an environment, newest first."""
        lines = reversed(list(self._deployments.values()))
        return tuple(each for each in lines if (each.model, each.environment) == (model, environment))

    def _may_write(self) -> None:
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise Unavailable("ledger: this fake fails so many writes (fail_writes). Try again.")
