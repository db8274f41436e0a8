"""The record of decisions, checked without a server: signatures, hashes, requests, and that nothing was cut off."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from blocks.approvals.anchor import read_head
from blocks.approvals.base import ApprovalRequest, Approvals, Link
from blocks.approvals.chain import Fault, Head, first_fault
from blocks.common.errors import Corrupt, PortError, Rejected
from blocks.common.trust import SigningSettings, keyring
from blocks.database.ledger import SqlLedger
from deployments.register import read_environment_settings
from deployments.state import state_folder
from local.stack import Stack, find_stack

DecisionRecord = tuple[tuple[Link, ...], dict[str, ApprovalRequest]]


def verified(environment: str, file: Path | None, keys: Sequence[str], head: str) -> tuple[str, bool]:
    """Return what is to be told of a record, and whether it is sound.

    Args:
        environment: whose ledger, keys and anchored head are read where the others are not given.
        file: what `export` wrote.
        keys: the public keys that are trusted.
        head: the anchored head: its file, or `number:hash` as an evidence pack or a person has it.

    Raises:
        PortError, OSError: the record, a key or the head cannot be read.
    """
    links, requests = record(environment, file)
    anchored = _anchored_head(environment, head, ours=file is None)
    pinned = keyring(keys or signing_of(environment).trusted_decision_keys)
    fault = first_fault(links, pinned, requests=requests, head=anchored)
    return verification_text(links, fault, anchored), fault is None


def record(environment: str, file: Path | None = None) -> DecisionRecord:
    """Return the record of a file, else that of the environment's ledger."""
    if file is None:
        return read_ledger(_approvals(environment))
    with file.open(encoding="utf-8") as lines:
        return read_record(lines)


def read_ledger(approvals: Approvals) -> DecisionRecord:
    """Return the whole chain, and the requests that it is about, from a ledger."""
    links = approvals.links()
    decided_ids = {link.request_id for link in links if link.kind == "decision"}
    found = {request_id: _find_request(approvals, request_id) for request_id in sorted(decided_ids)}
    return links, {request_id: request for request_id, request in found.items() if request}


def verification_text(links: tuple[Link, ...], fault: Fault | None, head: Head | None) -> str:
    """Return what was found, in a line or two."""
    if fault:
        return f"WRONG: decision {fault.number} of {len(links)}: {fault.problem}"
    kinds = [link.kind for link in links]
    counted = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in ("decision", "waiver", "refusal"))
    end = links[-1].hash if links else "none"
    anchored = f"the anchored head is link {head.number}" if head and head.number else (
        "WITHOUT an anchored head: rows cut off the end would not be missed (--head)"
    )  # fmt: skip
    return f"sound: {len(links)} links ({counted}); the last has the hash {end}; {anchored}"


def write_record(links: Iterable[Link], requests: dict[str, ApprovalRequest], stream: TextIO) -> None:
    """Write requests and links as JSON lines, which `verify --file` reads."""
    records = [{"type": "request", **asdict(request)} for request in requests.values()]
    records += [{"type": "link", **asdict(link)} for link in links]
    stream.writelines(json.dumps(record, default=_json_time, ensure_ascii=False) + "\n" for record in records)


def read_record(lines: Iterable[str]) -> DecisionRecord:
    """Read JSON lines back. Raises Corrupt naming the line that is none."""
    links: list[Link] = []
    requests: dict[str, ApprovalRequest] = {}
    for number, record in _json_records(lines):
        try:
            kind = record.pop("type")
            if kind == "link":
                links.append(Link(**record))
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
            raise Corrupt(f"line {number} is no JSON: {cause}") from cause
        if not isinstance(record, dict):
            raise Corrupt(f"line {number} is no JSON object")
        yield number, record


def _find_request(approvals: Approvals, request_id: str) -> ApprovalRequest | None:
    try:
        return approvals.approval_request(request_id)
    except PortError:
        return None


def _approvals(environment: str) -> Approvals:
    settings = environment_settings(environment)["ledger"]
    if settings["adapter"] != f"{SqlLedger.__module__}.{SqlLedger.__name__}":
        raise Rejected(f"the ledger {settings['adapter']} cannot be read from here; give --file")
    return SqlLedger(url=settings["url"]).approvals()


def signing_of(environment: str) -> SigningSettings:
    """Return the keys of an environment, as its file names them."""
    return SigningSettings(**environment_settings(environment).get("signing", {}))


def _anchored_head(environment: str, given: str, *, ours: bool) -> Head | None:
    number, _, hash_ = given.partition(":")
    if number.isdigit() and hash_:
        return Head(int(number), hash_)
    file = given or (signing_of(environment).decisions_head_file if ours else "")
    return read_head(Path(file)) if file else None


def environment_settings(environment: str) -> dict[str, Any]:
    """Return what an environment's file says, filled in as for the embedded stack, which need not run."""
    stack = find_stack() or Stack(state_folder(), {"prefect": 0, "mlflow": 0, "endpoints": 0})
    return read_environment_settings(environment, {**stack.environment_variables(), **os.environ})


def _json_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(type(value).__name__)
