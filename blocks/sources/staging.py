"""A source laid down as typed Parquet files, in bounded memory, unless its files can be scanned as they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.sources.base import RowBatch, Source, UnreadableRow, empty_table
from blocks.sources.parquet_files import min_and_max

FILE_COLUMN, ROW_COLUMN = "_ratchet_file", "_ratchet_row"
"""Columns of staged rows: the place of the file in `Source.places` (int32), and the line or row there (int64)."""

_UNREADABLE_SCHEMA = pa.schema([("position", pa.string()), ("reason", pa.string()), ("text", pa.string())])
_ROW_GROUP_ROWS = 122_880  # what DuckDB reads as one piece of work


@dataclass(frozen=True)
class StagedSource:
    """Rows in Parquet files: those of a source, typed, or its own files with each column as SQL (`column_sql`).

    `unreadable_files` are files of the rows that could not be read (position, reason, text). `finite_columns` names the columns
    that hold no infinity, by the files' statistics.
    """

    files: tuple[Path, ...]
    column_sql: Mapping[str, str] | None
    schema: pa.Schema
    rows: int
    finite_columns: frozenset[str]
    unreadable_files: tuple[Path, ...] = ()
    unreadable_row_count: int = 0


@dataclass
class _Writer:
    """Writes tables into one file, and begins a row group when enough rows have come."""

    path: Path
    schema: pa.Schema
    rows: int = 0
    _waiting: list[pa.Table] = field(default_factory=list)
    _file: pq.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self._waiting.append(table)
        if sum(part.num_rows for part in self._waiting) >= _ROW_GROUP_ROWS:
            self._flush()

    def close(self) -> tuple[Path, ...]:
        self._flush()
        if self._file:
            self._file.close()
        return (self.path,) if self._file else ()

    def _flush(self) -> None:
        if self._waiting:
            self._file = self._file or pq.ParquetWriter(
                self.path, self.schema, compression="lz4", write_statistics=True
            )
            self._file.write_table(pa.concat_tables(self._waiting), row_group_size=_ROW_GROUP_ROWS)
            self._waiting.clear()


def stage_rows(
    source: Source,
    folder: Path,
    on_batch: Callable[[RowBatch], None] = lambda piece: None,
    *,
    always_copy: bool = False,
) -> StagedSource:
    """Lay the source down in an empty folder, or say how its own files can be scanned.

    Args:
        source: read once, from its beginning.
        folder: empty; holds the files as long as they are needed.
        on_batch: is shown every piece, in order; never called for files that are scanned as they are.
        always_copy: lay down also what could be scanned as it is, for engines that cannot, and so that `on_batch` sees it.

    Raises:
        Rejected, Unavailable: as `Source.pieces`.
    """
    if not always_copy and (as_it_is := source.direct_scan()):
        files, columns = as_it_is
        footers = [pq.read_metadata(file) for file in files]
        rows = sum(footer.num_rows for footer in footers)
        return StagedSource(files, columns, empty_table(source.kinds).schema, rows, _finite(footers, source))
    schema = empty_table(source.kinds).schema
    places = [pa.field(FILE_COLUMN, pa.int32()), pa.field(ROW_COLUMN, pa.int64())]
    rows_of = _Writer(folder / "rows.parquet", pa.schema([*schema, *places]))
    broken_of = _Writer(folder / "broken.parquet", _UNREADABLE_SCHEMA)
    for piece in source.batches():
        on_batch(piece)
        file = pa.repeat(pa.scalar(piece.file_index, pa.int32()), piece.table.num_rows)
        rows_of.write(
            piece.table.append_column(places[0], file).append_column(places[1], piece.row_numbers).cast(rows_of.schema)
        )
        if piece.unreadable_rows:
            broken_of.write(_unreadable_as_table(piece.unreadable_rows))
    if rows_of.rows == 0:
        rows_of.write(rows_of.schema.empty_table())
    files = rows_of.close()
    finite = _finite([pq.read_metadata(file) for file in files], source)
    return StagedSource(files, None, schema, rows_of.rows, finite, broken_of.close(), broken_of.rows)


def _finite(footers: list[pq.FileMetaData], source: Source) -> frozenset[str]:
    numbers = [column for column, kind in source.kinds.items() if kind == "number"]
    said = {column: min_and_max(footers, column) for column in numbers}
    return frozenset(c for c, ends in said.items() if ends is not None and isfinite(ends[0]) and isfinite(ends[1]))


def _unreadable_as_table(broken: tuple[UnreadableRow, ...]) -> pa.Table:
    columns = [[row.position for row in broken], [row.reason for row in broken], [row.raw_text for row in broken]]
    return pa.table(columns, schema=_UNREADABLE_SCHEMA)
