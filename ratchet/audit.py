"""Verify the record of decisions without a server: signatures, hashes, requests, and that no row is missing."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from blocks.approvals.anchor import read_anchored_head
from blocks.approvals.base import Approvals
from blocks.approvals.chain import ChainFault, ChainHead, find_first_fault
from blocks.common.errors import Corrupt, PortError, Rejected
from blocks.common.trust import SigningSettings, keyring
from blocks.database.ledger import SqlLedger
from blocks.records.approvals import ApprovalRequest, ChainEntry
from deployments.register import read_environment_settings
from deployments.state import state_folder
from local.stack import Stack, find_stack

DecisionRecord = tuple[tuple[ChainEntry, ...], dict[str, ApprovalRequest]]


def verified(environment: str, file: Path | None, keys: Sequence[str], head: str) -> tuple[str, bool]:
    """Return the result of the verification as text, and whether the record is valid.

    Args:
        environment: its ledger, keys and anchored head are used where the other arguments are empty.
        file: a file that `export` wrote.
        keys: the trusted public keys.
        head: the anchored head: its file, or `number:hash` as an evidence pack contains it.

    Raises:
        PortError, OSError: the record, a key or the head cannot be read.
    """
    links, requests = record(environment, file)
    anchored = _anchored_head(environment, head, ours=file is None)
    trusted = keyring(keys or signing_of(environment).trusted_decision_keys)
    fault = find_first_fault(links, trusted, requests=requests, head=anchored)
    return verification_text(links, fault, anchored), fault is None


def record(environment: str, file: Path | None = None) -> DecisionRecord:
    """Return the record in a file; without a file, the record in the environment's ledger."""
    if file is None:
        return read_ledger(_approvals(environment))
    with file.open(encoding="utf-8") as lines:
        return read_record(lines)


def read_ledger(approvals: Approvals) -> DecisionRecord:
    """Return the whole chain of a ledger, and the requests that its decisions are about."""
    links = approvals.chain_entries()
    decided_ids = {link.request_id for link in links if link.kind == "decision"}
    requests = {request_id: _find_request(approvals, request_id) for request_id in sorted(decided_ids)}
    return links, {request_id: request for request_id, request in requests.items() if request}


def verification_text(links: tuple[ChainEntry, ...], fault: ChainFault | None, head: ChainHead | None) -> str:
    """Return the result of a verification as text."""
    if fault:
        return f"INVALID: decision {fault.number} of {len(links)}: {fault.problem}"
    kinds = [link.kind for link in links]
    counted = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in ("decision", "waiver", "refusal"))
    end = links[-1].hash if links else "none"
    anchored = f"the anchored head is link {head.number}" if head and head.number else (
        "WITHOUT an anchored head: rows removed from the end are not detected (--head)"
    )  # fmt: skip
    return f"valid: {len(links)} links ({counted}); the last has the hash {end}; {anchored}"


def write_record(links: Iterable[ChainEntry], requests: dict[str, ApprovalRequest], stream: TextIO) -> None:
    """Write requests and links as JSON lines, which `verify --file` reads."""
    records = [{"type": "request", **asdict(request)} for request in requests.values()]
    records += [{"type": "link", **asdict(link)} for link in links]
    stream.writelines(json.dumps(record, default=_json_time, ensure_ascii=False) + "\n" for record in records)


def read_record(lines: Iterable[str]) -> DecisionRecord:
    """Read a record from JSON lines. Raises Corrupt, which names the line that cannot be read."""
    links: list[ChainEntry] = []
    requests: dict[str, ApprovalRequest] = {}
    for number, record in _json_records(lines):
        try:
            kind = record.pop("type")
            if kind == "link":
                links.append(ChainEntry(**record))
                continue
            times = {name: datetime.fromisoformat(record[name]) for name in ("requested_at", "expires_at")}
            lists = {name: tuple(record[name]) for name in ("approvers", "authors", "roles")}
            requests[record["id"]] = ApprovalRequest(**{**record, **times, **lists})
        except (KeyError, TypeError, ValueError) as cause:
            raise Corrupt(f"line {number} is neither a request nor a link: {cause}") from cause
    return tuple(links), requests


def _json_records(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise Corrupt(f"line {number} is not JSON: {cause}") from cause
        if not isinstance(record, dict):
            raise Corrupt(f"line {number} is not a JSON object")
        yield number, record


def _find_request(approvals: Approvals, request_id: str) -> ApprovalRequest | None:
    try:
        return approvals.get_request(request_id)
    except PortError:
        return None


def _approvals(environment: str) -> Approvals:
    settings = environment_settings(environment)["ledger"]
    if settings["adapter"] != f"{SqlLedger.__module__}.{SqlLedger.__name__}":
        raise Rejected(f"the ledger {settings['adapter']} cannot be read by this command; give --file")
    return SqlLedger(url=settings["url"]).approvals()


def signing_of(environment: str) -> SigningSettings:
    """Return the signing settings in an environment's file."""
    return SigningSettings(**environment_settings(environment).get("signing", {}))


def _anchored_head(environment: str, head: str, *, ours: bool) -> ChainHead | None:
    number, _, hash_ = head.partition(":")
    if number.isdigit() and hash_:
        return ChainHead(int(number), hash_)
    file = head or (signing_of(environment).decisions_head_file if ours else "")
    return read_anchored_head(Path(file)) if file else None


def environment_settings(environment: str) -> dict[str, Any]:
    """Return the settings in an environment's file, with the variables of the local stack, which need not run."""
    stack = find_stack() or Stack(state_folder(), {"prefect": 0, "mlflow": 0, "endpoints": 0})
    return read_environment_settings(environment, {**stack.environment_variables(), **os.environ})


def _json_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(type(value).__name__)
