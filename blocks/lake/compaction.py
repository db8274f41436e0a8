"""Many small snapshots once more in few, larger files, without a read that returns anything else than before.

The snapshots' own files stay: a read that ends between two snapshots of a compaction opens those. So only
snapshots that are small beside a file are compacted, and never few of them: the lake grows by little.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from blocks.common.errors import ConcurrentWrite
from blocks.lake.base import BUCKET_COLUMN, DataFile, FileTotals
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import CompactedRange, Compaction, LogEntry
from blocks.lake.layout import MAX_FILE_ROWS, ONE_FILE_ROWS, STRIPE_EDGES, encode, file_name
from blocks.lake.object_store import ObjectStore
from blocks.lake.read_plan import PlannedFile, ReadUnit, choose_ranges, total_size, unit_for_entry
from blocks.lake.reading import SEGMENTS_KEY, UnitReader
from blocks.lake.schemas import deserialize_schema
from blocks.lake.verified_files import VerifiedFiles

MIN_SNAPSHOTS = 8
"""Fewer neighbours are left as they are."""

MAX_COMPACTED_ROWS = 1_000_000
"""A snapshot or compaction of so many rows is not compacted further."""

MAX_COMPACTION_BYTES = 64 << 20
"""One compaction takes at most so many bytes of Parquet: it is held in memory when it is written, and when it is read
in the order of its snapshots."""

_ATTEMPTS = 1_000


def compact(store: ObjectStore, log: DatasetLog, verified: VerifiedFiles, *, dry_run: bool) -> FileTotals:
    """Compact each stretch of small neighbours, and return the size of their files.

    Where another compaction is first, the rest is left to that. With `dry_run` nothing is written.
    """
    head, merged = log.head(), list[PlannedFile]()
    if head is None:
        return total_size(merged)
    for stretch in _small_groups(log, head):
        pieces = [piece for unit in stretch for piece in unit.files]
        if not dry_run:
            verified.check(pieces)
            if not _compact_group(store, log, head, stretch):
                break
        merged += pieces
    return total_size(merged)


def _compact_group(store: ObjectStore, log: DatasetLog, head: LogEntry, stretch: Sequence[ReadUnit]) -> bool:
    """Write a stretch once more and claim it; False, and nothing left behind, when another compaction was first."""
    folder = f"_data/{uuid4().hex}"
    compaction = _write_compaction(store, log, head, stretch, folder)
    if _claim(log, head, compaction, folder):
        return True
    for file in compaction.files:
        store.delete(f"{log.dataset}/{folder}/{file.name}")
    return False


def _claim(log: DatasetLog, initial_head: LogEntry, compaction: Compaction, folder: str) -> bool:
    """Put the compaction on top of the log; False when another one took some of its snapshots meanwhile."""
    for _ in range(_ATTEMPTS):
        head = log.head() or initial_head
        if log.is_fenced_since(initial_head.log, head, folder):
            raise ConcurrentWrite(
                f"{log.dataset}: the compaction took so long that its files were collected. Try again."
            )
        if any(_overlaps(run, compaction) for run in head.state.runs if run.log > initial_head.log):
            # Our own earlier stretches of this call do not overlap.
            return False
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
    """Yield neighbours that are small, as many as are compacted at once."""
    state = head.state
    numbers = [
        part.log if isinstance(part, CompactedRange) else state.entry_number_of(part)
        for part in choose_ranges(state.runs, state.sequence)
    ]
    stretch: list[ReadUnit] = []
    size = 0
    for unit in (unit_for_entry(log.dataset, entry) for entry in log.entries(numbers)):
        bytes_of_unit = sum(piece.file.bytes for piece in unit.files)
        full = sum(piece.file.rows for piece in unit.files) >= MAX_COMPACTED_ROWS
        if full or size + bytes_of_unit > MAX_COMPACTION_BYTES:
            if len(stretch) >= MIN_SNAPSHOTS:
                yield stretch
            stretch, size = [], 0
        if not full:
            stretch.append(unit)
            size += bytes_of_unit
    if len(stretch) >= MIN_SNAPSHOTS:
        yield stretch


def _write_compaction(
    store: ObjectStore, log: DatasetLog, head: LogEntry, stretch: Sequence[ReadUnit], folder: str
) -> Compaction:
    """Write the rows of a stretch by stripe, in each by snapshot."""
    last = stretch[-1].last
    schema = deserialize_schema(log.entry(head.state.entry_number_of(last)).state.arrow)
    reader = UnitReader(store, schema, schema.names, None)
    tables, numbers = zip(*map(reader.rows_with_snapshot_numbers, stretch), strict=True)
    rows, sequences = pa.concat_tables(tables).combine_chunks(), np.concatenate(numbers)
    files: list[DataFile] = []
    for order in _file_row_orders(rows, sequences):
        table = rows.take(pa.array(order)).replace_schema_metadata({SEGMENTS_KEY: _segments_json(sequences[order])})
        data, digest = encode(table)
        files.append(DataFile(file_name(len(files), table), table.num_rows, data.size, digest))
        store.put(f"{log.dataset}/{folder}/{files[-1].name}", data, digest)
    return Compaction(stretch[0].first, last, tuple(files))


def _file_row_orders(rows: pa.Table, sequences: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the positions of the rows of each file, in order."""
    stripes = np.zeros(len(sequences), np.int64)
    if BUCKET_COLUMN in rows.column_names and len(sequences) > ONE_FILE_ROWS:
        stripes = np.searchsorted(STRIPE_EDGES, rows.column(BUCKET_COLUMN).to_numpy(), side="right") - 1
    order = np.lexsort((sequences, stripes))  # stable: in each snapshot the rows stay as they were
    for stripe in np.unique(stripes).tolist():
        of_stripe = order[stripes[order] == stripe]
        for start in range(0, len(of_stripe), MAX_FILE_ROWS):
            yield of_stripe[start : start + MAX_FILE_ROWS]


def _segments_json(sequences: npt.NDArray[np.int64]) -> str:
    """Return how many rows of which snapshot follow each other, as the footer holds it."""
    values, counts = np.unique(sequences, return_counts=True)
    return json.dumps([[int(value), int(count)] for value, count in zip(values, counts, strict=True)])
