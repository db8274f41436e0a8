"""The log of a data set in a store: reads entries, appends the next one, and fixes reads as of a snapshot or a time.

An entry is written by a put that fails if its number exists, so of two writers one is first, and the other continues
on top of it. Two kinds of optional hints make reads of long logs fast: `_log/head` names an entry at or shortly before
the newest, `_log/pack-<k>` repeats the text of 64 entries.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import TypeVar

from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.lake.base import AsOf, DataFile, Snapshot
from blocks.lake.entries import DatasetState, LogEntry, entry_key, parse_entry, serialize_entry, state_after_erasure
from blocks.lake.object_store import ObjectStore
from runtime.digests import text_digest

ENTRIES_PER_PACK = 64
"""Number of entries in one pack."""

_THREADS = 8
_MAX_LISTED = 5
_SNAPSHOT_ID = re.compile(r"(\d{8,})-[0-9a-f]{8}")

Argument = TypeVar("Argument")
Value = TypeVar("Value")


class DatasetLog:
    """The entries of one data set. Entries that were read once stay in memory."""

    def __init__(self, store: ObjectStore, dataset: str) -> None:
        self.dataset = dataset
        self._store = store
        self._entries: dict[int, LogEntry] = {}
        self._keys: dict[str, int] = {}  # number of the entry by the snapshot's key
        self._indexed = 0

    def head(self) -> LogEntry | None:
        """Read and return the newest entry; None if there is none.

        Raises:
            Corrupt: an entry was changed, or is missing although a later one exists.
        """
        number = self._last_known_number()
        newest = self._read(number) if number else None
        if number and newest is None:
            raise Corrupt(f"{self._url(number)}: the manifest is missing. Restore it from a copy.")
        while following := self._read(number + 1):
            number, newest = number + 1, following
        if newest is None:
            return None
        self._entries[number] = newest
        return newest

    def entry(self, number: int) -> LogEntry:
        """Return an entry that must exist. Raises Corrupt if it does not."""
        return self.entries([number])[0]

    def entries(self, numbers: Iterable[int]) -> list[LogEntry]:
        """Return entries that must exist; many are fetched in packs or by several threads."""
        requested = list(numbers)
        missing = [number for number in requested if number not in self._entries]
        if len(missing) > ENTRIES_PER_PACK:
            self._unpack(sorted({(number - 1) // ENTRIES_PER_PACK for number in missing}))
            missing = [number for number in missing if number not in self._entries]
        for number, entry in zip(missing, _map_items(self._read, missing), strict=True):
            if entry is None:
                raise Corrupt(f"{self._url(number)}: the manifest is missing. Restore it from a copy.")
            self._entries[number] = entry
        return [self._entries[number] for number in requested]

    def as_of(self, head: LogEntry | None, when: str | None) -> AsOf:
        """Return the read for an as-of value. Raises the errors of `Lake.as_of`."""
        if head is None or not head.state.sequence:
            raise NotFound(f"There is no data set {self.dataset!r} in the lake. Ingest it first.")
        now = head.state
        state = now if when is None else self._state_at(now, when)
        if state is None:
            oldest = max(1, now.sequence - _MAX_LISTED + 1)
            newest = self.entries(now.entry_number_of(s) for s in range(oldest, now.sequence + 1))
            listed = ", ".join(f"{entry.state.id} of {entry.state.created_at.isoformat()}" for entry in newest)
            raise NotFound(
                f"{self.dataset}: there is no snapshot as of {when}. There is {listed} (at most the newest five)."
            )
        return AsOf(
            dataset=self.dataset,
            id=state.id,
            sequence=state.sequence,
            rows=state.rows,
            digest=state.digest,
            schema=state.schema,
            erased=tuple(self._erasures(now, state.sequence)),
            load_snapshots=lambda: self._snapshots(now, state.sequence),
        )

    def _state_at(self, now: DatasetState, when: str) -> DatasetState | None:
        """Return the state up to the snapshot that `when` names; None if there is none."""
        if match := _SNAPSHOT_ID.fullmatch(when):
            sequence = int(match[1])
            if not 1 <= sequence <= now.sequence:
                return None
            state = self.state_of(now, sequence)
            return state if state.id == when else None
        moment = _parse_time(self.dataset, when)
        if now.created_at <= moment:
            return now
        sequences = range(1, now.sequence + 1)
        latest = bisect_right(
            sequences, moment, key=lambda sequence: self._snapshot_entry(now, sequence).state.created_at
        )
        return self.state_of(now, latest) if latest else None

    def state_of(self, now: DatasetState, sequence: int) -> DatasetState:
        """Return the state up to a snapshot, without the rows that were erased since."""
        entry = self._snapshot_entry(now, sequence)
        state = entry.state
        for later in self.entries(each for each in now.erasures if each > entry.log):
            if later.erasure:
                state = state_after_erasure(state, later.erasure)
        return state

    def _snapshot_entry(self, now: DatasetState, sequence: int) -> LogEntry:
        return self.entry(now.entry_number_of(sequence))

    def _snapshots(self, now: DatasetState, sequence: int) -> tuple[Snapshot, ...]:
        """Return the snapshots up to one, oldest first, with the rows and files that they have now.

        Raises:
            Corrupt: an entry's previous digest is wrong.
        """
        entries = self.entries(range(1, now.entry_number_of(sequence) + 1))
        for before, after in pairwise(entries):
            if after.previous != before.digest:
                raise Corrupt(f"{self._url(before.log)}: the manifest was changed. Restore it from a copy.")
        replaced = {place: file for place, (_, file) in self.replaced_files(now).items()}
        return tuple(without_erased_rows(entry.snapshot, replaced) for entry in entries if entry.snapshot is not None)

    def _erasures(self, now: DatasetState, sequence: int) -> Iterator[str]:
        """Yield in words each erasure that removed rows of the snapshots up to one."""
        for entry in self.entries(now.erasures):
            if entry.erasure and (rows := entry.erasure.rows_up_to(sequence)):
                yield f"{rows} {'row' if rows == 1 else 'rows'} on {entry.erasure.at:%Y-%m-%d %H:%M} UTC"

    def replaced_files(self, now: DatasetState) -> dict[tuple[int, str], tuple[str, DataFile]]:
        """Return the files that erasures replaced, by snapshot and name: the folder and the file of the newest copy."""
        replaced = {}
        for entry in self.entries(now.erasures):
            for each in entry.erasure.replaced if entry.erasure else ():
                replaced[each.sequence, each.name] = (entry.folder, each.file)
        return replaced

    def find(self, key: str, head: LogEntry | None) -> Snapshot | None:
        """Return the snapshot that was appended with `key`, or None."""
        if head is None:
            return None
        for entry in self.entries(range(self._indexed + 1, head.log + 1)):
            if entry.snapshot is not None:
                self._keys.setdefault(entry.snapshot.key, entry.log)
        self._indexed = max(self._indexed, head.log)
        return self.entry(self._keys[key]).snapshot if key in self._keys else None

    def claim(self, entry: LogEntry) -> bool:
        """Append an entry to the log; return False if its number exists already."""
        if not self._store.put_if_absent(entry_key(self.dataset, entry.log), serialize_entry(entry)):
            return False
        self._entries[entry.log] = entry
        if entry.log % ENTRIES_PER_PACK == 0:
            self._pack(entry.log // ENTRIES_PER_PACK - 1)
        text = f"{entry.log:08d}"
        self._put_hint("head", f"{text} {text_digest(text)}\n".encode())
        return True

    def is_fenced_since(self, number: int, head: LogEntry, folder: str) -> bool:
        """Return whether an entry after `number` announces the deletion of this folder's files."""
        return any(folder in entry.fenced for entry in self.entries(range(number + 1, head.log + 1)))

    def _last_known_number(self) -> int:
        """Return the number in the head hint; without the hint, the highest number in the log."""
        data = self._store.get(f"{self.dataset}/_log/head")
        text = (data or b"").decode(errors="replace")[:8]
        if data == f"{text} {text_digest(text)}\n".encode():
            return int(text)
        names = [found.key.rpartition("/")[2] for found in self._store.list_objects(f"{self.dataset}/_log/")]
        numbers = [int(name[:8]) for name in names if name.endswith(".json") and name[:8].isdigit()]
        return max(numbers, default=0)

    def _read(self, number: int) -> LogEntry | None:
        data = self._store.get(entry_key(self.dataset, number))
        return None if data is None else self._parsed(data, number)

    def _parsed(self, data: bytes, number: int) -> LogEntry:
        entry = parse_entry(data, self._url(number))
        dataset = entry.snapshot.dataset if entry.snapshot else self.dataset
        if (dataset, entry.log) != (self.dataset, number):
            raise Corrupt(f"{self._url(number)}: this is entry {entry.log} of {dataset}. Move it back there.")
        return entry

    def _url(self, number: int) -> str:
        return self._store.url(entry_key(self.dataset, number))

    def _pack(self, block: int) -> None:
        entries = self.entries(range(block * ENTRIES_PER_PACK + 1, (block + 1) * ENTRIES_PER_PACK + 1))
        self._put_hint(f"pack-{block:06d}", b"".join(map(serialize_entry, entries)))

    def _unpack(self, blocks: Sequence[int]) -> None:
        """Load entries from pack files where these exist and are intact."""
        keys = [f"{self.dataset}/_log/pack-{block:06d}" for block in blocks]
        for block, data in zip(blocks, _map_items(self._store.get, keys), strict=True):
            for offset, line in enumerate((data or b"").splitlines(keepends=True)):
                number = block * ENTRIES_PER_PACK + offset + 1
                try:
                    self._entries.setdefault(number, self._parsed(line, number))
                except Corrupt:  # a pack is only a hint: the entry itself is read instead
                    break

    def _put_hint(self, name: str, data: bytes) -> None:
        self._store.put_hint(f"{self.dataset}/_log/{name}", data)


def without_erased_rows(snapshot: Snapshot, replaced: Mapping[tuple[int, str], DataFile]) -> Snapshot:
    """Return a snapshot with the files, and so the rows, that erasures left of it."""
    files = tuple(replaced.get((snapshot.sequence, file.name), file) for file in snapshot.files)
    return snapshot if files == snapshot.files else replace(snapshot, files=files, rows=sum(f.rows for f in files))


def _map_items(work: Callable[[Argument], Value], items: Sequence[Argument]) -> list[Value]:
    with ThreadPoolExecutor(_THREADS) as pool:  # it starts no more threads than there are items
        return list(pool.map(work, items))


def _parse_time(dataset: str, when: str) -> datetime:
    remedy = 'Give a snapshot\'s id or a time such as "2026-11-21T10:00:00Z".'
    try:
        moment = datetime.fromisoformat(when)
    except ValueError as cause:
        raise Rejected(f"{dataset}: {when!r} is neither a snapshot's id nor a time. {remedy}") from cause
    if moment.tzinfo is None:
        raise Rejected(f"{dataset}: the time {when!r} has no zone. {remedy}")
    return moment
