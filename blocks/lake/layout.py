"""Layout of a snapshot's rows in Parquet files: sorted by bucket, cut at the data tiers, in bounded memory.

A large snapshot has files for the buckets 0 to 99, 100 to 999, and each further 1,000, so that a tier of 1 % reads and
verifies only its own files. Rows that do not fit into memory are first partitioned by bucket range into Arrow files on
disk, then each range is sorted separately. The sort is stable and the writer deterministic: the same rows give the
same bytes.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from blocks.common.errors import Rejected
from blocks.lake.base import BUCKET_COLUMN, DataFile
from runtime.digests import bytes_digest

BUCKETS = 10_000
"""Number of buckets: `BUCKET_COLUMN` has values from 0 to 9,999."""

STRIPE_EDGES = (0, 100, *range(1_000, BUCKETS + 1, 1_000))
"""Edges at which a large snapshot is cut into files: stripe i has the buckets from edge i to below edge i + 1."""

ROW_GROUP_ROWS = 50_000
"""Rows of a row group: small enough that a tier skips most of a file, large enough for fast reads."""

ONE_FILE_ROWS = 100_000
"""A snapshot of at most this many rows is one file: opening ten small files would cost more than it saves."""

MAX_FILE_ROWS = 250_000
MAX_FILE_BYTES = 128 << 20
"""Maximum rows and Arrow bytes of one file; this much memory is used while a file is written."""

MAX_SORT_BYTES = 200 << 20
"""Bytes that each of two threads sorts in memory at once; larger inputs are partitioned on disk first."""

_SLICE_ROWS = 1 << 17
_SAMPLE_ROWS = 5_000
_FAN_OUT = 10
_THREADS = 2

WriteFile = Callable[[str, pa.Buffer, str], None]
"""Writes a file into the lake; arguments are name, bytes, and SHA-256 in hex."""


def write_sorted_files(tables: Iterable[pa.Table], write: WriteFile, spill_folder: Path) -> tuple[DataFile, ...]:
    """Write rows of one schema as Parquet files and return their descriptions, in reading order.

    `write` is called by two threads. `spill_folder` is an empty folder for rows that do not fit into memory.

    Raises:
        Rejected: a bucket is null or not 0 to 9,999.
    """
    source = _check_and_slice(tables)
    held, whole = _read_up_to_limit(source)
    if not held:
        return ()
    with ThreadPoolExecutor(_THREADS) as pool:
        if BUCKET_COLUMN not in held[0].column_names:
            return tuple(_write_tables(0, cut_to_rows(_drain_then(held, source), _rows_of_a_file), write, pool))
        if whole:
            table = sort_by_bucket(held)
            return tuple(_write_tables(0, _cut_at_stripes(table), write, pool))
        edges = [_range_edges(low, high) for low, high in pairwise(STRIPE_EDGES)]
        ranges = iter(
            _partition(_drain_then(held, source), [0, *(edge for split in edges for edge in split[1:])], spill_folder)
        )
        stripes = [[(next(ranges), *limits) for limits in pairwise(split)] for split in edges]

        def stripe(number: int) -> list[DataFile]:
            rows = (table for part in stripes[number] for table in _sort_file(*part, spill_folder))
            return list(_write_tables(number, cut_to_rows(rows, _rows_of_a_file), write))

        return tuple(file for files in pool.map(stripe, range(len(stripes))) for file in files)


def encode(table: pa.Table) -> tuple[pa.Buffer, str]:
    """Return the table's Parquet bytes and their SHA-256, in hex. The same rows give the same bytes."""
    table = table.combine_chunks()
    sink = pa.BufferOutputStream()
    # Engines read Snappy, with dictionaries only where values repeat, twice as fast as zstd (decision 0001).
    pq.write_table(
        table, sink, row_group_size=ROW_GROUP_ROWS, compression="snappy", use_dictionary=_repetitive_columns(table)
    )
    data = sink.getvalue()
    return data, bytes_digest(data)


def _repetitive_columns(table: pa.Table) -> list[str]:
    """Return the columns with repeated values in a sample of the first rows."""
    sample = table.slice(0, _SAMPLE_ROWS)
    plain = [c.name for c in table.schema if not pa.types.is_nested(c.type) and not pa.types.is_dictionary(c.type)]
    return [name for name in plain if 2 * pc.count_distinct(sample.column(name)).as_py() <= sample.num_rows]


def file_name(number: int, table: pa.Table) -> str:
    """Return a file's name: its number and, if there are buckets, the smallest and the largest one."""
    if BUCKET_COLUMN not in table.column_names:
        return f"part-{number:06d}.parquet"
    buckets = table.column(BUCKET_COLUMN).to_numpy()
    return f"part-{number:06d}-buckets-{buckets.min():04d}-{buckets.max():04d}.parquet"


def may_hold_below(file: DataFile, below_bucket: int | None) -> bool:
    """Return whether the file may have rows below the bucket, by the range in its name."""
    if below_bucket is None or "-buckets-" not in file.name:
        return True
    return int(file.name.split("-")[3]) < below_bucket


