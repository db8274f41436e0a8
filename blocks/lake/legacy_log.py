"""Data sets in the older layout without a log: `<data set>/<sequence>/` with `manifest.json` and its Parquet files.

They are read as the first entries of the log, and the log continues after them. Nothing is moved or rewritten.
"""

import json
from dataclasses import asdict, replace
from datetime import datetime

import pyarrow.parquet as pq

from blocks.common.errors import Corrupt
from blocks.lake.base import Snapshot
from blocks.lake.entries import DatasetState, LogEntry, entry_key, next_state, parse_snapshot
from blocks.lake.object_store import ObjectStore
from blocks.lake.schemas import serialize_schema
from runtime.digests import text_digest


class LegacyLog:
    """The snapshots of a data set in the older layout."""

    def __init__(self, store: ObjectStore, dataset: str) -> None:
        self._store = store
        self._dataset = dataset
        self._entries: list[LogEntry] | None = None

    def last_number(self) -> int:
        """Return the sequence number of the last such snapshot; 0 if there is none."""
        return len(self._load())

    def entry(self, number: int) -> LogEntry | None:
        """Return such a snapshot as a log entry, or None."""
        entries = self._load() if number else []
        return entries[number - 1] if number <= len(entries) else None

    def _load(self) -> list[LogEntry]:
        if self._entries is not None:
            return self._entries
        if self._store.get(entry_key(self._dataset, 1)) is not None:
            self._entries = []  # the data set began with the log
            return []
        if self._manifest(1) is None:
            return []
        entries: list[LogEntry] = []
        digests: list[str] = []
        for number in range(1, self._highest() + 1):
            snapshot = self._snapshot(number)
            before = entries[-1].state if entries else DatasetState()
            digests.append(snapshot.digest)
            state = next_state(before, snapshot, before.arrow or self._arrow(snapshot))
            state = replace(state, digest=text_digest("\n".join(digests)))
            previous = entries[-1].digest if entries else ""
            entries.append(LogEntry(number, previous, state, f"{number:08d}", snapshot))
        self._entries = entries
        return entries

    def _highest(self) -> int:
        parts = (found.key.split("/") for found in self._store.list_objects(f"{self._dataset}/"))
        names = {part[1] for part in parts if len(part) > 2}
        return max(int(name) for name in names if len(name) == 8 and name.isascii() and name.isdigit())

    def _manifest(self, number: int) -> bytes | None:
        return self._store.get(f"{self._dataset}/{number:08d}/manifest.json")

    def _snapshot(self, number: int) -> Snapshot:
        url = self._store.url(f"{self._dataset}/{number:08d}/manifest.json")
        data = self._manifest(number)
        if data is None:
            raise Corrupt(f"{url}: the manifest is missing. Restore it from a copy.")
        try:
            snapshot = parse_snapshot(json.loads(data)["snapshot"])
            is_intact = _render(snapshot) == data
        except (ValueError, KeyError, TypeError, AttributeError) as cause:
            raise Corrupt(f"{url}: the manifest cannot be read ({cause}). Restore it from a copy.") from cause
        if not is_intact or (snapshot.dataset, snapshot.sequence) != (self._dataset, number):
            raise Corrupt(f"{url}: the manifest was changed. Restore it from a copy.")
        return snapshot

    def _arrow(self, snapshot: Snapshot) -> str:
        file = snapshot.files[0]
        key = f"{self._dataset}/{snapshot.sequence:08d}/{file.name}"
        try:
            with self._store.open(key, file.sha256) as source:
                return serialize_schema(pq.read_schema(source).remove_metadata())
        except FileNotFoundError as cause:
            url = self._store.url(key)
            raise Corrupt(f"{url}: the file is missing. Restore it from a copy; nothing was read.") from cause


def _render(snapshot: Snapshot) -> bytes:
    content = {"digest": snapshot.digest, "snapshot": asdict(snapshot)}
    text = json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, default=datetime.isoformat)
    return f"{text}\n".encode()
