"""Which snapshot a caller means: now, a snapshot's id, or a time."""

import re
from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime

from blocks.common.errors import LostRace, NotFound, Rejected
from blocks.lake.base import AsOf, DataFile, Snapshot
from blocks.lake.entries import Entry, State, time_after
from blocks.lake.log import Log
from runtime.digests import text_digest

_ID = re.compile(r"(\d{8,})-[0-9a-f]{8}")
_NEWEST = 5


def resolve(log: Log, head: Entry | None, when: str | None) -> AsOf:
    """Return the read that `when` means, as the port's `as_of` describes, with its errors."""
    if head is None or not head.state.sequence:
        raise NotFound(f"There is no data set {log.dataset!r} in the lake. Ingest it first.")
    now = head.state
    state = now if when is None else _state_at(log, now, when)
    if state is None:
        newest = log.entries(now.log_of(s) for s in range(max(1, now.sequence - _NEWEST + 1), now.sequence + 1))
        there = ", ".join(f"{entry.state.id} of {entry.state.created_at.isoformat()}" for entry in newest)
        raise NotFound(f"{log.dataset}: nothing is there as of {when}. There is {there} (the newest five at most).")
    return AsOf(
        dataset=log.dataset,
        id=state.id,
        sequence=state.sequence,
        rows=state.rows,
        digest=state.digest,
        schema=state.schema,
        load=lambda: log.snapshots(state),
    )


def next_snapshot(
    log: Log,
    state: State,
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
        created_at=time_after(state, at),
        source=source,
        key=key,
        schema=schema,
        rows=sum(file.rows for file in files),
        files=files,
        notes={str(name): str(text) for name, text in (notes or {}).items()},
    )


def check_newest(dataset: str, state: State, onto: str | None) -> None:
    """Refuse to go on top of another snapshot than the one that the caller has seen, where that matters: `LostRace`."""
    if onto is not None and state.id != onto:
        seen = f"snapshot {onto}" if onto else "an empty data set"
        raise LostRace(f"{dataset}: the rows were made for {seen}, and {state.id} has landed since. Try again.")


def _state_at(log: Log, now: State, when: str) -> State | None:
    """Return the state up to the snapshot that `when` means, None when there is none."""
    if named := _ID.fullmatch(when):
        sequence = int(named[1])
        if not 1 <= sequence <= now.sequence:
            return None
        state = log.entry(now.log_of(sequence)).state
        return state if state.id == when else None
    moment = _moment(log.dataset, when)
    if now.created_at <= moment:
        return now
    sequences = range(1, now.sequence + 1)
    found = bisect_right(sequences, moment, key=lambda s: log.entry(now.log_of(s)).state.created_at)
    return log.entry(now.log_of(found)).state if found else None


def _moment(dataset: str, when: str) -> datetime:
    remedy = 'Give a snapshot\'s id or a time such as "2026-11-21T10:00:00Z".'
    try:
        moment = datetime.fromisoformat(when)
    except ValueError as cause:
        raise Rejected(f"{dataset}: {when!r} is neither a snapshot's id nor a time. {remedy}") from cause
    if moment.tzinfo is None:
        raise Rejected(f"{dataset}: the time {when!r} has no zone. {remedy}")
    return moment
