"""The decision chain: each link has the hash of the previous link, and the signature of its recorder.

A link's hash is the SHA-256 of the JSON list `[FORM, number, kind, request_id, body, previous, key_id]`, without
spaces, in UTF-8; the signature is over `FORM + "\\n" + hash`. Anyone can verify both without this program. Only a
refused attempt may be unsigned: it permits nothing, and the next signed link covers it by its hash.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from blocks.records.approvals import (
    ApprovalRequest,
    ChainEntry,
    ChainEntryKind,
    Decision,
    ErasureRecord,
    RefusedAttempt,
    Waiver,
)
from runtime.digests import text_digest
from runtime.keys import Keyring, Signer

CHAIN_FORMAT = "ratchet.link.v1"
GENESIS_HASH = "0" * 64
"""Value of `previous` in the first link."""

ChainRecord = Decision | Waiver | RefusedAttempt | ErasureRecord

_RECORD_TYPES: dict[ChainEntryKind, type[ChainRecord]] = {
    "decision": Decision,
    "waiver": Waiver,
    "refusal": RefusedAttempt,
    "erasure": ErasureRecord,
}


@dataclass(frozen=True)
class ChainHead:
    """The end of a chain, as recorded outside the database."""

    number: int
    hash: str


@dataclass(frozen=True)
class ChainFault:
    """The first fault of a chain: the link's number, and the problem."""

    number: int
    problem: str


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
    kind = _RECORD_TYPES.get(link.kind)
    try:
        values: dict[str, Any] = json.loads(link.body)
        times: dict[str, Any] = {
            name: datetime.fromisoformat(values[name]) for name in ("at", "until") if name in values
        }
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("gates", "roles") if name in values}
        if "changes" in values:
            lists["changes"] = tuple(tuple(each) for each in values["changes"])
        if kind is None:
            raise ValueError(link.kind)
        return kind(**{**values, **times, **lists})
    except (KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise ValueError(f"link {link.number} does not record a {link.kind}") from cause


def decisions_of(links: Iterable[ChainEntry]) -> tuple[Decision, ...]:
    """Return the decisions among the links, in order."""
    records = (record_from_entry(link) for link in links if link.kind == "decision")
    return tuple(record for record in records if isinstance(record, Decision))


def request_digest(request: ApprovalRequest) -> str:
    """Return the SHA-256 of the whole request in the ledger; a decision covers all of it."""
    return text_digest(_canonical(asdict(request)), "surrogatepass")


def find_first_fault(
    links: Sequence[ChainEntry],
    keys: Keyring,
    *,
    requests: Mapping[str, ApprovalRequest] | None = None,
    head: ChainHead | None = None,
) -> ChainFault | None:
    """Return the first fault of a complete chain, in the order of its numbers, or None.

    `requests` are the requests by id, to check that none was changed after its decision; None skips this check. `head`
    is the recorded end of the chain; without it, rows deleted from the end are not detected.
    """
    previous = GENESIS_HASH
    for expected, link in enumerate(links, start=1):
        problem = _entry_problem(link, expected, previous, keys) or _request_problem(link, requests)
        if problem:
            return ChainFault(expected, problem)
        previous = link.hash
    if head and head.number and (head.number > len(links) or links[head.number - 1].hash != head.hash):
        actual = f"the chain has {len(links)} links" if head.number > len(links) else "another link is there"
        return ChainFault(
            head.number, f"the anchored head is link {head.number} with the hash {head.hash[:12]}…; {actual}"
        )
    return None


def _entry_problem(link: ChainEntry, expected: int, previous: str, keys: Keyring) -> str:
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
    about = "" if isinstance(record, Waiver | ErasureRecord) else record.request_id
    return "" if about == link.request_id else "what it records is about another request"


def _signature_problem(link: ChainEntry, keys: Keyring) -> str:
    if is_signed_by_pinned_key(link, keys) or (link.kind == "refusal" and not link.key_id):
        return ""
    return f"no pinned key has signed it (key {link.key_id or 'none'})"


def is_signed_by_pinned_key(link: ChainEntry, keys: Keyring) -> bool:
    """Return whether a trusted key has signed the link."""
    try:
        signature = bytes.fromhex(link.signature)
    except ValueError:
        return False
    exact = signature.hex() == link.signature  # capitals would be the same bytes in another row
    return exact and keys.verifies(link.key_id, signature, signed_bytes(link.hash))


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
