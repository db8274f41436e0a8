"""Check the record of decisions without a server: `python -m ratchet.audit verify | export | key`.

`verify` reads the ledger's database of an environment (or `--file`, what `export` wrote), checks every signature
against the pinned keys (`--key`, else those of the environment's file), every hash, every request that was decided,
and that the anchored head is there, and names the first row that is wrong. Exit code 1 when one is.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from blocks.common.errors import Corrupt, PortError, Rejected
from blocks.common.trust import Signing, keyring
from blocks.ledger.anchor import read_head
from blocks.ledger.base import ApprovalRequest, Ledger, Link
from blocks.ledger.chain import Fault, Head, first_fault
from blocks.ledger.sql import SqlLedger

Record = tuple[tuple[Link, ...], dict[str, ApprovalRequest]]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (PortError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    if options.command == "key":
        print(_signing(options).signer("decisions").public)
        return 0
    links, requests = _from_file(options.file) if options.file else from_ledger(_ledger(options))
    if options.command == "export":
        write_lines(links, requests, sys.stdout)
        return 0
    keys = keyring(options.key or _signing(options).decisions_trusted)
    head = _head(options)
    fault = first_fault(links, keys, requests=requests, head=head)
    print(report(links, fault, head))
    return 1 if fault else 0


def from_ledger(ledger: Ledger) -> Record:
    """Return the whole chain, and the requests that it is about, from a ledger."""
    links = ledger.links()
    asked = {link.request_id for link in links if link.kind == "decision"}
    found = {request_id: _request(ledger, request_id) for request_id in sorted(asked)}
    return links, {request_id: request for request_id, request in found.items() if request}


def report(links: tuple[Link, ...], fault: Fault | None, head: Head | None) -> str:
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


def write_lines(links: Iterable[Link], requests: dict[str, ApprovalRequest], to: TextIO) -> None:
    """Write requests and links as JSON lines, which `verify --file` reads."""
    records = [{"type": "request", **asdict(request)} for request in requests.values()]
    records += [{"type": "link", **asdict(link)} for link in links]
    to.writelines(json.dumps(record, default=_time, ensure_ascii=False) + "\n" for record in records)


def read_lines(lines: Iterable[str]) -> Record:
    """Read JSON lines back. Raises Corrupt naming the line that is none."""
    links: list[Link] = []
    requests: dict[str, ApprovalRequest] = {}
    for number, record in _records(lines):
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


def _records(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise Corrupt(f"line {number} is no JSON: {cause}") from cause
        if not isinstance(record, dict):
            raise Corrupt(f"line {number} is no JSON object")
        yield number, record


def _from_file(path: Path) -> Record:
    with path.open(encoding="utf-8") as lines:
        return read_lines(lines)


def _request(ledger: Ledger, request_id: str) -> ApprovalRequest | None:
    try:
        return ledger.approval_request(request_id)
    except PortError:
        return None


def _ledger(options: argparse.Namespace) -> Ledger:
    settings = settings_of(options.environment)["ledger"]
    if settings["adapter"] != f"{SqlLedger.__module__}.{SqlLedger.__name__}":
        raise Rejected(f"the ledger {settings['adapter']} cannot be read from here; give --file")
    return SqlLedger(url=settings["url"])


def _signing(options: argparse.Namespace) -> Signing:
    return Signing(**settings_of(options.environment).get("signing", {}))


def _head(options: argparse.Namespace) -> Head | None:
    """Return the anchored head: of a file, or `number:hash` as an evidence pack or a person has it."""
    number, _, hash_ = str(options.head or "").partition(":")
    if number.isdigit() and hash_:
        return Head(int(number), hash_)
    if options.head:
        return read_head(Path(options.head))
    file = "" if options.file else _signing(options).decisions_head
    return read_head(Path(file)) if file else None


def settings_of(environment: str) -> dict[str, Any]:
    """Return what an environment's file says, filled in as for the embedded stack, which need not run."""
    from deployments.register import read_environment  # imports Prefect, which a file does not need
    from deployments.state import state_folder
    from local.stack import Stack, find

    stack = find() or Stack(state_folder(), {"prefect": 0, "mlflow": 0, "endpoints": 0})
    return read_environment(environment, {**stack.environment(), **os.environ})


def _time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(type(value).__name__)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.audit", description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=["verify", "export", "key"])
    parser.add_argument("--environment", default="local", help="whose ledger and keys: deployments/environments/*.toml")
    parser.add_argument("--file", type=Path, help="read what `export` wrote instead of the database")
    parser.add_argument("--key", action="append", default=[], help="a public key that is trusted, as `key` prints it")
    parser.add_argument("--head", help="the anchored head: its file, or number:hash as an evidence pack has it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
