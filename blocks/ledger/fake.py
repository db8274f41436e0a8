"""A ledger in memory, for tests: the same rules as the real one, and faults on demand."""

from dataclasses import replace
from datetime import datetime
from threading import Lock

from pydantic import Field, PrivateAttr

from blocks.errors import Unavailable
from blocks.ledger.base import ApprovalRequest, Decision, Deployment, Effect, Ledger
from blocks.ledger.fake_inbox import FakeInbox, Kept
from blocks.ledger.fake_outbox import FakeOutbox, Told
from blocks.ledger.rules import check_same_decision, check_same_request, in_utc, no_request, nothing_intended


class FakeLedger(FakeOutbox, FakeInbox, Ledger):
    """A record that lives as long as the object does."""

    _block_type_name = "Ratchet ledger (fake, in memory)"
    _block_type_slug = "ratchet-ledger-fake"

    fail_writes: int = Field(default=0, description="So many writes raise Unavailable before one works.")

    _effects: dict[str, Effect] = PrivateAttr(default_factory=dict)
    _requests: dict[str, ApprovalRequest] = PrivateAttr(default_factory=dict)
    _decisions: dict[str, Decision] = PrivateAttr(default_factory=dict)
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
        waiting = (each for each in list(self._requests.values()) if each.id not in self._decisions)
        return tuple(each for each in waiting if model in {None, each.model})

    def decide(self, decision: Decision) -> Decision:
        """Record the one decision of a request. Of two at once, one is recorded."""
        self.approval_request(decision.request_id)
        given = replace(decision, at=in_utc(decision.at))
        with self._lock:
            self._may_write()
            recorded = self._decisions.setdefault(decision.request_id, given)
        check_same_decision(recorded, decision)
        return recorded

    def decision(self, request_id: str) -> Decision | None:
        """Return the decision of a request, or None."""
        return self._decisions.get(request_id)

    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a line, or return the one with that id."""
        with self._lock:
            self._may_write()
            given = replace(deployment, at=in_utc(deployment.at))
            return self._deployments.setdefault(deployment.id, given)

    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the lines of a model in an environment, newest first."""
        lines = reversed(list(self._deployments.values()))
        return tuple(each for each in lines if (each.model, each.environment) == (model, environment))

    def _may_write(self) -> None:
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise Unavailable("ledger: this fake fails so many writes (fail_writes). Try again.")
