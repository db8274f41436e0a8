"""The approvals port: requests, and what people decided about them. Rows are only added.

Decisions, waivers and refused attempts are one chain of signed links: `blocks.approvals.chain` says of what form, and
`blocks.approvals.anchor` how its end is kept outside the database.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from runtime.keys import Signer

LinkKind = Literal["decision", "waiver", "refusal"]


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
    waived_by: str
    reason: str
    channel: str
    at: datetime
    until: datetime
    authenticated: bool = False


@dataclass(frozen=True)
class RefusedAttempt:
    """An attempt that was refused: what was tried ("decide", "deploy", "waive"), by whom, and why not."""

    request_id: str
    action: str
    by: str
    channel: str
    problem: str
    at: datetime


@dataclass(frozen=True)
class Link:
    """One row of the chain of decisions; `body` is what it records, as canonical JSON (`blocks.approvals.chain`).

    `previous` is the hash of the row before, `signature` that of the key `public_key_id` over `hash`, in hexadecimal digits;
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


class Approvals(ABC):
    """Requests for approval and the chain of decisions about them. Each request is written once."""

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
    def models(self, environment: str) -> tuple[str, ...]:
        """Return the models for which approval was ever requested in an environment, sorted."""

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
    def refuse(self, attempt: RefusedAttempt, signer: Signer | None) -> Link:
        """Record an attempt that was refused, signed where this process may sign."""

    @abstractmethod
    def links(self, request_id: str | None = None) -> tuple[Link, ...]:
        """Return the chain from its beginning, or the links of one request; nothing is verified."""
