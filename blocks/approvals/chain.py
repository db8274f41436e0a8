"""The chain: each link has the hash of the previous link, and the signature of its recorder.

It holds decisions of people, and the digest of each row of the ledger that decides (`blocks.approvals.rows`). A key
signs the kinds of its own purpose alone: the key of the workers cannot sign a decision. Only the record of an erasure
may be signed by either.

A link's hash is the SHA-256 of the JSON list `[FORM, number, kind, request_id, body, previous, key_id]`, without
spaces, in UTF-8; the signature is over `FORM + "\\n" + hash`. Anyone can verify both without this program. Only a
refused attempt may be unsigned: it permits nothing, and the next signed link covers it by its hash.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from blocks.common.errors import Corrupt
from blocks.records.actions import ActionOrder
from blocks.records.approvals import (
    ApprovalRequest,
    ChainEntry,
    ChainEntryKind,
    Decision,
    ErasureRecord,
    RefusedAttempt,
    RowSeal,
    Waiver,
)
from runtime.digests import text_digest
from runtime.keys import Keyring, Signer

CHAIN_FORMAT = "ratchet.link.v1"
GENESIS_HASH = "0" * 64
"""Value of `previous` in the first link."""

ChainRecord = Decision | Waiver | RefusedAttempt | ErasureRecord | ActionOrder | RowSeal
KeyPurpose = Literal["decisions", "records"]
TrustedKeys = Mapping[KeyPurpose, Keyring]
"""The trusted public keys, by the purpose that they sign for."""


@dataclass(frozen=True)
class ChainKind:
    """A kind of link: the class of its record, and the purposes of the keys that may sign it."""

    record: type[ChainRecord]
    purposes: tuple[KeyPurpose, ...]
    may_be_unsigned: bool = False


CHAIN_KINDS: Mapping[ChainEntryKind, ChainKind] = {
    "decision": ChainKind(Decision, ("decisions",)),
    "waiver": ChainKind(Waiver, ("decisions",)),
    "refusal": ChainKind(RefusedAttempt, ("decisions",), may_be_unsigned=True),
    "erasure": ChainKind(ErasureRecord, ("decisions", "records")),  # it permits nothing; workers reach the lake
    "action": ChainKind(ActionOrder, ("decisions",)),
    "record": ChainKind(RowSeal, ("records",)),
}
"""Every kind of link."""


@dataclass(frozen=True)
class ChainHead:
    """The end of a chain, as recorded outside the database."""

    number: int
    hash: str


@dataclass(frozen=True)
class ChainFault:
    """The first fault of a chain: the link's number, and the problem. Number 0: a row that no link seals."""

    number: int
    problem: str


@dataclass(frozen=True)
class RowState:
    """A row as it is stored: its SHA-256, or why it cannot be read."""

    digest: str
    problem: str = ""


def make_entry(
    last: ChainEntry | None, kind: ChainEntryKind, request_id: str, body: str, signer: Signer | None
) -> ChainEntry:
    """Return the link that follows `last`."""
    number, previous = (last.number + 1, last.hash) if last else (1, GENESIS_HASH)
    key = signer.key_id if signer else ""
    digest = entry_hash(number, kind, request_id, body, previous, key)
    signature = signer.sign(signed_bytes(digest)).hex() if signer else ""
    return ChainEntry(number, kind, request_id, body, previous, digest, key, signature)


def entry_hash(number: int, kind: str, request_id: str, body: str, previous: str, key: str) -> str:
    """Return the hash of a link with these fields."""
    parts = [CHAIN_FORMAT, number, kind, request_id, body, previous, key]
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return text_digest(text, "surrogatepass")


def signed_bytes(digest: str) -> bytes:
    """Return the bytes that are signed for a link's hash."""
    return f"{CHAIN_FORMAT}\n{digest}".encode()


def record_to_json(record: ChainRecord) -> str:
    """Return a record as canonical JSON: sorted keys, no spaces, times in ISO 8601."""
    return _canonical(asdict(record))


def record_from_entry(link: ChainEntry) -> ChainRecord:
    """Return the record of a link. Raises ValueError if the body does not match the kind."""
    if (kind := CHAIN_KINDS.get(link.kind)) is None:
        raise ValueError(f"its kind {link.kind!r} is unknown")
    try:
        unknown = json.loads(link.body).keys() - {field.name for field in fields(kind.record)}
        record = _adapters()[link.kind].validate_json(link.body, strict=True)
    except (ValueError, AttributeError, RecursionError) as cause:  # pydantic's error is a ValueError
        raise ValueError(f"its body is no {link.kind}") from cause
    times = (value for value in vars(record).values() if isinstance(value, datetime))
    if unknown or any(time.utcoffset() is None for time in times):
        raise ValueError(f"its body is no {link.kind}")
    return record


@cache
def _adapters() -> Mapping[ChainEntryKind, TypeAdapter[ChainRecord]]:
    """Return the parsers of the records' JSON; none is made at import."""
    return {name: TypeAdapter(kind.record) for name, kind in CHAIN_KINDS.items()}


def read_entry(link: ChainEntry) -> ChainRecord:
    """Return the record of a link. Raises Corrupt, which names the link, if the body does not match the kind."""
    try:
        return record_from_entry(link)
    except ValueError as cause:
        remedy = "Restore the database from a backup; see python -m ratchet audit verify."
        raise Corrupt(f"ledger: entry {link.number}: {cause}. {remedy}") from cause


