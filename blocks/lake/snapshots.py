"""Resolves an as-of value (now, a snapshot id, or a time) to a snapshot, and builds the next snapshot's manifest."""

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
    """Return the read for an as-of value. Raises the errors of `Lake.as_of`."""
    if head is None or not head.state.sequence:
        raise NotFound(f"There is no data set {log.dataset!r} in the lake. Ingest it first.")
    now = head.state
    state = now if when is None else _state_at(log, now, when)
    if state is None:
        newest = log.entries(
            now.entry_number_of(s) for s in range(max(1, now.sequence - _MAX_LISTED + 1), now.sequence + 1)
        )
        listed = ", ".join(f"{entry.state.id} of {entry.state.created_at.isoformat()}" for entry in newest)
        raise NotFound(
            f"{log.dataset}: there is no snapshot as of {when}. There is {listed} (at most the newest five)."
        )
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
    key_digest = text_digest(f"{log.dataset}\n{key}")[:8]
    return Snapshot(
        dataset=log.dataset,
        id=f"{state.sequence + 1:08d}-{key_digest}",
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
    """Raise ConcurrentWrite if the latest snapshot is not the expected parent; None accepts any."""
    if expected_parent is not None and state.id != expected_parent:
        parent = f"snapshot {expected_parent}" if expected_parent else "an empty data set"
        raise ConcurrentWrite(f"{dataset}: the rows were made for {parent}, but {state.id} was added since. Try again.")


def _state_at(log: DatasetLog, now: DatasetState, when: str) -> DatasetState | None:
    """Return the state up to the snapshot that `when` names; None if there is none."""
    if match := _ID.fullmatch(when):
        sequence = int(match[1])
        if not 1 <= sequence <= now.sequence:
            return None
        state = log.entry(now.entry_number_of(sequence)).state
        return state if state.id == when else None
    moment = _parse_time(log.dataset, when)
    if now.created_at <= moment:
        return now
    sequences = range(1, now.sequence + 1)
    latest = bisect_right(sequences, moment, key=lambda s: log.entry(now.entry_number_of(s)).state.created_at)
    return log.entry(now.entry_number_of(latest)).state if latest else None


def _parse_time(dataset: str, when: str) -> datetime:
    remedy = 'Give a snapshot\'s id or a time such as "2026-11-21T10:00:00Z".'
    try:
        moment = datetime.fromisoformat(when)
    except ValueError as cause:
        raise Rejected(f"{dataset}: {when!r} is neither a snapshot's id nor a time. {remedy}") from cause
    if moment.tzinfo is None:
        raise Rejected(f"{dataset}: the time {when!r} has no zone. {remedy}")
    return moment
