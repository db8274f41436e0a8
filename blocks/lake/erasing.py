"""Erasure: rows are removed from all snapshots of a data set for good, by one entry of the log.

The files that hold such rows are copied without them. The entry names each copy and what it replaces; from then on
every read opens the copies, and reads that cover erased rows have another digest. Then the replaced files are deleted,
together with the compactions that were made from them. A process that is killed in between has committed nothing, or
leaves files that no read opens: the next erasure or maintenance deletes them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.errors import ConcurrentWrite
from blocks.lake.base import DataFile, ErasedRows
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import Erasure, LogEntry, ReplacedFile, state_after_erasure
from blocks.lake.layout import encode
from blocks.lake.maintenance import delete_replaced_files
from blocks.lake.object_store import ObjectStore
from blocks.lake.reading import PlannedFile, units_for_entries
from blocks.lake.verified_files import VerifiedFiles

_ATTEMPTS = 1_000

Selects = Callable[[pa.Table], npt.NDArray[np.bool_]]
"""Returns for each row of a table with the requested columns whether it is erased."""


@dataclass(frozen=True)
class _Found:
    """A stored file with rows to erase: the snapshot and file name in its manifest, and which rows stay."""

    sequence: int
    name: str
    planned: PlannedFile
    stays: npt.NDArray[np.bool_]


def erase_rows(
    store: ObjectStore,
    log: DatasetLog,
    verified: VerifiedFiles,
    columns: Sequence[str],
    selects: Selects,
    *,
    at: datetime,
    notes: Mapping[str, str],
    dry_run: bool,
) -> ErasedRows:
    """Erase the selected rows: see `Lake.erase`. A writer that comes first is included by another attempt."""
    for _ in range(_ATTEMPTS):
        head = log.head()
        if head is None:
            return ErasedRows(log.dataset, 0, 0, "", "")
        found = list(_find(store, log, head, verified, columns, selects))
        rows, snapshots = sum(int((~each.stays).sum()) for each in found), len({each.sequence for each in found})
        if dry_run or not found:
            return ErasedRows(log.dataset, rows, snapshots, head.state.digest, head.state.digest)
        folder = f"_data/{uuid4().hex}"
        replaced = tuple(_copy(store, log.dataset, folder, number, each) for number, each in enumerate(found))
        entry = _entry(head, folder, Erasure(at, replaced, dict(notes)))
        if log.claim(entry):
            delete_replaced_files(store, log, entry)
            return ErasedRows(log.dataset, rows, snapshots, head.state.digest, entry.state.digest)
        for each in replaced:
            store.delete(f"{log.dataset}/{folder}/{each.file.name}")
    raise ConcurrentWrite(f"{log.dataset}: {_ATTEMPTS} other writers were first. Try again.")


def _entry(head: LogEntry, folder: str, erasure: Erasure) -> LogEntry:
    """Return the entry of an erasure. Compactions that hold erased rows are no longer read."""
    number, affected = head.log + 1, {each.sequence for each in erasure.replaced}
    runs = tuple(run for run in head.state.runs if not affected & {*range(run.first, run.last + 1)})
    state = replace(
        state_after_erasure(head.state, erasure),
        others=(*head.state.others, number),
        erasures=(*head.state.erasures, number),
        runs=runs,
    )
    return LogEntry(number, head.digest, state, folder, erasure=erasure)


def _find(
    store: ObjectStore,
    log: DatasetLog,
    head: LogEntry,
    verified: VerifiedFiles,
    columns: Sequence[str],
    selects: Selects,
) -> Iterator[_Found]:
    """Yield the snapshots' own files that have selected rows; compactions are copies of these."""
    sequences = range(1, head.state.sequence + 1)
    numbers = [head.state.entry_number_of(sequence) for sequence in sequences]
    for entry, unit in zip(log.entries(numbers), units_for_entries(log, head.state, numbers), strict=True):
        verified.check(unit.files)
        for original, planned in zip(entry.files, unit.files, strict=True):
            with pq.ParquetFile(store.open(planned.key, planned.file.sha256)) as file:
                if not {*columns} <= {*file.schema_arrow.names}:
                    continue  # a column that was added later: no row of this file has a value there
                stays = [~selects(pa.Table.from_batches([batch])) for batch in file.iter_batches(columns=list(columns))]
            if stays and not np.concatenate(stays).all():
                yield _Found(unit.first, original.name, planned, np.concatenate(stays))


def _copy(store: ObjectStore, dataset: str, folder: str, number: int, found: _Found) -> ReplacedFile:
    """Write a file without the erased rows, in the same order. It may be empty: it still has the columns."""
    with pq.ParquetFile(store.open(found.planned.key, found.planned.file.sha256)) as file:
        table = file.read().filter(pa.array(found.stays))
    data, digest = encode(table)
    _, dash, buckets = found.name.removesuffix(".parquet").partition("-buckets-")
    copy = DataFile(f"part-{number:05d}{dash}{buckets}.parquet", table.num_rows, data.size, digest)
    store.put(f"{dataset}/{folder}/{copy.name}", data, digest)
    return ReplacedFile(found.sequence, found.name, int((~found.stays).sum()), copy)
