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

from blocks.common.errors import LostRace
from blocks.lake.base import BUCKET_COLUMN, DataFile, Size
from blocks.lake.entries import Compaction, Entry, Run
from blocks.lake.layout import MAX_FILE_ROWS, ONE_FILE_ROWS, STRIPES, encode, name_of
from blocks.lake.log import Log
from blocks.lake.plan import Piece, Unit, cover, size_of, unit_of
from blocks.lake.reading import SEGMENTS, Reader
from blocks.lake.schemas import unpacked
from blocks.lake.store import Store
from blocks.lake.verify import Verified

LEAST = 8
"""Fewer neighbours are left as they are."""

FULL_ROWS = 1_000_000
"""A snapshot or compaction of so many rows is not compacted further."""

MAX_BYTES = 64 << 20
"""One compaction takes at most so many bytes of Parquet: it is held in memory when it is written, and when it is read
in the order of its snapshots."""

_ATTEMPTS = 1_000


def compact(store: Store, log: Log, verified: Verified, *, dry_run: bool) -> Size:
    """Compact each stretch of small neighbours, and return the size of their files.

    Where another compaction is first, the rest is left to that. With `dry_run` nothing is written.
    """
    head, merged = log.head(), list[Piece]()
    if head is None:
        return size_of(merged)
    for stretch in _stretches(log, head):
        pieces = [piece for unit in stretch for piece in unit.pieces]
        if not dry_run:
            verified.check(pieces)
            if not _compacted(store, log, head, stretch):
                break
        merged += pieces
    return size_of(merged)


def _compacted(store: Store, log: Log, head: Entry, stretch: Sequence[Unit]) -> bool:
    """Write a stretch once more and claim it; False, and nothing left behind, when another compaction was first."""
    folder = f"_data/{uuid4().hex}"
    compaction = _write(store, log, head, stretch, folder)
    if _claim(log, head, compaction, folder):
        return True
    for file in compaction.files:
        store.delete(f"{log.dataset}/{folder}/{file.name}")
    return False


def _claim(log: Log, begun: Entry, compaction: Compaction, folder: str) -> bool:
    """Put the compaction on top of the log; False when another one took some of its snapshots meanwhile."""
    for _ in range(_ATTEMPTS):
        head = log.head() or begun
        if log.fenced_since(begun.log, head, folder):
            raise LostRace(f"{log.dataset}: the compaction took so long that its files were collected. Try again.")
        if any(_overlap(run, compaction) for run in head.state.runs if run.log > begun.log):
            # Our own earlier stretches of this call do not overlap.
            return False
        rows = sum(file.rows for file in compaction.files)
        run = Run(compaction.first, compaction.last, head.log + 1, rows)
        others, runs = (*head.state.others, head.log + 1), (*head.state.runs, run)
        state = replace(head.state, others=others, runs=runs)
        if log.claim(Entry(head.log + 1, head.digest, state, folder, compaction=compaction)):
            return True
    raise LostRace(f"{log.dataset}: {_ATTEMPTS} other writers were first. Try again.")


def _overlap(run: Run, compaction: Compaction) -> bool:
    return run.first <= compaction.last and compaction.first <= run.last


def _stretches(log: Log, head: Entry) -> Iterator[list[Unit]]:
    """Yield neighbours that are small, as many as are compacted at once."""
    state = head.state
    numbers = [part.log if isinstance(part, Run) else state.log_of(part) for part in cover(state.runs, state.sequence)]
    stretch: list[Unit] = []
    size = 0
    for unit in (unit_of(log.dataset, entry) for entry in log.entries(numbers)):
        bytes_of_unit = sum(piece.file.bytes for piece in unit.pieces)
        full = sum(piece.file.rows for piece in unit.pieces) >= FULL_ROWS
        if full or size + bytes_of_unit > MAX_BYTES:
            if len(stretch) >= LEAST:
                yield stretch
            stretch, size = [], 0
        if not full:
            stretch.append(unit)
            size += bytes_of_unit
    if len(stretch) >= LEAST:
        yield stretch


def _write(store: Store, log: Log, head: Entry, stretch: Sequence[Unit], folder: str) -> Compaction:
    """Write the rows of a stretch by stripe, in each by snapshot."""
    last = stretch[-1].last
    schema = unpacked(log.entry(head.state.log_of(last)).state.arrow)
    reader = Reader(store, schema, schema.names, None)
    tables, numbers = zip(*map(reader.numbered, stretch), strict=True)
    rows, sequences = pa.concat_tables(tables).combine_chunks(), np.concatenate(numbers)
    files: list[DataFile] = []
    for order in _parts(rows, sequences):
        table = rows.take(pa.array(order)).replace_schema_metadata({SEGMENTS: _segments(sequences[order])})
        data, digest = encode(table)
        files.append(DataFile(name_of(len(files), table), table.num_rows, data.size, digest))
        store.put(f"{log.dataset}/{folder}/{files[-1].name}", data, digest)
    return Compaction(stretch[0].first, last, tuple(files))


def _parts(rows: pa.Table, sequences: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the positions of the rows of each file, in order."""
    stripes = np.zeros(len(sequences), np.int64)
    if BUCKET_COLUMN in rows.column_names and len(sequences) > ONE_FILE_ROWS:
        stripes = np.searchsorted(STRIPES, rows.column(BUCKET_COLUMN).to_numpy(), side="right") - 1
    order = np.lexsort((sequences, stripes))  # stable: in each snapshot the rows stay as they were
    for stripe in np.unique(stripes).tolist():
        of_stripe = order[stripes[order] == stripe]
        for start in range(0, len(of_stripe), MAX_FILE_ROWS):
            yield of_stripe[start : start + MAX_FILE_ROWS]


def _segments(sequences: npt.NDArray[np.int64]) -> str:
    """Return how many rows of which snapshot follow each other, as the footer holds it."""
    values, counts = np.unique(sequences, return_counts=True)
    return json.dumps([[int(value), int(count)] for value, count in zip(values, counts, strict=True)])
