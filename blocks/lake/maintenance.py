"""Maintenance of a data set: compaction of many small files, and deletion of orphans (files that no entry references).

A compaction copies the rows of many small snapshots into few larger files; reads return the same rows. The snapshots'
own files remain: a read that ends between two snapshots of a compaction opens those. So only small snapshots are
compacted, and many at once, so that the lake grows little.

Orphans are deleted without deleting files of a running writer. First a log entry, the fence, names the folders to
delete. A writer whose folder is fenced can no longer commit: its own entry would come after the fence, and before it
writes that entry it reads all earlier ones. Only then the files are deleted. The order of the log decides, not clocks.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.common.errors import ConcurrentWrite
from blocks.lake.base import BUCKET_COLUMN, DataFile, FileTotals
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import CompactedRange, Compaction, LogEntry
from blocks.lake.layout import MAX_FILE_ROWS, ONE_FILE_ROWS, STRIPE_EDGES, encode, file_name
from blocks.lake.object_store import ObjectInfo, ObjectStore
from blocks.lake.reading import (
    SEGMENTS_KEY,
    PlannedFile,
    ReadUnit,
    UnitReader,
    choose_ranges,
    total_size,
    units_for_entries,
)
from blocks.lake.schemas import deserialize_schema
from blocks.lake.verified_files import VerifiedFiles

MIN_SNAPSHOTS = 8
"""Minimum number of adjacent snapshots for a compaction."""

MAX_COMPACTED_ROWS = 1_000_000
"""A snapshot or compaction with at least this many rows is not compacted further."""

MAX_COMPACTION_BYTES = 64 << 20
"""Maximum Parquet bytes of one compaction: it is held in memory while it is written, and while it is read."""

_ATTEMPTS = 1_000


def compact(store: ObjectStore, log: DatasetLog, verified: VerifiedFiles, *, dry_run: bool) -> FileTotals:
    """Compact each group of adjacent small snapshots, and return the total size of their files.

    If another compaction is first, it also does the rest. With `dry_run` nothing is written.
    """
    head, merged = log.head(), list[PlannedFile]()
    if head is None:
        return total_size(merged)
    for group in _small_groups(log, head):
        files = [file for unit in group for file in unit.files]
        if not dry_run:
            verified.check(files)
            if not _compact_group(store, log, head, group):
                break
        merged += files
    return total_size(merged)


def _compact_group(store: ObjectStore, log: DatasetLog, head: LogEntry, group: Sequence[ReadUnit]) -> bool:
    """Write one compaction and add it to the log. Return False, with its files deleted, if another was first."""
    folder = f"_data/{uuid4().hex}"
    compaction = _write_compaction(store, log, head, group, folder)
    if _claim(log, head, compaction, folder):
        return True
    for file in compaction.files:
        store.delete(f"{log.dataset}/{folder}/{file.name}")
    return False


def _claim(log: DatasetLog, initial_head: LogEntry, compaction: Compaction, folder: str) -> bool:
    """Add the compaction to the log; return False if another one contains some of its snapshots by now."""
    for _ in range(_ATTEMPTS):
        head = log.head() or initial_head
        if log.is_fenced_since(initial_head.log, head, folder):
            raise ConcurrentWrite(
                f"{log.dataset}: the compaction took so long that its files were collected. Try again."
            )
        if head.state.erasures != initial_head.state.erasures:
            return False  # it was copied from rows of which some are erased by now
        if any(_overlaps(run, compaction) for run in head.state.runs if run.log > initial_head.log):
            return False  # the earlier groups of this call never overlap
        rows = sum(file.rows for file in compaction.files)
        run = CompactedRange(compaction.first, compaction.last, head.log + 1, rows)
        others, runs = (*head.state.others, head.log + 1), (*head.state.runs, run)
        state = replace(head.state, others=others, runs=runs)
        if log.claim(LogEntry(head.log + 1, head.digest, state, folder, compaction=compaction)):
            return True
    raise ConcurrentWrite(f"{log.dataset}: {_ATTEMPTS} other writers were first. Try again.")


def _overlaps(run: CompactedRange, compaction: Compaction) -> bool:
    return run.first <= compaction.last and compaction.first <= run.last


def _small_groups(log: DatasetLog, head: LogEntry) -> Iterator[list[ReadUnit]]:
    """Yield groups of adjacent small snapshots; each group is compacted at once."""
    state = head.state
    numbers = [
        part.log if isinstance(part, CompactedRange) else state.entry_number_of(part)
        for part in choose_ranges(state.runs, state.sequence)
    ]
    group: list[ReadUnit] = []
    size = 0
    for unit in units_for_entries(log, state, numbers):
        bytes_of_unit = sum(planned.file.bytes for planned in unit.files)
        full = sum(planned.file.rows for planned in unit.files) >= MAX_COMPACTED_ROWS
        if full or size + bytes_of_unit > MAX_COMPACTION_BYTES:
            if len(group) >= MIN_SNAPSHOTS:
                yield group
            group, size = [], 0
        if not full:
            group.append(unit)
            size += bytes_of_unit
    if len(group) >= MIN_SNAPSHOTS:
        yield group


def _write_compaction(
    store: ObjectStore, log: DatasetLog, head: LogEntry, group: Sequence[ReadUnit], folder: str
) -> Compaction:
    """Write the rows of a group, ordered by stripe and then by snapshot."""
    last = group[-1].last
    schema = deserialize_schema(log.entry(head.state.entry_number_of(last)).state.arrow)
    reader = UnitReader(store, schema, schema.names, None)
    tables, numbers = zip(*map(reader.rows_with_snapshot_numbers, group), strict=True)
    rows, sequences = pa.concat_tables(tables).combine_chunks(), np.concatenate(numbers)
    files: list[DataFile] = []
    for order in _file_row_orders(rows, sequences):
        table = rows.take(pa.array(order)).replace_schema_metadata({SEGMENTS_KEY: _segments_json(sequences[order])})
        data, digest = encode(table)
        files.append(DataFile(file_name(len(files), table), table.num_rows, data.size, digest))
        store.put(f"{log.dataset}/{folder}/{files[-1].name}", data, digest)
    return Compaction(group[0].first, last, tuple(files))


def _file_row_orders(rows: pa.Table, sequences: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the positions of the rows of each file, in order."""
    stripes = np.zeros(len(sequences), np.int64)
    if BUCKET_COLUMN in rows.column_names and len(sequences) > ONE_FILE_ROWS:
        stripes = np.searchsorted(STRIPE_EDGES, rows.column(BUCKET_COLUMN).to_numpy(), side="right") - 1
    order = np.lexsort((sequences, stripes))  # stable: the rows of a snapshot keep their order
    for stripe in np.unique(stripes).tolist():
        of_stripe = order[stripes[order] == stripe]
        for start in range(0, len(of_stripe), MAX_FILE_ROWS):
            yield of_stripe[start : start + MAX_FILE_ROWS]


