"""The commands `audit` and `evidence`: verify the record of decisions and evidence packs without a server.

Verified are signatures, hashes, the rows that decide, and that no row of the record is missing.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TextIO

import typer

from blocks.common.errors import Corrupt, NotFound, PortError, Rejected
from blocks.records.approvals import ApprovalRequest, ChainEntry
from deployments.state import trust_folder
from ratchet.commands.group import By, Environment, Group, text_or_exit

if TYPE_CHECKING:
    from blocks.approvals.base import Approvals
    from blocks.approvals.chain import ChainFault, ChainHead, RowState, TrustedKeys
    from blocks.common.trust import SigningSettings
    from blocks.database.ledger import SqlLedger
    from blocks.environment import Environment as TrustedEnvironment

audit = Group("The record of decisions, verified without a server.", refused=2)
evidence = Group("The evidence packs of promoted models, read without a server.", refused=2)

File = Annotated[Path | None, typer.Option(help="Read a file that `audit export` wrote instead of the database.")]
Keys = Annotated[list[str] | None, typer.Option(help="A trusted public key; may be repeated.")]
RecordKeys = Annotated[list[str] | None, typer.Option(help="A public key trusted for rows; may be repeated.")]


class LedgerRecord(NamedTuple):
    """The chain, the requests that its decisions are about, and the stored rows that it seals.

    `unreadable` says what is wrong with the link that follows `links`, when it cannot be read.
    """

    links: tuple[ChainEntry, ...]
    requests: "dict[str, ApprovalRequest]"
    rows: "dict[tuple[str, str], RowState]"
    unreadable: str = ""


@audit.command("verify")
def verify_record(
    file: File = None,
    key: Keys = None,
    record_key: RecordKeys = None,
    head: Annotated[str, typer.Option(help="The anchored head: its file, or number:hash as in a pack.")] = "",
    environment: Environment = "local",
) -> str:
    """Verify signatures, hashes, rows and the anchored head; exit code 1 and the first invalid row on failure."""
    from blocks.common.trust import keyring

    heads = _anchored_heads(environment, head, ours=file is None)  # before the links: other processes add some
    try:
        record = _record(environment, file)
    except Corrupt as cause:
        if file is not None:
            raise
        return text_or_exit(f"INVALID: {cause}", False)
    trusted: TrustedKeys = {
        "decisions": keyring(key or _signing_of(environment).trusted_decision_keys),
        "records": keyring(record_key or _record_keys(environment, elsewhere=file is not None and bool(key))),
    }
    fault = first_fault(record, trusted, heads)
    newest = max(heads, key=lambda each: each.number, default=None)
    return text_or_exit(verification_text(record.links, fault, newest), fault is None)


@audit.command("export")
def export_record(file: File = None, environment: Environment = "local") -> None:
    """Print the record as JSON lines, which `audit verify --file` reads."""
    write_record(_record(environment, file), sys.stdout)


@audit.command("key")
def public_key(
    purpose: Annotated[Literal["decisions", "records"], typer.Option(help="What the key signs.")] = "decisions",
    environment: Environment = "local",
) -> str:
    """Print the public key of the environment's decisions, or of its workers' records."""
    return _signing_of(environment).signer(purpose).public_key_line


@audit.command("adopt")
def adopt_rows(
    by: By,
    reason: Annotated[str, typer.Option(help="How the rows were checked; it is recorded.")],
    environment: Environment = "local",
) -> str:
    """Seal the rows that a release without seals has added; once for each ledger, after you have checked them."""
    from blocks.approvals.rows import SealedRows

    ledger = _ledger(environment)
    count = SealedRows(ledger.database(), _signing_of(environment).chain_trust()).adopt(by, reason)
    return f"{count} rows are sealed now; see python -m ratchet audit verify"


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
    found = verify_pack(pack, key or _trusted(environment).signing.trusted_model_keys)
    return text_or_exit(report(pack, found), found.valid)


@evidence.command("list")
def list_packs(environment: Environment = "local") -> str:
    """List the packs of an environment."""
    folder = _trusted(environment).evidence_folder
    return "\n".join(map(str, sorted(folder.glob("*/*/pack")))) or "there is no evidence pack"


def _record(environment: str, file: Path | None) -> LedgerRecord:
    """Return the record in a file; without a file, the record in the environment's ledger."""
    if file is None:
        from blocks.approvals.rows import row_states

        ledger = _ledger(environment)
        record = read_ledger(ledger.approvals())
        while True:  # rows and links of one moment: no other process added a row in between
            rows, before = row_states(ledger.database()), record
            record = read_ledger(ledger.approvals())
            if record.links == before.links:
                return record._replace(rows=rows)
    if not file.is_file():
        raise NotFound(f"--file: there is no file {file}")
    with file.open(encoding="utf-8") as lines:
        return read_record(lines)


def read_ledger(approvals: "Approvals") -> LedgerRecord:
    """Return the chain of a ledger up to the first link that cannot be read, and the requests that it decides."""
    from blocks.database.readable import UnreadableRow

    problem = ""
    try:
        links = approvals.chain_entries()
    except UnreadableRow as unreadable:
        links, problem = tuple(ChainEntry(**row) for row in unreadable.before), str(unreadable)
    requests: dict[str, ApprovalRequest] = {}
    for request_id in sorted({link.request_id for link in links if link.kind == "decision"}):
        with suppress(PortError):
            requests[request_id] = approvals.get_request(request_id)
    return LedgerRecord(links, requests, {}, problem)


