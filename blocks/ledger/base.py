"""The ledger port: what was intended and done, asked and decided, deployed and taken back. Rows are only added.

The part about what senders deliver is in `inbox`, that of alerts in `outbox`. What people decided is a chain of signed
rows: `blocks.ledger.chain` says of what form, `anchor` how its end is kept.
"""

from abc import abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from prefect.blocks.core import Block

from blocks.ledger.inbox import Inbox
from blocks.ledger.outbox import Outbox
from runtime.keys import Signer

LinkKind = Literal["decision", "waiver", "refusal"]


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

    `approvers` empty means anyone with a name; with `four_eyes` neither the requester nor one of `authors`, who
    wrote the code, may decide. It takes `approvals` different people, each with one of `roles` (empty: any).
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
    authors: tuple[str, ...] = ()
    approvals: int = 1
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """What a person decided, over which digest, through which channel ("prefect form", "terminal", "approvals page").

    `authenticated` says whether the channel proved who it was, and `roles` which roles it proved with that;
    `request_digest` fixes the whole request as it was.
    """

    request_id: str
    digest: str
    approved: bool
    by: str
    reason: str
    channel: str
    at: datetime
    authenticated: bool = False
    request_digest: str = ""
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Waiver:
    """A person's decision that failed gates of a model do not hold it back in an environment, until a time."""

    model: str
    environment: str
    gates: tuple[str, ...]
    by: str
    reason: str
    channel: str
    at: datetime
    until: datetime
    authenticated: bool = False


@dataclass(frozen=True)
class Refused:
    """An attempt that was refused: what was tried ("decide", "deploy", "waive"), by whom, and why not."""

    request_id: str
    action: str
    by: str
    channel: str
    problem: str
    at: datetime


@dataclass(frozen=True)
class Link:
    """One row of the chain of decisions; `body` is what it records, as canonical JSON (`blocks.ledger.chain`).

    `previous` is the hash of the row before, `signature` that of the key `key_id` over `hash`, in hexadecimal digits;
    only a refusal may be without one.
    """

    number: int
    kind: LinkKind
    request_id: str
    body: str
    previous: str
    hash: str
    key_id: str
    signature: str


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
    def decide(self, decision: Decision, signer: Signer) -> Decision:
        """Sign and record a person's decision over a request, and return the recorded one.

        The first rejection ends a request, and so does the last approval that it takes. Of two that would end it
        at once, one is recorded. The same decision again (same person, same verdict, same digest) returns the
        recorded one.

        Raises:
            NotFound: no such request.
            Conflict: it is decided already, or that person has decided otherwise; the message says how and by whom.
            Corrupt: rows that the signer knows of are gone.
        """

    @abstractmethod
    def decision(self, request_id: str) -> Decision | None:
        """Return the decision that ended the request, or None while it is open."""

    @abstractmethod
    def waive(self, waiver: Waiver, signer: Signer) -> Link:
        """Sign and record a waiver. Raises as `decide`."""

    @abstractmethod
    def refuse(self, refused: Refused, signer: Signer | None) -> Link:
        """Record an attempt that was refused, signed where this process may sign."""

    @abstractmethod
    def links(self, request_id: str | None = None) -> tuple[Link, ...]:
        """Return the chain from its beginning, or the links of one request; nothing is verified."""

    @abstractmethod
    def record_deployment(self, deployment: Deployment) -> Deployment:
        """Add a line, or return the one with that id."""

    @abstractmethod
    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models for which something was asked or deployed in an environment, sorted."""

    @abstractmethod
    def deployments(self, model: str, environment: str) -> tuple[Deployment, ...]:
        """Return the lines of a model in an environment, newest first."""
