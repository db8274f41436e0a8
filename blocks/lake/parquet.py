"""How the rows of a snapshot lie in Parquet files: sorted by bucket, cut where the tiers are cut.

A large snapshot becomes one file for the buckets 0 to 99, one for 100 to 999, and one for each further
1,000, so that a tier of 1 % reads, and checks the SHA-256 of, its own file alone; within a file, row groups
of 20,000 rows are skipped by their statistics. The sort is stable and the writer deterministic: the same
table gives the same bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.errors import Corrupt, Rejected
from blocks.lake.base import BUCKET_COLUMN, DataFile
from blocks.lake.snapshots import BUCKETS

ROW_GROUP_ROWS = 20_000
"""Rows of a row group: small enough that a tier skips most of a file, large enough to compress well."""

ONE_FILE_ROWS = 100_000
"""Up to here a snapshot is one file: opening ten small files costs more than it saves."""

MAX_FILE_ROWS = 250_000
"""No file is longer, so that reading holds little more than the table itself."""

_EDGES = (100, *range(1_000, BUCKETS, 1_000))


@dataclass(frozen=True)
class Part:
    """One file to be written: its name, and the positions of its rows in the table, in order."""

    name: str
    rows: npt.NDArray[np.int64]


def parts_of(table: pa.Table) -> list[Part]:
    """Return the files that the table is written as; `Rejected` when a bucket is null or not 0 to 9,999."""
    if BUCKET_COLUMN not in table.column_names:
        cuts = _cuts(table.num_rows, ())
        return [Part(f"part-{i:05d}.parquet", np.arange(a, b, dtype=np.int64)) for i, (a, b) in enumerate(cuts)]
    buckets = _buckets(table)
    order = np.argsort(buckets, kind="stable").astype(np.int64)
    laid_out = buckets[order]
    edges = np.searchsorted(laid_out, _EDGES).tolist() if table.num_rows > ONE_FILE_ROWS else ()
    return [
        Part(f"part-{i:05d}-buckets-{laid_out[a]:04d}-{laid_out[b - 1]:04d}.parquet", order[a:b])
        for i, (a, b) in enumerate(_cuts(table.num_rows, edges))
    ]


def encode(table: pa.Table, part: Part) -> tuple[DataFile, pa.Buffer]:
    """Return the part's Parquet bytes and their description."""
    sink = pa.BufferOutputStream()
    pq.write_table(table.take(part.rows), sink, row_group_size=ROW_GROUP_ROWS, compression="zstd")
    data = sink.getvalue()
    return DataFile(part.name, len(part.rows), data.size, hashlib.sha256(data).hexdigest()), data


def reaches_below(file: DataFile, below_bucket: int | None) -> bool:
    """Return whether the file may hold rows below the bucket, by the range that its name states."""
    if below_bucket is None or "-buckets-" not in file.name:
        return True
    return int(file.name.split("-")[3]) < below_bucket


def decode(data: bytes, file: DataFile, *, below_bucket: int | None, columns: Sequence[str], where: str) -> pa.Table:
    """Return the rows of a file's bytes after checking that they are the bytes that were written.

    Raises:
        Corrupt: the SHA-256 is not that of `file`; `where` names the file.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise Corrupt(
            f"{where}: checksum mismatch: SHA-256 is {found[:12]}…, the manifest says {file.sha256[:12]}…. "
            "Restore the file from a copy; nothing of it was used."
        )
    source = pq.ParquetFile(pa.BufferReader(data))
    if below_bucket is None:
        return source.read(columns=list(columns), use_threads=False).select(columns)
    needed = list(dict.fromkeys([*columns, BUCKET_COLUMN]))
    table = source.read_row_groups(_groups(source.metadata, below_bucket), columns=needed, use_threads=False)
    end = np.searchsorted(table.column(BUCKET_COLUMN).to_numpy(), below_bucket)
    return table.slice(0, int(end)).select(columns)


def _groups(metadata: pq.FileMetaData, below_bucket: int) -> list[int]:
    index = metadata.schema.names.index(BUCKET_COLUMN)
    smallest = [metadata.row_group(g).column(index).statistics.min for g in range(metadata.num_row_groups)]
    return [group for group, bucket in enumerate(smallest) if bucket < below_bucket]


def _buckets(table: pa.Table) -> npt.NDArray[np.int32]:
    column = table.column(BUCKET_COLUMN)
    if column.null_count:
        raise Rejected(f"{BUCKET_COLUMN} has {column.null_count} nulls. Compute it from the entity of every row.")
    buckets: npt.NDArray[np.int32] = column.to_numpy()
    if buckets.min() < 0 or buckets.max() >= BUCKETS:
        raise Rejected(f"{BUCKET_COLUMN} goes from {buckets.min()} to {buckets.max()}; it has to be 0 to 9,999.")
    return buckets


def _cuts(rows: int, edges: Iterable[int]) -> list[tuple[int, int]]:
    ends = sorted({0, rows, *edges})
    cuts = []
    for start, end in pairwise(ends):
        pieces = -(-(end - start) // MAX_FILE_ROWS)
        bounds = np.linspace(start, end, pieces + 1).astype(int).tolist()
        cuts += list(pairwise(bounds))
    return cuts