def decisions_of(links: Iterable[ChainEntry]) -> tuple[Decision, ...]:
    """Return the decisions among the links, in order."""
    records = (read_entry(link) for link in links if link.kind == "decision")
    return tuple(record for record in records if isinstance(record, Decision))


def request_digest(request: ApprovalRequest) -> str:
    """Return the SHA-256 of the whole request in the ledger; a decision covers all of it."""
    values = asdict(request)
    if not request.requester_authenticated:  # requests of before this field keep their digest
        del values["requester_authenticated"]
    return row_digest(values)


def row_digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a row's values, by column, in the canonical JSON of records."""
    return text_digest(_canonical(values), "surrogatepass")


def find_first_fault(
    links: Sequence[ChainEntry],
    keys: TrustedKeys,
    *,
    requests: Mapping[str, ApprovalRequest] | None = None,
    rows: Mapping[tuple[str, str], RowState] | None = None,
    head: ChainHead | None = None,
    after: ChainEntry | None = None,
) -> ChainFault | None:
    """Return the first fault of a complete chain, in the order of its numbers, or None.

    `requests` are the requests by id, to check that none was changed after its decision; None skips this check. `rows`
    are the stored rows by table and key, to check that each is the sealed one; None skips this check. `head`
    is the recorded end of the chain; without it, rows deleted from the end are not detected. `after` is the link that
    the first one must follow; None: `links` is the chain from its beginning.
    """
    first, previous = (after.number + 1, after.hash) if after else (1, GENESIS_HASH)
    unsealed = None if rows is None else dict(rows)
    for expected, link in enumerate(links, start=first):
        problem = (
            _entry_problem(link, expected, previous, keys)
            or _row_problem(link, unsealed)
            or _request_problem(link, requests)
        )
        if problem:
            return ChainFault(expected, problem)
        previous = link.hash
    if head is not None and (fault := find_head_fault(links, head)):
        return fault
    for (table, key), state in (unsealed or {}).items():
        return ChainFault(0, state.problem or f"table {table}: no entry of the chain seals the row {key}")
    return None


def find_head_fault(links: Sequence[ChainEntry], head: ChainHead) -> ChainFault | None:
    """Return the fault of a complete chain that does not contain the recorded head, or None."""
    if head.number and (head.number > len(links) or links[head.number - 1].hash != head.hash):
        actual = f"the chain has {len(links)} links" if head.number > len(links) else "another link is there"
        return ChainFault(
            head.number, f"the anchored head is link {head.number} with the hash {head.hash[:12]}…; {actual}"
        )
    return None


def _entry_problem(link: ChainEntry, expected: int, previous: str, keys: TrustedKeys) -> str:
    found = entry_hash(link.number, link.kind, link.request_id, link.body, link.previous, link.key_id)
    if link.number != expected:
        return f"a link is missing: number {link.number} stands where {expected} is due"
    if link.previous != previous:
        return "it does not bear the hash of the link before it"
    if found != link.hash:
        return "its content is not that of its hash: it was changed"
    return _record_problem(link) or _signature_problem(link, keys)


def _record_problem(link: ChainEntry) -> str:
    try:
        record = record_from_entry(link)
    except ValueError as cause:
        return str(cause)
    same = getattr(record, "request_id", "") == link.request_id
    return "" if same else "what it records is about another request"


def _row_problem(link: ChainEntry, unsealed: dict[tuple[str, str], RowState] | None) -> str:
    """Return what is wrong with the row that the link seals; "" takes it from `unsealed`."""
    if unsealed is None or not isinstance(seal := record_from_entry(link), RowSeal):
        return ""
    row = f"the row {seal.key} of table {seal.table} that it seals"
    if (state := unsealed.pop((seal.table, seal.key), None)) is None:
        return f"{row} was removed, or its key was changed"
    if state.problem:
        return f"{row} cannot be read: {state.problem}"
    return "" if state.digest == seal.digest else f"{row} was changed"


def _signature_problem(link: ChainEntry, keys: TrustedKeys) -> str:
    kind = CHAIN_KINDS[link.kind]
    if is_signed_by_pinned_key(link, keys) or (kind.may_be_unsigned and not link.key_id):
        return ""
    return f"no pinned key of {' or '.join(kind.purposes)} has signed it (key {link.key_id or 'none'})"


def is_signed_by_pinned_key(link: ChainEntry, keys: TrustedKeys) -> bool:
    """Return whether a key that is trusted for the link's kind has signed it."""
    kind = CHAIN_KINDS.get(link.kind)
    trusted = [keys[purpose] for purpose in (kind.purposes if kind else ()) if purpose in keys]
    try:
        signature = bytes.fromhex(link.signature)
    except ValueError:
        return False
    exact = signature.hex() == link.signature  # capitals would be the same bytes in another row
    return exact and any(each.verifies(link.key_id, signature, signed_bytes(link.hash)) for each in trusted)


def _request_problem(link: ChainEntry, requests: Mapping[str, ApprovalRequest] | None) -> str:
    if requests is None or link.kind != "decision":
        return ""
    if (request := requests.get(link.request_id)) is None:
        return f"the request {link.request_id!r} that it decides is gone"
    decision = record_from_entry(link)
    if isinstance(decision, Decision) and decision.request_digest != request_digest(request):
        return f"the request {link.request_id!r} was changed after it was decided"
    return ""


def _canonical(values: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, datetime):
            return value.isoformat(timespec="microseconds")
        raise TypeError(f"a ledger's record holds {type(value).__name__}")

    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=text)