def sort_by_bucket(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows sorted by bucket; rows of one bucket keep their order."""
    table = pa.concat_tables(tables).combine_chunks()
    order = np.argsort(table.column(BUCKET_COLUMN).to_numpy().astype(np.int16), kind="stable")
    return table.take(pa.array(order))


def _cut_at_stripes(table: pa.Table) -> Iterator[pa.Table]:
    """Cut sorted rows at the stripe edges, unless they fit into one file."""
    if table.num_rows <= ONE_FILE_ROWS:
        yield table
        return
    edges = np.searchsorted(table.column(BUCKET_COLUMN).to_numpy(), STRIPE_EDGES).tolist()
    for start, end in pairwise(edges):
        yield from cut_to_rows([table.slice(start, end - start)], _rows_of_a_file)


def cut_to_rows(tables: Iterable[pa.Table], limit_of: Callable[[pa.Table], int]) -> Iterator[pa.Table]:
    """Yield the rows in tables of exactly the limit for the first table; the last one has the rest."""
    held: list[pa.Table] = []
    rows = limit = 0
    for table in tables:
        if not table.num_rows:
            continue
        limit = limit or limit_of(table)
        start = 0
        while table.num_rows - start >= limit - rows:
            taken = table.slice(start, limit - rows)
            yield pa.concat_tables([*held, taken])
            start, held, rows = start + taken.num_rows, [], 0
        if start < table.num_rows:
            held.append(table.slice(start))
            rows += table.num_rows - start
    if held:
        yield pa.concat_tables(held)


def _rows_of_a_file(sample: pa.Table) -> int:
    """Return the maximum number of rows of a file with such rows."""
    rows, size = int(sample.num_rows), int(sample.nbytes)
    return max(1, min(MAX_FILE_ROWS, MAX_FILE_BYTES * rows // max(1, size)))


def _write_tables(
    stripe: int, pieces: Iterable[pa.Table], write: WriteFile, pool: ThreadPoolExecutor | None = None
) -> Iterator[DataFile]:
    """Write each table as a file; with a pool, two at a time."""

    def one(number: int, table: pa.Table) -> DataFile:
        data, digest = encode(table)
        name = file_name(stripe * 10_000 + number, table)
        write(name, data, digest)
        return DataFile(name, table.num_rows, data.size, digest)

    pieces = enumerate(piece for piece in pieces if piece.num_rows)
    if pool is None:
        yield from (one(*piece) for piece in pieces)
        return
    running = []
    for piece in pieces:
        running.append(pool.submit(one, *piece))
        if len(running) > _THREADS:
            yield running.pop(0).result()
    yield from (future.result() for future in running)


def _check_and_slice(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut tables into slices, and reject invalid buckets."""
    for table in tables:
        if not table.num_rows:
            continue
        if BUCKET_COLUMN in table.column_names:
            _check_buckets(table.column(BUCKET_COLUMN))
        for start in range(0, table.num_rows, _SLICE_ROWS):
            yield table.slice(start, _SLICE_ROWS)


def _check_buckets(column: pa.ChunkedArray) -> None:
    if column.null_count:
        raise Rejected(f"{BUCKET_COLUMN} has {column.null_count} nulls. Compute it from the entity of every row.")
    buckets = column.to_numpy()
    if buckets.min() < 0 or buckets.max() >= BUCKETS:
        raise Rejected(f"{BUCKET_COLUMN} goes from {buckets.min()} to {buckets.max()}; it must be 0 to 9,999.")


def _read_up_to_limit(tables: Iterator[pa.Table]) -> tuple[list[pa.Table], bool]:
    """Return the first tables up to the memory limit, and whether these were all."""
    held, size = [], 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size > MAX_SORT_BYTES:
            return held, False
    return held, True


def _drain_then(held: list[pa.Table], rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield the held tables, releasing each, and then the rest."""
    while held:
        yield held.pop(0)
    yield from rest


def _partition(tables: Iterable[pa.Table], edges: Sequence[int], spill: Path) -> list[Path]:
    """Write the rows of each bucket range into its own Arrow file, in their order."""
    range_of = np.repeat(np.arange(len(edges) - 1, dtype=np.int8), np.diff(edges))
    paths = [spill / f"{uuid.uuid4().hex}.arrow" for _ in edges[1:]]
    with ExitStack() as stack:
        writers: list[pa.RecordBatchFileWriter] = []
        for table in tables:
            if not writers:
                files = [stack.enter_context(pa.OSFile(str(path), "wb")) for path in paths]
                writers = [stack.enter_context(pa.ipc.new_file(file, table.schema)) for file in files]
            ranges: npt.NDArray[np.int8] = range_of[table.column(BUCKET_COLUMN).to_numpy() - edges[0]]
            ordered = table.combine_chunks().take(pa.array(np.argsort(ranges, kind="stable")))
            ends = np.cumsum(np.bincount(ranges, minlength=len(paths))).tolist()
            for number, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
                if end > start:
                    writers[number].write_table(ordered.slice(start, end - start))
    return paths


def _range_edges(low: int, high: int) -> list[int]:
    """Return the edges of at most `_FAN_OUT` bucket ranges."""
    return sorted({*np.linspace(low, high, min(_FAN_OUT, high - low) + 1).astype(int).tolist()})


def _sort_file(path: Path, low: int, high: int, spill: Path) -> Iterator[pa.Table]:
    """Yield the rows of an Arrow file sorted by bucket, and delete the file."""
    source = _read_arrow_file(path)
    held, whole = _read_up_to_limit(source)
    if whole:
        path.unlink()
        if held:
            yield sort_by_bucket(held)
    elif high - low == 1:  # a single bucket needs no sort
        yield from _drain_then(held, source)
        path.unlink()
    else:
        edges = _range_edges(low, high)
        paths = _partition(_drain_then(held, source), edges, spill)
        path.unlink()
        for part, first, last in zip(paths, edges, edges[1:], strict=False):
            yield from _sort_file(part, first, last, spill)


def _read_arrow_file(path: Path) -> Iterator[pa.Table]:
    # Not memory-mapped: mapped pages would count as this process's memory while the file is open.
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        for number in range(reader.num_record_batches):
            yield pa.Table.from_batches([reader.get_batch(number)])
