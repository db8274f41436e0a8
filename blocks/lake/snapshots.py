"""Which snapshot a caller means: now, a snapshot's id, or a time."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime

from blocks.common.errors import ConcurrentWrite, NotFound, Rejected
from blocks.lake.base import AsOf, DataFile, Snapshot
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import DatasetState, LogEntry, next_created_at
from runtime.digests import text_digest

_ID = re.compile(r"(\d{8,})-[0-9a-f]{8}")
_MAX_LISTED = 5


def resolve_as_of(log: DatasetLog, head: LogEntry | None, when: str | None) -> AsOf:
    """Return the read that `when` means, as the port's `as_of` describes, with its errors."""
    if head is None or not head.state.sequence:
        raise NotFound(f"There is no data set {log.dataset!r} in the lake. Ingest it first.")
    now = head.state
    state = now if when is None else _state_at(log, now, when)
    if state is None:
        newest = log.entries(
            now.entry_number_of(s) for s in range(max(1, now.sequence - _MAX_LISTED + 1), now.sequence + 1)
        )
        there = ", ".join(f"{entry.state.id} of {entry.state.created_at.isoformat()}" for entry in newest)
        raise NotFound(f"{log.dataset}: nothing is there as of {when}. There is {there} (the newest five at most).")
    return AsOf(
        dataset=log.dataset,
        id=state.id,
        sequence=state.sequence,
        rows=state.rows,
        digest=state.digest,
        schema=state.schema,
        load_snapshots=lambda: log.snapshots(state),
    )


def next_snapshot(
    log: DatasetLog,
    state: DatasetState,
    schema: tuple[tuple[str, str], ...],
    files: tuple[DataFile, ...],
    *,
    source: str,
    key: str,
    at: datetime,
    notes: Mapping[str, str] | None,
) -> Snapshot:
    """Return the manifest of the snapshot that follows a state."""
    named = text_digest(f"{log.dataset}\n{key}")[:8]
    return Snapshot(
        dataset=log.dataset,
        id=f"{state.sequence + 1:08d}-{named}",
        sequence=state.sequence + 1,
        created_at=next_created_at(state, at),
        source=source,
        key=key,
        schema=schema,
        rows=sum(file.rows for file in files),
        files=files,
        notes={str(name): str(text) for name, text in (notes or {}).items()},
    )


def check_expected_parent(dataset: str, state: DatasetState, expected_parent: str | None) -> None:
    """Refuse to go on top of another snapshot than the one that the caller has seen, where that matters: `ConcurrentWrite`."""
    if expected_parent is not None and state.id != expected_parent:
        seen = f"snapshot {expected_parent}" if expected_parent else "an empty data set"
        raise ConcurrentWrite(f"{dataset}: the rows were made for {seen}, and {state.id} has landed since. Try again.")


def _state_at(log: DatasetLog, now: DatasetState, when: str) -> DatasetState | None:
    """Return the state up to the snapshot that `when` means, None when there is none."""
    if named := _ID.fullmatch(when):
        sequence = int(named[1])
        if not 1 <= sequence <= now.sequence:
            return None
        state = log.entry(now.entry_number_of(sequence)).state
        return state if state.id == when else None
    moment = _parse_time(log.dataset, when)
    if now.created_at <= moment:
        return now
    sequences = range(1, now.sequence + 1)
    found = bisect_right(sequences, moment, key=lambda s: log.entry(now.entry_number_of(s)).state.created_at)
    return log.entry(now.entry_number_of(found)).state if found else None


def _parse_time(dataset: str, when: str) -> datetime:
    remedy = 'Give a snapshot\'s id or a time such as "2026-11-21T10:00:00Z".'
    try:
        moment = datetime.fromisoformat(when)
    except ValueError as cause:
        raise Rejected(f"{dataset}: {when!r} is neither a snapshot's id nor a time. {remedy}") from cause
    if moment.tzinfo is None:
        raise Rejected(f"{dataset}: the time {when!r} has no zone. {remedy}")
    return moment