def first_fault(record: LedgerRecord, keys: "TrustedKeys", heads: "Sequence[ChainHead]") -> "ChainFault | None":
    """Return the first fault of a record, or None."""
    from blocks.approvals.chain import ChainFault, find_first_fault, find_head_fault

    if record.unreadable:
        before = find_first_fault(record.links, keys, requests=record.requests)
        return before or ChainFault(len(record.links) + 1, record.unreadable)
    faults = [find_head_fault(record.links, head) for head in heads]
    found = find_first_fault(record.links, keys, requests=record.requests, rows=record.rows)
    return min(filter(None, [found, *faults]), key=lambda fault: fault.number or len(record.links) + 1, default=None)


def verification_text(links: Sequence[ChainEntry], fault: "ChainFault | None", head: "ChainHead | None") -> str:
    """Return the result of a verification as text."""
    from blocks.approvals.chain import CHAIN_KINDS

    if fault:
        return f"INVALID: {f'decision {fault.number} of {len(links)}: ' if fault.number else ''}{fault.problem}"
    kinds = [link.kind for link in links]
    always = ("decision", "waiver", "refusal")
    counted = ", ".join(f"{kinds.count(kind)} {kind}s" for kind in CHAIN_KINDS if kind in kinds or kind in always)
    end = links[-1].hash if links else "none"
    anchored = f"the anchored head is link {head.number}" if head and head.number else (
        "WITHOUT an anchored head: rows removed from the end are not detected (--head)"
    )  # fmt: skip
    return f"valid: {len(links)} links ({counted}); the last has the hash {end}; {anchored}"


def write_record(record: LedgerRecord, stream: TextIO) -> None:
    """Write requests, links and the digests of the sealed rows as JSON lines, which `verify --file` reads."""
    records = [{"type": "request", **asdict(request)} for request in record.requests.values()]
    records += [{"type": "link", **asdict(link)} for link in record.links]
    records += [{"type": "row", "table": table, "key": key, **asdict(row)} for (table, key), row in record.rows.items()]
    stream.writelines(json.dumps(each, default=_json_time) + "\n" for each in records)


def read_record(lines: Iterable[str]) -> LedgerRecord:
    """Read a record from JSON lines. Raises Corrupt, which names the line that cannot be read."""
    from blocks.approvals.chain import RowState

    record = LedgerRecord((), {}, {})
    links: list[ChainEntry] = []
    for number, line in _json_records(lines):
        try:
            kind = line.pop("type")
            if kind == "link":
                links.append(ChainEntry(**line))
            elif kind == "row":
                table, key = line.pop("table"), line.pop("key")
                record.rows[table, key] = RowState(**line)
            else:
                times = {name: datetime.fromisoformat(line[name]) for name in ("requested_at", "expires_at")}
                lists = {name: tuple(line[name]) for name in ("approvers", "authors", "roles")}
                record.requests[line["id"]] = ApprovalRequest(**{**line, **times, **lists})
        except (KeyError, TypeError, ValueError) as cause:
            raise Corrupt(f"line {number} is neither a request nor a link nor a row: {cause}") from cause
    return record._replace(links=tuple(links))


def _json_records(lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError as cause:
            raise Corrupt(f"line {number} is not JSON: {cause}") from cause
        if not isinstance(record, dict):
            raise Corrupt(f"line {number} is not a JSON object")
        yield number, record


def _ledger(environment: str) -> "SqlLedger":
    from blocks.database.ledger import SqlLedger

    ledger = _trusted(environment).ledger()
    if not isinstance(ledger, SqlLedger):
        raise Rejected(f"the ledger {type(ledger).__name__} cannot be read by this command; give --file")
    if not ledger.exists():
        raise NotFound("there is no ledger yet, because the stack has never run; start it with: make up")
    return ledger


def _signing_of(environment: str) -> "SigningSettings":
    return _trusted(environment).signing


def _record_keys(environment: str, *, elsewhere: bool) -> Sequence[str]:
    """Return the keys that are trusted for rows; `elsewhere`, where a file is verified by given keys, maybe none."""
    try:
        return _signing_of(environment).trusted_record_keys
    except NotFound:
        if elsewhere:
            return ()
        raise


def _anchored_heads(environment: str, head: str, *, ours: bool) -> "list[ChainHead]":
    """Return the head that is given as its file or as `number:hash`; else those of the environment's own ledger."""
    from blocks.approvals.anchor import read_anchored_head
    from blocks.approvals.chain import ChainHead

    number, _, hash_ = head.partition(":")
    if number.isdigit() and hash_:
        return [ChainHead(int(number), hash_)]
    if head:
        return [read_anchored_head(Path(head))]
    return list(map(read_anchored_head, _signing_of(environment).chain_trust().heads)) if ours else []


def _trusted(environment: str) -> "TrustedEnvironment":
    """Return the environment of this machine's trust file; the stack need not run."""
    from blocks.environment import trusted_environment

    return trusted_environment(environment, trust_folder())


def _json_time(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    raise TypeError(type(value).__name__)
