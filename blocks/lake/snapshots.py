"""What a snapshot is, on every back end: names, schemas, the manifest's text, and what a read sees."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from blocks.errors import Conflict, Corrupt, NotFound, Rejected
from blocks.lake.base import BUCKET_COLUMN, AsOf, DataFile, Snapshot

BUCKETS = 10_000
"""How many buckets there are: `BUCKET_COLUMN` holds 0 to 9,999."""

_DATASET = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ID = re.compile(r"\d{8}-[0-9a-f]{8}")
_FILE = re.compile(r"part-\d{5}(-buckets-\d{4}-\d{4})?\.parquet")
_TICK = timedelta(microseconds=1)


def check_dataset(name: str) -> None:
    """Refuse a data set's name that could not be a folder everywhere: `Rejected`."""
    if not _DATASET.fullmatch(name):
        raise Rejected(
            f"{name!r} cannot name a data set. Use 1 to 63 lower-case letters, digits, - and _, beginning "
            "with a letter or a digit."
        )


def check_append(dataset: str, table: pa.Table, key: str, at: datetime) -> None:
    """Refuse what no back end may store (`Rejected`): no rows, nameless columns, times without a zone."""
    check_dataset(dataset)
    if table.num_rows == 0:
        raise Rejected(f"{dataset}: the table has no rows. Check the source; an empty snapshot is never written.")
    if not key:
        raise Rejected(f"{dataset}: the append has no key. Give one that a retry will give again.")
    if at.tzinfo is None:
        raise Rejected(f"{dataset}: the time {at.isoformat()} has no zone. Give one, such as +00:00.")
    _check_columns(dataset, table)


def in_order_of(newest: Snapshot | None, table: pa.Table) -> pa.Table:
    """Return the table with the columns in the order of `newest`, without schema metadata.

    Raises:
        Conflict: a column is missing, added, or of another type; the message names each.
    """
    plain = pa.table(table.columns, names=table.column_names)
    if newest is None:
        return plain
    expected, found = dict(newest.schema), dict(schema_of(plain))
    differences = [f"{c!r} is missing" for c in expected if c not in found]
    differences += [f"{c!r} is added" for c in found if c not in expected]
    differences += [
        f"{c!r} is {found[c]}, not {expected[c]}" for c in expected if c in found and found[c] != expected[c]
    ]
    if differences:
        raise Conflict(
            f"{newest.dataset}: the columns differ from those of snapshot {newest.id}: "
            f"{'; '.join(differences)}. Bring the source to these columns, or begin a new data set."
        )
    return plain.select(list(expected))


def schema_of(table: pa.Table) -> tuple[tuple[str, str], ...]:
    """Return (column, Arrow type as text), in order."""
    return tuple((field.name, str(field.type)) for field in table.schema)


def next_snapshot(
    existing: Sequence[Snapshot],
    dataset: str,
    table: pa.Table,
    files: tuple[DataFile, ...],
    *,
    source: str,
    key: str,
    at: datetime,
    notes: Mapping[str, str] | None,
) -> Snapshot:
    """Return the manifest of the snapshot that follows `existing`.

    Times increase strictly with the sequence, whatever the writers' clocks say: otherwise a late writer with
    a slow clock would change what a read as of an earlier time returns.
    """
    sequence = existing[-1].sequence + 1 if existing else 1
    created = at.astimezone(UTC)
    if existing:
        created = max(created, existing[-1].created_at + _TICK)
    named = hashlib.sha256(f"{dataset}\n{key}".encode()).hexdigest()[:8]
    return Snapshot(
        dataset=dataset,
        id=f"{sequence:08d}-{named}",
        sequence=sequence,
        created_at=created,
        source=source,
        key=key,
        schema=schema_of(table),
        rows=table.num_rows,
        files=files,
        notes={str(name): str(text) for name, text in (notes or {}).items()},
    )


def with_key(snapshots: Sequence[Snapshot], key: str) -> Snapshot | None:
    """Return the snapshot that was appended under `key`, or None."""
    return next((snapshot for snapshot in snapshots if snapshot.key == key), None)


