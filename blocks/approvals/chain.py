"""The chain of decisions: each link bears the hash of the one before, and the signature of who recorded it.

A link's hash is the SHA-256 of the JSON list `[FORM, number, kind, request_id, body, previous, key_id]`, without
spaces, in UTF-8; the signature is over `FORM + "\\n" + hash`. Anyone can check both without us. Only a refused
attempt may be unsigned: it permits nothing, and the signed link after it covers it by its hash.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from blocks.approvals.base import ApprovalRequest, Decision, Link, LinkKind, RefusedAttempt, Waiver
from runtime.digests import text_digest
from runtime.keys import Keyring, Signer

FORM = "ratchet.link.v1"
BEGINNING = "0" * 64
"""What the first link bears as the hash of the one before."""

_KINDS: dict[LinkKind, type[Decision | Waiver | RefusedAttempt]] = {
    "decision": Decision,
    "waiver": Waiver,
    "refusal": RefusedAttempt,
}


@dataclass(frozen=True)
class Head:
    """Where a chain ended, as somebody outside the database knows it."""

    number: int
    hash: str


@dataclass(frozen=True)
class Fault:
    """The first thing that is wrong with a chain: which link, and what."""

    number: int
    problem: str


def make_link(last: Link | None, kind: LinkKind, request_id: str, body: str, signer: Signer | None) -> Link:
    """Return the link that follows `last`."""
    number, previous = (last.number + 1, last.hash) if last else (1, BEGINNING)
    key = signer.key_id if signer else ""
    found = link_hash(number, kind, request_id, body, previous, key)
    signature = signer.sign(signed_part(found)).hex() if signer else ""
    return Link(number, kind, request_id, body, previous, found, key, signature)


def link_hash(number: int, kind: str, request_id: str, body: str, previous: str, key: str) -> str:
    """Return the hash of a link with these fields."""
    parts = [FORM, number, kind, request_id, body, previous, key]
    text = json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
    return text_digest(text, "surrogatepass")


def signed_part(found: str) -> bytes:
    """Return the bytes that are signed for a link's hash."""
    return f"{FORM}\n{found}".encode()


def body_of(record: Decision | Waiver | RefusedAttempt) -> str:
    """Return a record as canonical JSON: sorted keys, no spaces, times in ISO 8601."""
    return _canonical(asdict(record))


def record_of(link: Link) -> Decision | Waiver | RefusedAttempt:
    """Return what a link records. Raises ValueError when its body is not that of its kind."""
    kind = _KINDS.get(link.kind)
    try:
        values: dict[str, Any] = json.loads(link.body)
        times: dict[str, Any] = {
            name: datetime.fromisoformat(values[name]) for name in ("at", "until") if name in values
        }
        lists: dict[str, Any] = {name: tuple(values[name]) for name in ("gates", "roles") if name in values}
        if kind is None:
            raise ValueError(link.kind)
        return kind(**{**values, **times, **lists})
    except (KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise ValueError(f"link {link.number} does not record a {link.kind}") from cause


def decisions_of(links: Iterable[Link]) -> tuple[Decision, ...]:
    """Return the decisions among the links, in order."""
    found = (record_of(link) for link in links if link.kind == "decision")
    return tuple(record for record in found if isinstance(record, Decision))


def request_digest(request: ApprovalRequest) -> str:
    """Return the SHA-256 of the whole request as it stands in the ledger: a decision is over all of it."""
    return text_digest(_canonical(asdict(request)), "surrogatepass")


def first_fault(
    links: Sequence[Link],
    keys: Keyring,
    *,
    requests: Mapping[str, ApprovalRequest] | None = None,
    head: Head | None = None,
) -> Fault | None:
    """Return the first thing that is wrong with a whole chain, or None.

    Args:
        links: all of them, in the order of their numbers.
        keys: the public keys that are pinned.
        requests: the requests by id, where they are at hand: what was decided on must be what is there.
        head: where the chain ended as somebody else knows it: without one, rows cut off its end are not missed.
    """
    previous = BEGINNING
    for expected, link in enumerate(links, start=1):
        problem = _problem(link, expected, previous, keys) or _about_request(link, requests)
        if problem:
            return Fault(expected, problem)
        previous = link.hash
    if head and head.number and (head.number > len(links) or links[head.number - 1].hash != head.hash):
        there = f"the chain has {len(links)} links" if head.number > len(links) else "another link is there"
        return Fault(head.number, f"the anchored head is link {head.number} with the hash {head.hash[:12]}…; {there}")
    return None


def _problem(link: Link, expected: int, previous: str, keys: Keyring) -> str:
    found = link_hash(link.number, link.kind, link.request_id, link.body, link.previous, link.key_id)
    if link.number != expected:
        return f"a link is missing: number {link.number} stands where {expected} is due"
    if link.previous != previous:
        return "it does not bear the hash of the link before it"
    if found != link.hash:
        return "its content is not that of its hash: it was changed"
    return _about_record(link) or _about_signature(link, keys)


def _about_record(link: Link) -> str:
    try:
        record = record_of(link)
    except ValueError as cause:
        return str(cause)
    about = "" if isinstance(record, Waiver) else record.request_id
    return "" if about == link.request_id else "what it records is about another request"


def _about_signature(link: Link, keys: Keyring) -> str:
    if signed_by(link, keys) or (link.kind == "refusal" and not link.key_id):
        return ""
    return f"no pinned key has signed it (key {link.key_id or 'none'})"


def signed_by(link: Link, keys: Keyring) -> bool:
    """Whether a pinned key has signed the link."""
    try:
        signature = bytes.fromhex(link.signature)
    except ValueError:
        return False
    exact = signature.hex() == link.signature  # capitals would be the same bytes in another row
    return exact and keys.verifies(link.key_id, signature, signed_part(link.hash))


def _about_request(link: Link, requests: Mapping[str, ApprovalRequest] | None) -> str:
    if requests is None or link.kind != "decision":
        return ""
    if (request := requests.get(link.request_id)) is None:
        return f"the request {link.request_id!r} that it decides is gone"
    decision = record_of(link)
    if isinstance(decision, Decision) and decision.request_digest != request_digest(request):
        return f"the request {link.request_id!r} was changed after it was decided"
    return ""


def _canonical(values: Mapping[str, Any]) -> str:
    def text(value: Any) -> str:
        if isinstance(value, datetime):
            return value.isoformat(timespec="microseconds")
        raise TypeError(f"a ledger's record holds {type(value).__name__}")

    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=text)
