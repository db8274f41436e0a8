"""Plans the files that a fixed read opens, and streams its rows: ordered by snapshot and then as stored.

A compaction replaces its snapshots if the read contains all of them; otherwise their own files are read.

Each file of a compaction has one stripe of buckets, with its snapshots one after the other. The file's footer says how
many rows of which snapshot follow each other. Sorted by that, the rows have the same order as in the snapshots' own
files. The sort is in memory, since a compaction is small (`maintenance.MAX_COMPACTION_BYTES`).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake.base import BUCKET_COLUMN, DataFile, FileTotals
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import CompactedRange, DatasetState, LogEntry
from blocks.lake.layout import cut_to_rows, may_hold_below
from blocks.lake.object_store import ObjectStore
from blocks.lake.schemas import conform_to_schema

SEGMENTS_KEY = b"ratchet.segments"
"""Footer key of a compaction's file: JSON of [snapshot's sequence number, rows] in the order of the file."""

BATCH_ROWS = 65_536
"""Rows of every batch but the last: the same rows give the same batches, however the files are cut."""


@dataclass(frozen=True)
class PlannedFile:
    """One file of a read: its key, and its description in the manifest."""

    key: str
    file: DataFile


@dataclass(frozen=True)
class ReadUnit:
    """The files with the rows of the snapshots `first` to `last`: those of one snapshot, or of a compaction."""

    first: int
    last: int
    files: tuple[PlannedFile, ...]
    compacted: bool


def plan_read(
    log: DatasetLog, latest_state: DatasetState, sequence: int, below_bucket: int | None = None
) -> list[ReadUnit]:
    """Return the units of a read up to `sequence`, oldest first; `latest_state` has the active compactions."""
    numbers = [
        run.log if isinstance(run, CompactedRange) else latest_state.entry_number_of(run)
        for run in choose_ranges(latest_state.runs, sequence)
    ]
    return units_for_entries(log, latest_state, numbers, below_bucket)


def units_for_entries(
    log: DatasetLog, latest_state: DatasetState, numbers: Iterable[int], below_bucket: int | None = None
) -> list[ReadUnit]:
    """Return the units of snapshots' and compactions' entries, with the files that may have rows below the bucket.

    `latest_state` has the erasures: of a file that one of them replaced, the newest copy is read.
    """
    replaced = log.replaced_files(latest_state)
    return [_unit(log.dataset, entry, replaced, below_bucket) for entry in log.entries(numbers)]


def _unit(
    dataset: str,
    entry: LogEntry,
    replaced: Mapping[tuple[int, str], tuple[str, DataFile]],
    below_bucket: int | None,
) -> ReadUnit:
    if entry.compaction:
        first, last = entry.compaction.first, entry.compaction.last
    else:
        assert entry.snapshot is not None  # noqa: S101 - a fence has no files
        first = last = entry.snapshot.sequence
    current = [
        (entry.folder, file) if entry.compaction else replaced.get((first, file.name), (entry.folder, file))
        for file in entry.files
    ]
    pieces = tuple(
        PlannedFile(f"{dataset}/{folder}/{file.name}", file)
        for folder, file in current
        if may_hold_below(file, below_bucket)
    )
    return ReadUnit(first, last, pieces, entry.compaction is not None)


def choose_ranges(runs: Sequence[CompactedRange], sequence: int) -> list[CompactedRange | int]:
    """Return the longest runs that end by `sequence`, and the numbers of the snapshots between them, in order."""
    usable = [run for run in runs if run.last <= sequence]
    chosen: list[CompactedRange | int] = []
    number = 1
    while number <= sequence:
        longest = max((run for run in usable if run.first == number), key=lambda run: run.last, default=None)
        chosen.append(longest or number)
        number = longest.last + 1 if longest else number + 1
    return chosen


def total_size(files: Sequence[PlannedFile]) -> FileTotals:
    """Return the number of these files, and their total size."""
    return FileTotals(len(files), sum(planned.file.bytes for planned in files))


class UnitReader:
    """Reads columns of files as tables of one schema, optionally only rows below a bucket."""

    def __init__(self, store: ObjectStore, schema: pa.Schema, columns: Sequence[str], below_bucket: int | None) -> None:
        self._store = store
        self.schema = pa.schema([schema.field(name) for name in columns])
        self._columns = list(columns)
        self._below = below_bucket
        # Each batch is converted to this schema, before a compaction is cut into thousands of slices.
        names = dict.fromkeys([*columns, *([] if below_bucket is None else [BUCKET_COLUMN])])
        self._schema_with_bucket = pa.schema([schema.field(name) for name in names])

    def batches(self, units: Iterable[ReadUnit]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the units in order, in batches of `BATCH_ROWS`."""
        return _rebatch(table.select(self._columns) for unit in units for table in self._rows(unit))

    def rows_with_snapshot_numbers(self, unit: ReadUnit) -> tuple[pa.Table, npt.NDArray[np.int64]]:
        """Return all rows of a unit in the order of its files, and the sequence number of each row's snapshot."""
        tables, numbers = [self._schema_with_bucket.empty_table()], [np.empty(0, np.int64)]
        for piece in unit.files:
            with self._open(piece) as file:
                tables += self._tables(file, range(file.metadata.num_row_groups))
                segments = [[unit.first, file.metadata.num_rows]]
                if unit.compacted:
                    segments = json.loads(file.metadata.metadata[SEGMENTS_KEY])
                numbers += [np.repeat(*np.array(segments, np.int64).T)]
        return pa.concat_tables(tables), np.concatenate(numbers)

    def _rows(self, unit: ReadUnit) -> Iterator[pa.Table]:
        if not unit.compacted:
            for piece in unit.files:
                yield from self._sorted_file(piece)
            return
        table, numbers = self.rows_with_snapshot_numbers(unit)
        order = np.argsort(numbers, kind="stable")  # within a snapshot rows stay ordered by bucket
        if self._below is not None:
            order = order[table.column(BUCKET_COLUMN).to_numpy()[order] < self._below]
        yield table.combine_chunks().take(pa.array(order))

    def _sorted_file(self, piece: PlannedFile) -> Iterator[pa.Table]:
        with self._open(piece) as file:
            for table in self._tables(file, self._groups(file.metadata)):
                yield self._up_to_bucket(table)

    def _open(self, piece: PlannedFile) -> pq.ParquetFile:
        return pq.ParquetFile(self._store.open(piece.key, piece.file.sha256))

    def _groups(self, metadata: pq.FileMetaData) -> list[int]:
        groups = range(metadata.num_row_groups)
        if self._below is None:
            return list(groups)
        index = metadata.schema.names.index(BUCKET_COLUMN)
        return [g for g in groups if metadata.row_group(g).column(index).statistics.min < self._below]

    def _tables(self, file: pq.ParquetFile, groups: Sequence[int]) -> Iterator[pa.Table]:
        existing = file.schema_arrow.names
        columns = [name for name in self._schema_with_bucket.names if name in existing]
        columns = columns or existing[:1]  # at least one, to count the rows
        for batch in file.iter_batches(BATCH_ROWS, row_groups=list(groups), columns=columns):
            yield conform_to_schema(pa.Table.from_batches([batch]), self._schema_with_bucket)

    def _up_to_bucket(self, table: pa.Table) -> pa.Table:
        if self._below is None:
            return table
        end = np.searchsorted(table.column(BUCKET_COLUMN).to_numpy(), self._below)
        return table.slice(0, int(end))


def _rebatch(tables: Iterable[pa.Table]) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches of exactly `BATCH_ROWS`; the last one has the rest."""
    for table in cut_to_rows(tables, lambda _: BATCH_ROWS):
        (batch,) = table.combine_chunks().to_batches()
        yield batch
