"""Records of approval: requests, decisions, waivers, refused attempts, erasures, row seals, and the chain of these.

The chain also has the orders of `blocks.records.actions`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

ChainEntryKind = Literal["decision", "waiver", "refusal", "erasure", "action", "record"]

UnauthenticatedRequester = Literal["extra_approver", "refuse", "accept"]
"""What an environment does with a request whose requester nobody authenticated."""


@dataclass(frozen=True)
class ApprovalRequest:
    """A request for a decision, with the evidence as shown (canonical JSON) and its digest.

    Empty `approvers` means anyone. With `four_eyes` neither the requester nor one of the `authors` of the code may
    decide. The request requires `approvals` different people, each with one of `roles` (empty: any).
    `requester_authenticated` says whether an order of a person who signed in started the run.
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
    requester_authenticated: bool = False


@dataclass(frozen=True)
class Decision:
    """A person's decision over a digest, through a channel ("prefect form", "terminal", "approvals page").

    `authenticated` says whether the channel proved the person's identity, and `roles` are the roles that it proved;
    `request_digest` covers the whole request.
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
    """A person's decision that named gates of a model may fail in an environment, until a time.

    `roles` are the roles that the channel proved.
    """

    model: str
    environment: str
    gates: tuple[str, ...]
    waived_by: str
    reason: str
    channel: str
    at: datetime
    until: datetime
    authenticated: bool = False
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class RefusedAttempt:
    """A refused attempt: the action ("decide", "deploy", "waive"), the person, and the reason."""

    request_id: str
    action: str
    by: str
    channel: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class ErasureRecord:
    """An erasure of one entity's rows, as it was requested, and once more with `changes` when it was done.

    A change is a data set, how many of its rows were erased, and the digests of a full read before and after. Whose
    rows they were is not recorded.
    """

    model: str
    environment: str
    status: Literal["requested", "done"]
    requested_by: str
    reason: str
    channel: str
    at: datetime
    changes: tuple[tuple[str, int, str, str], ...] = ()


@dataclass(frozen=True)
class RowSeal:
    """What a row of the ledger was when it was added: its table, its key as a JSON list, and its SHA-256.

    The key holds the columns by which rows of the table are looked for. `adopted_by` and `reason` say who took over a
    row that a release without seals had added, and why; both are "" for a row that was sealed when it was added.
    """

    table: str
    key: str
    digest: str
    adopted_by: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ChainEntry:
    """One row of the chain; `body` is the record as canonical JSON (`blocks.approvals.chain`).

    `previous` is the hash of the previous row. `signature` is that of the key `key_id` over `hash`, in hexadecimal
    digits; only a refusal may be unsigned.
    """

    number: int
    kind: ChainEntryKind
    request_id: str
    body: str
    previous: str
    hash: str
    key_id: str
    signature: str
