"""The commands `audit` and `evidence`: verify the record of decisions and evidence packs without a server.

Verified are signatures, hashes, requests, and that no row of the record is missing.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from blocks.common.errors import Corrupt, NotFound, PortError, Rejected
from blocks.records.approvals import ApprovalRequest, ChainEntry
from deployments.state import state_folder
from local.stack import Stack, find_stack
from ratchet.commands.group import Environment, Group, text_or_exit

if TYPE_CHECKING:
    from blocks.approvals.base import Approvals
    from blocks.approvals.chain import ChainFault, ChainHead
    from blocks.common.trust import SigningSettings

audit = Group("The record of decisions, verified without a server.", refused=2)
evidence = Group("The evidence packs of promoted models, read without a server.", refused=2)

File = Annotated[Path | None, typer.Option(help="Read a file that `audit export` wrote instead of the database.")]
Keys = Annotated[list[str] | None, typer.Option(help="A trusted public key; may be repeated.")]

DecisionRecord = tuple[tuple[ChainEntry, ...], dict[str, ApprovalRequest]]


@audit.command("verify")
def verify_record(
    file: File = None,
    key: Keys = None,
    head: Annotated[str, typer.Option(help="The anchored head: its file, or number:hash as in a pack.")] = "",
    environment: Environment = "local",
) -> str:
    """Verify signatures, hashes, requests and the anchored head; exit code 1 and the first invalid row on failure."""
    from blocks.approvals.chain import find_first_fault
    from blocks.common.trust import keyring

    links, requests = _record(environment, file)
    anchored = _anchored_head(environment, head, ours=file is None)
    trusted = keyring(key or _signing_of(environment).trusted_decision_keys)
    fault = find_first_fault(links, trusted, requests=requests, head=anchored)
    return text_or_exit(verification_text(links, fault, anchored), fault is None)


@audit.command("export")
def export_record(file: File = None, environment: Environment = "local") -> None:
    """Print the record as JSON lines, which `audit verify --file` reads."""
    write_record(*_record(environment, file), sys.stdout)


@audit.command("key")
def public_key(environment: Environment = "local") -> str:
    """Print the public key of the environment's decisions."""
    return _signing_of(environment).signer("decisions").public_key_line


@evidence.command("verify")
def verify_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder, or the folder with `pack` and its signature.")],
    key: Keys = None,
    environment: Environment = "local",
) -> str:
    """Show whether each item is present, absent or changed; exit code 1 when the pack does not match its signature."""
    from tasks.evidence.verification import report, verify_pack

    if not pack.is_dir():
        raise NotFound(f"there is no folder {pack}")
    found = verify_pack(pack, key or list(_settings(environment).get("signing", {}).get("trusted_model_keys", [])))
    return text_or_exit(report(pack, found), found.valid)


@evidence.command("list")
def list_packs(environment: Environment = "local") -> str:
    """List the packs of an environment."""
    settings = _settings(environment)
    folder = Path(settings.get("evidence_root") or Path(settings["scratch"]) / "evidence")
    return "\n".join(map(str, sorted(folder.glob("*/*/pack")))) or "there is no evidence pack"


def _record(environment: str, file: Path | None) -> DecisionRecord:
    """Return the record in a file; without a file, the record in the environment's ledger."""
    if file is None:
        return read_ledger(_approvals(environment))
    if not file.is_file():
        raise NotFound(f"--file: there is no file {file}")
    with file.open(encoding="utf-8") as lines:
        return read_record(lines)


def read_ledger(approvals: "Approvals") -> DecisionRecord:
    """Return the whole chain of a ledger, and the requests that its decisions are about."""
    links = approvals.chain_entries()
    requests: dict[str, ApprovalRequest] = {}
    for request_id in sorted({link.request_id for link in links if link.kind == "decision"}):
        with suppress(PortError):
            requests[request_id] = approvals.get_request(request_id)
    return links, requests


def verification_text(links: Sequence[ChainEntry], fault: "ChainFault | None", head: "ChainHead | None") -> str:
    """Return the result of a verification as text."""
    if fault:
        return f"INVALID: decision {fault.number} of {len(links)}: {fault.problem}"
    kinds = [link.kind for link in links]
    counted = ", ".join(
        f"{kinds.count(kind)} {kind}s"
        for kind in ("decision", "waiver", "refusal", "erasure")
        if kind in kinds or kind != "erasure"
    )
    end = links[-1].hash if links else "none"
    anchored = f"the anchored head is link {head.number}" if head and head.number else (
        "WITHOUT an anchored head: rows removed from the end are not detected (--head)"
    )  # fmt: skip
    return f"valid: {len(links)} links ({counted}); the last has the hash {end}; {anchored}"


def write_record(links: Iterable[ChainEntry], requests: dict[str, ApprovalRequest], stream: TextIO) -> None:
    """Write requests and links as JSON lines, which `verify --file` reads."""
    records = [{"type": "request", **asdict(request)} for request in requests.values()]
    records += [{"type": "link", **asdict(link)} for link in links]
    stream.writelines(json.dumps(record, default=_json_time) + "\n" for record in records)


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


def _approvals(environment: str) -> "Approvals":
    from blocks.database.ledger import SqlLedger

    settings = _settings(environment)["ledger"]
    if settings["adapter"] != f"{SqlLedger.__module__}.{SqlLedger.__name__}":
        raise Rejected(f"the ledger {settings['adapter']} cannot be read by this command; give --file")
    ledger = SqlLedger(url=settings["url"])
    if not ledger.exists():
        raise NotFound("there is no ledger yet, because the stack has never run; start it with: make up")
    return ledger.approvals()


def _signing_of(environment: str) -> "SigningSettings":
    from blocks.common.trust import SigningSettings

    return SigningSettings(**_settings(environment).get("signing", {}))


def _anchored_head(environment: str, head: str, *, ours: bool) -> "ChainHead | None":
    """Return the head that is given as its file or as `number:hash`; else that of the environment's own ledger."""
    from blocks.approvals.anchor import read_anchored_head
    from blocks.approvals.chain import ChainHead

    number, _, hash_ = head.partition(":")
    if number.isdigit() and hash_:
        return ChainHead(int(number), hash_)
    file = head or (_signing_of(environment).decisions_head_file if ours else "")
    return read_anchored_head(Path(file)) if file else None


def _settings(environment: str) -> dict[str, Any]:
    """Return the settings in an environment's file, with the variables of the local stack, which need not run."""
    from deployments.register import read_environment_settings

    stack = find_stack() or Stack(state_folder(), {"prefect": 0, "mlflow": 0, "endpoints": 0})
    return read_environment_settings(environment, {**stack.environment_variables(), **os.environ})


def _json_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(type(value).__name__)
