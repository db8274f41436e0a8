"""The lake on any object store. Nothing is overwritten, and only an erasure deletes what an entry references.

`<data set>/_data/<append>/` has the Parquet files of one append or compaction, `<data set>/_log/` the entries that make
them visible. Files that no entry references belong to a running or a dead writer.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pydantic import PrivateAttr

from blocks.common.errors import ConcurrentWrite, Rejected
from blocks.common.temporary_folders import temporary_folder
from blocks.lake.base import AsOf, DataFile, ErasedRows, FileTotals, Lake, PublishedTable, Snapshot, StorageUse
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.delta_log import publish_all, publish_newest
from blocks.lake.entries import DatasetState, LogEntry, next_snapshot, next_state
from blocks.lake.erasing import Selects, erase_rows
from blocks.lake.layout import write_sorted_files
from blocks.lake.maintenance import collect_orphans, compact
from blocks.lake.object_store import ObjectStore
from blocks.lake.reading import PlannedFile, ReadUnit, UnitReader, plan_read, total_size, units_for_entries
from blocks.lake.schemas import (
    check_append,
    check_columns,
    check_dataset,
    check_expected_parent,
    conform_to_schema,
    deserialize_schema,
    merged_schema,
    schema_as_text,
    serialize_schema,
)
from blocks.lake.verified_files import VerifiedFiles

_ATTEMPTS = 1_000


class ObjectStoreLake(Lake):
    """Append-only data sets in an object store. An adapter provides the store and the translation of its errors."""

    _logs: dict[str, DatasetLog] = PrivateAttr(default_factory=dict)

    @abstractmethod
    def open_store(self) -> ObjectStore:
        """Return the store; called once."""

    @abstractmethod
    def spill(self) -> Path:
        """Return a folder on a disk with enough space for the largest append."""

    @abstractmethod
    def port_errors(self, dataset: str, action: str) -> AbstractContextManager[None]:
        """Translate the store's errors into port errors; `action` is "read" or "written"."""

    def verified_cache_file(self) -> Path | None:
        """Return the file with the list of verified files; None keeps the list in memory only."""
        return None

    def append(
        self,
        dataset: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        source: str,
        key: str,
        at: datetime,
        notes: Mapping[str, str] | None = None,
        expected_parent: str | None = None,
    ) -> Snapshot:
        """Add rows as one snapshot, atomically: see `Lake.append`."""
        check_dataset(dataset)
        check_append(dataset, rows.schema, key, at)
        with self.port_errors(dataset, "written"):
            log = self._log(dataset)
            head = log.head()
            if existing := log.find(key, head):
                return existing
            state = head.state if head else DatasetState()
            check_expected_parent(dataset, state, expected_parent)
            folder = f"_data/{uuid4().hex}"
            files = self._lay_out(dataset, folder, rows, merged_schema(dataset, state, rows.schema))
            written = {f"{dataset}/{folder}/{file.name}": file.sha256 for file in files}
            for _ in range(_ATTEMPTS):
                schema = merged_schema(dataset, state, rows.schema)
                snapshot = next_snapshot(
                    dataset, state, schema_as_text(schema), files, source=source, key=key, at=at, notes=notes
                )
                number, previous = (head.log + 1, head.digest) if head else (1, "")
                state = next_state(state, snapshot, serialize_schema(schema))
                if log.claim(entry := LogEntry(number, previous, state, folder, snapshot)):
                    self.verified.remember(list(written.items()))
                    publish_newest(self.store, log, entry)
                    return snapshot
                head = log.head()
                state = head.state if head else DatasetState()
                if head and (existing := log.find(key, head)):
                    if log.entry(head.state.entry_number_of(existing.sequence)).folder != folder:
                        self._delete_files(written)
                    return existing
                if head and log.is_fenced_since(number - 1, head, folder):
                    raise ConcurrentWrite(
                        f"{dataset}: this append took so long that its files were collected. Try again."
                    )
                try:
                    check_expected_parent(dataset, state, expected_parent)
                except ConcurrentWrite:
                    self._delete_files(written)
                    raise
        raise ConcurrentWrite(f"{dataset}: {_ATTEMPTS} other writers were first. Try again.")

    def find_by_key(self, dataset: str, key: str) -> Snapshot | None:
        """Return the snapshot appended with `key`: see `Lake.find_by_key`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "read"):
            log = self._log(dataset)
            return log.find(key, log.head())

    def datasets(self) -> tuple[str, ...]:
        """Return the names of all data sets, sorted."""
        with self.port_errors("the lake", "read"):
            names = []
            for name in self.store.top_level_names():
                with suppress(Rejected):
                    check_dataset(name)
                    names += [name] if self._log(name).head() else []
            return tuple(sorted(names))

    def as_of(self, dataset: str, when: str | None = None) -> AsOf:
        """Fix a read: see `Lake.as_of`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "read"):
            log = self._log(dataset)
            read = log.as_of(log.head(), when)

        def load() -> tuple[Snapshot, ...]:
            with self.port_errors(dataset, "read"):
                return read.load_snapshots()

        return replace(read, load_snapshots=load)

    def scan(
        self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Stream the rows of a fixed read: see `Lake.scan`."""
        selected = check_columns(as_of, below_bucket, columns)
        with self.port_errors(as_of.dataset, "read"):
            units, state, _ = self._units(as_of, below_bucket)
            self.verified.check([planned for unit in units for planned in unit.files])
            reader = UnitReader(self.store, deserialize_schema(state.arrow), selected, below_bucket)

        def batches() -> Iterator[pa.RecordBatch]:
            with self.port_errors(as_of.dataset, "read"):
                yield from reader.batches(units)

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def files(self, as_of: AsOf, *, below_bucket: int | None = None) -> tuple[str, ...]:
        """Return the verified files of a fixed read: see `Lake.files`."""
        check_columns(as_of, below_bucket, None)
        with self.port_errors(as_of.dataset, "read"):
            units, state, now = self._units(as_of, below_bucket)
            files = [planned for unit in units for planned in unit.files]
            added = self._files_with_added_columns(as_of.dataset, state, now, units)
            files += [planned for planned in added if planned not in files]
            self.verified.check(files)
            return tuple(self.store.url(planned.key) for planned in files)

    def compact(self, dataset: str, *, dry_run: bool = False) -> FileTotals:
        """Compact small files: see `Lake.compact`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "written"):
            return compact(self.store, self._log(dataset), self.verified, dry_run=dry_run)

    def collect_orphans(self, dataset: str, *, before: datetime, dry_run: bool = False) -> FileTotals:
        """Delete unreferenced files: see `Lake.collect_orphans`."""
        check_dataset(dataset)
        if before.tzinfo is None:
            raise Rejected(f"{dataset}: the time {before.isoformat()} has no zone. Give one, such as +00:00.")
        with self.port_errors(dataset, "written"):
            return collect_orphans(self.store, self._log(dataset), before, dry_run=dry_run)

    def erase(
        self,
        dataset: str,
        columns: Sequence[str],
        selects: Selects,
        *,
        at: datetime,
        notes: Mapping[str, str],
        dry_run: bool = False,
    ) -> ErasedRows:
        """Remove rows for good: see `Lake.erase`."""
        self.as_of(dataset)
        with self.port_errors(dataset, "written"):
            log = self._log(dataset)
            erased = erase_rows(self.store, log, self.verified, columns, selects, at=at, notes=notes, dry_run=dry_run)
            if not dry_run:  # what a killed writer left may hold such rows, too
                collect_orphans(self.store, log, at, dry_run=False)
                try:
                    publish_all(self.store, log, dry_run=False)
                except Exception as cause:  # what is erased stays erased; maintenance makes up for the table
                    erased = replace(erased, problem=f"{type(cause).__name__}: {cause}")
            return erased

    def publish(self, dataset: str, *, dry_run: bool = False) -> PublishedTable:
        """Make the data set's Delta table agree with its snapshots: see `Lake.publish`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "written"):
            return publish_all(self.store, self._log(dataset), dry_run=dry_run)

    def storage_use(self, dataset: str) -> StorageUse:
        """Return the storage use of the data set: see `Lake.storage_use`."""
        now = self.as_of(dataset)
        with self.port_errors(dataset, "read"):
            units, _, _ = self._units(now, None)
            stored = [
                found.size_bytes for found in self.store.list_objects(f"{dataset}/") if found.key.endswith(".parquet")
            ]
            opened = total_size([planned for unit in units for planned in unit.files])
            return StorageUse(FileTotals(len(stored), sum(stored)), opened)

    def file_url(self, snapshot: Snapshot, file: str) -> str:
        """Return the path or URL of a snapshot's file, for example to restore it from a copy."""
        log = self._log(snapshot.dataset)
        head = log.head()
        entry = log.entry(head.state.entry_number_of(snapshot.sequence)) if head else None
        return self.store.url(f"{snapshot.dataset}/{entry.folder if entry else ''}/{file}")

    @cached_property
    def store(self) -> ObjectStore:
        """The store, opened on first use."""
        return self.open_store()

    @cached_property
    def verified(self) -> VerifiedFiles:
        """The files that were verified."""
        return VerifiedFiles(self.store, self.verified_cache_file())

    def _log(self, dataset: str) -> DatasetLog:
        return self._logs.setdefault(dataset, DatasetLog(self.store, dataset))

    def _lay_out(
        self, dataset: str, folder: str, rows: pa.Table | pa.RecordBatchReader, schema: pa.Schema
    ) -> tuple[DataFile, ...]:
        written: list[str] = []

        def write(name: str, data: pa.Buffer, sha256: str) -> None:
            key = f"{dataset}/{folder}/{name}"
            written.append(key)  # called by two threads
            self.store.put(key, data, sha256)

        try:
            with temporary_folder(self.spill(), "spill-") as spill:
                files = write_sorted_files(_tables(rows, schema), write, spill)
            if not files:
                raise Rejected(f"{dataset}: there are no rows. Check the source; an empty snapshot is never written.")
        except BaseException:
            self._delete_files(written)
            raise
        return files

    def _delete_files(self, keys: Iterable[str]) -> None:
        """Delete files that no log entry will reference. Files that cannot be deleted now are collected later."""
        with suppress(Exception):
            for key in keys:
                self.store.delete(key)

    def _units(self, as_of: AsOf, below_bucket: int | None) -> tuple[list[ReadUnit], DatasetState, DatasetState]:
        """Return the files of a read, by the current compactions; the state of the read, and the newest one."""
        log = self._log(as_of.dataset)
        head = log.head()
        if head is None or head.state.sequence < as_of.sequence:
            raise Rejected(f"{as_of.dataset}: {as_of.id} is not a read of this lake. Call `as_of` again.")
        state = log.state_of(head.state, as_of.sequence)
        if state.digest != as_of.digest:
            raise ConcurrentWrite(f"{as_of.dataset}: rows of {as_of.id} were erased meanwhile. Read it again.")
        return plan_read(log, head.state, as_of.sequence, below_bucket), state, head.state

    def _files_with_added_columns(
        self, dataset: str, state: DatasetState, now: DatasetState, units: Sequence[ReadUnit]
    ) -> Iterator[PlannedFile]:
        """Yield a file of each snapshot that added columns, if the read opens no other file with these columns."""
        log = self._log(dataset)
        opened = [unit for unit in units if unit.files]
        for sequence in state.introduced:
            if not any(unit.last >= sequence for unit in opened):
                yield units_for_entries(log, now, [now.entry_number_of(sequence)])[0].files[0]


def _tables(rows: pa.Table | pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    for batch in batches:
        yield conform_to_schema(pa.Table.from_batches([batch]), schema)