def render(snapshot: Snapshot) -> bytes:
    """Return the manifest as it is stored: JSON with its own digest, the same bytes for the same snapshot."""
    content = {"digest": snapshot.digest, "snapshot": asdict(snapshot)}
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, default=datetime.isoformat)
    return f"{text}\n".encode()


def parse(data: bytes, where: str) -> Snapshot:
    """Return the snapshot of a stored manifest; `Corrupt` when one byte of it is not as it was written."""
    try:
        snapshot = _snapshot(json.loads(data)["snapshot"])
        whole = render(snapshot) == data and all(_FILE.fullmatch(file.name) for file in snapshot.files)
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise Corrupt(f"{where}: the manifest cannot be read ({cause}). Restore it from a copy.") from cause
    if not whole:
        raise Corrupt(f"{where}: the manifest is not as it was written (its digest differs). Restore it from a copy.")
    return snapshot


def resolve(dataset: str, snapshots: Sequence[Snapshot], when: str | None) -> AsOf:
    """Return the snapshots up to `when`, as the port's `as_of` describes, with its errors."""
    if not snapshots:
        raise NotFound(f"There is no data set {dataset!r} in the lake. Ingest it first.")
    if when is None:
        return AsOf(dataset, tuple(snapshots))
    if _ID.fullmatch(when):
        last = max((s.sequence for s in snapshots if s.id == when), default=0)
        seen = [s for s in snapshots if s.sequence <= last]
    else:
        moment = _moment(dataset, when)
        seen = [s for s in snapshots if s.created_at <= moment]
    if not seen:
        there = ", ".join(f"{s.id} of {s.created_at.isoformat()}" for s in snapshots[-5:])
        raise NotFound(f"{dataset}: nothing is there as of {when}. There is {there} (the newest five at most).")
    return AsOf(dataset, tuple(seen))


def check_read(as_of: AsOf, below_bucket: int | None, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read, in order; refuse those not there and a limit that means nothing."""
    there = [name for name, _ in as_of.snapshots[-1].schema]
    wanted = there if columns is None else list(columns)
    needed = wanted if below_bucket is None else [*wanted, BUCKET_COLUMN]
    if missing := [name for name in needed if name not in there]:
        raise NotFound(f"{as_of.dataset}: no column {', '.join(map(repr, missing))}. There is {', '.join(there)}.")
    if not wanted or (below_bucket is not None and below_bucket < 0):
        raise Rejected(f"{as_of.dataset}: read at least one column, and buckets below {BUCKETS}, not {below_bucket}.")
    return wanted


def _check_columns(dataset: str, table: pa.Table) -> None:
    names = table.column_names
    bad = [n for n in names if not n.strip() or not n.isprintable() or names.count(n) > 1]
    if bad or not names:
        raise Rejected(
            f"{dataset}: columns {sorted(set(bad))!r} are blank, unprintable or there twice. Rename them."
            if bad
            else f"{dataset}: the table has no columns. Check the source."
        )
    if BUCKET_COLUMN in names and table.schema.field(BUCKET_COLUMN).type != pa.int32():
        raise Rejected(f"{dataset}: {BUCKET_COLUMN} is {table.schema.field(BUCKET_COLUMN).type}; it has to be int32.")


def _snapshot(content: dict[str, object]) -> Snapshot:
    fields = dict(content)
    fields["created_at"] = datetime.fromisoformat(str(fields["created_at"]))
    fields["schema"] = tuple((str(c), str(t)) for c, t in fields["schema"])  # type: ignore[attr-defined]
    fields["files"] = tuple(DataFile(**file) for file in fields["files"])  # type: ignore[attr-defined]
    return Snapshot(**fields)  # type: ignore[arg-type]


def _moment(dataset: str, when: str) -> datetime:
    remedy = 'Give a snapshot\'s id or a time such as "2026-11-21T10:00:00Z".'
    try:
        moment = datetime.fromisoformat(when)
    except ValueError as cause:
        raise Rejected(f"{dataset}: {when!r} is neither a snapshot's id nor a time. {remedy}") from cause
    if moment.tzinfo is None:
        raise Rejected(f"{dataset}: the time {when!r} has no zone. {remedy}")
    return moment