def _segments_json(sequences: npt.NDArray[np.int64]) -> str:
    """Return the footer's JSON: [snapshot's sequence number, rows], in the order of the file."""
    values, counts = np.unique(sequences, return_counts=True)
    return json.dumps([[int(value), int(count)] for value, count in zip(values, counts, strict=True)])


def delete_replaced_files(store: ObjectStore, log: DatasetLog, head: LogEntry) -> FileTotals:
    """Delete the files that erasures replaced, and the compactions that held erased rows: no read opens them.

    Return the total size of what was still there.
    """
    current = {(folder, file.name) for folder, file in log.replaced_files(head.state).values()}
    kept = {run.log for run in head.state.runs}
    keys = set[str]()
    for entry in log.entries(range(1, head.log + 1) if head.state.erasures else ()):
        if entry.erasure:
            keys |= _keys(log, entry, [file.name for file in entry.files if (entry.folder, file.name) not in current])
            for each in entry.erasure.replaced:
                original = log.entry(head.state.entry_number_of(each.sequence))
                keys |= _keys(log, original, [each.name])
        elif entry.compaction and entry.log not in kept:
            keys |= _keys(log, entry, [file.name for file in entry.files])
    stored = [found for found in store.list_objects(f"{log.dataset}/_data/") if found.key in keys] if keys else []
    for found in stored:
        store.purge(found.key)
    return FileTotals(len(stored), sum(found.size_bytes for found in stored))


def _keys(log: DatasetLog, entry: LogEntry, names: Sequence[str]) -> set[str]:
    return {f"{log.dataset}/{entry.folder}/{name}" for name in names}


_Folders = Mapping[str, list[ObjectInfo]]
"""The files of each append or compaction, by its folder."""


def collect_orphans(store: ObjectStore, log: DatasetLog, before: datetime, *, dry_run: bool) -> FileTotals:
    """Delete unreferenced folders that were not written to since `before`; return the total size of their files.

    With `dry_run` nothing is deleted.
    """
    for _ in range(_ATTEMPTS):
        head = log.head()
        if head is None:
            return FileTotals(0, 0)
        if not dry_run:
            delete_replaced_files(store, log, head)  # what a killed erasure left: no fence, as nobody can commit them
        folders = _folders(store, log.dataset)
        superseded = {run for run in head.state.runs if _is_superseded(log, head, run, folders, before)}
        orphans = _unreferenced_folders(log, head, superseded, folders, before)
        files = [file for name in orphans for file in folders[name]]
        size = FileTotals(len(files), sum(file.size_bytes for file in files))
        if dry_run or not orphans:
            return size
        runs = tuple(run for run in head.state.runs if run not in superseded)
        state = replace(head.state, others=(*head.state.others, head.log + 1), runs=runs)
        if log.claim(LogEntry(head.log + 1, head.digest, state, fenced=tuple(sorted(orphans)))):
            for file in files:
                store.delete(file.key)
            return size
    raise ConcurrentWrite(f"{log.dataset}: {_ATTEMPTS} other writers were first. Try again.")


def _folders(store: ObjectStore, dataset: str) -> _Folders:
    folders: dict[str, list[ObjectInfo]] = {}
    for stored in store.list_objects(f"{dataset}/_data/"):
        name = stored.key.removeprefix(f"{dataset}/").rpartition("/")[0]
        folders.setdefault(name, []).append(stored)
    return folders


def _modified(files: Sequence[ObjectInfo]) -> datetime:
    return max((file.modified for file in files), default=datetime(1, 1, 1, tzinfo=UTC))


def _is_superseded(log: DatasetLog, head: LogEntry, run: CompactedRange, folders: _Folders, before: datetime) -> bool:
    """Return whether a longer compaction has contained its rows since `before`, so that no read needs it."""
    longer = [r for r in head.state.runs if r != run and r.first <= run.first and r.last >= run.last]
    ages = [_modified(folders.get(log.entry(r.log).folder, [])) for r in longer]
    return any(age < before for age in ages)


def _unreferenced_folders(
    log: DatasetLog,
    head: LogEntry,
    superseded: set[CompactedRange],
    folders: _Folders,
    before: datetime,
) -> list[str]:
    active = {run.log for run in head.state.runs if run not in superseded}
    entries = log.entries(range(1, head.log + 1))
    referenced = {entry.folder for entry in entries if entry.snapshot or entry.erasure or entry.log in active}
    return [name for name, files in folders.items() if name not in referenced and _modified(files) < before]
