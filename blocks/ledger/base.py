"""The ledger port: what was intended and done, asked and decided, deployed and taken back. Rows are only added.

The part about what senders deliver is in `inbox`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prefect.blocks.core import Block

from blocks.ledger.inbox import Inbox
from blocks.ledger.outbox import Outbox


@dataclass(frozen=True)
class Effect:
    """An outside effect under its key: `intent` before it is done, `done` with its outcome after."""

    key: str
    state: Literal["intent", "done"]
    detail: str
    outcome: str
    at: datetime


@dataclass(frozen=True)
class ApprovalRequest:
    """What a person is asked to decide, with the evidence as shown (canonical JSON) and its digest.

    `approvers` empty means anyone with a name; with `four_eyes` the requester may not decide.
    """

    id: str
    model: str
    environment: str
    version: str
    digest: str
    evidence: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    flow_run_id: str
    approvers: tuple[str, ...] = ()
    four_eyes: bool = True


@dataclass(frozen=True)
class Decision:
    """What a person decided, over which digest, through which channel ("prefect form", "terminal")."""

    request_id: str
    digest: str
    approved: bool
    by: str
    reason: str
    channel: str
    at: datetime


@dataclass(frozen=True)
class Deployment:
    """One line of what served when: `action` is what was tried, `status` how it ended."""

    id: str
    model: str
    environment: str
    version: str
    digest: str
    action: Literal["deploy", "rollback"]
    status: Literal["serving", "failed"]
    by: str
    reason: str
    request_id: str
    at: datetime


class Ledger(Outbox, Inbox, Block):
    """A record that is only added to. Each key is written once; a repeat returns what is there."""

    @abstractmethod
    def intend(self, key: str, detail: str, at: datetime) -> Effect:
        """Write down an effect before it is done, or return the one that is there under the key."""

    @abstractmethod
    def finish(self, key: str, outcome: str, at: datetime) -> Effect:
        """Write down that the effect is done; the first outcome stays.

        Raises:
            NotFound: nothing was intended under that key.
        """

    @abstractmethod
    def effect(self, key: str) -> Effect | None:
        """Return the effect under the key, or None."""

    @abstractmethod
    def request_approval(self, request: ApprovalRequest) -> ApprovalRequest:
        """Add a request, or return the one with that id.

        Raises:
            Conflict: a request with that id exists over another digest.
        """

    @abstractmethod
    def approval_request(self, request_id: str) -> ApprovalRequest:
        """Return a request. Raises NotFound, and lists the open ones."""

    @abstractmethod
    def open_requests(self, model: str | None = None) -> tuple[ApprovalRequest, ...]:
        """Return the requests without a decision, oldest first, expired ones included."""

    @abstractmethod
    def decide(self, decision: Decision) -> Decision:
        """Record the one decision of a request. Of two at once, one is recorded.

        The same decision again (same person, same verdict, same digest) returns the recorded one.

        Raises:
            NotFound: no such request.
            Conflict: it is decided already, otherwise or by another person; the message says how and by whom.
        """

    @abstractmethod
    def decision(self, request_id: str) -> Decision | None:
        """Return the decision of a request, or None."""

    @abstractmethod
    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a line, or return the one with that id."""

    @abstractmethod
    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the lines of a model in an environment, newest first."""
