"""Stages a source as typed Parquet files in bounded memory, unless its files can be scanned directly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.sources.base import RowBatch, Source, UnreadableRow, empty_table
from blocks.sources.parquet_files import min_and_max

FILE_COLUMN, ROW_COLUMN = "_ratchet_file", "_ratchet_row"
"""Columns of staged rows: the index of the file in the source (int32), and the line or row number (int64)."""

_UNREADABLE_SCHEMA = pa.schema([("position", pa.string()), ("reason", pa.string()), ("text", pa.string())])
_ROW_GROUP_ROWS = 122_880  # DuckDB's unit of parallel work


@dataclass(frozen=True)
class StagedSource:
    """Rows in Parquet files: staged and typed, or the source's own files with each column as SQL (`column_sql`).

    `unreadable_files` have the unreadable rows (position, reason, text). `finite_columns` are the columns without an
    infinity, according to the files' statistics. `changed_columns` are as in `RowBatch`.
    """

    files: tuple[Path, ...]
    column_sql: Mapping[str, str] | None
    schema: pa.Schema
    rows: int
    finite_columns: frozenset[str]
    unreadable_files: tuple[Path, ...] = ()
    unreadable_row_count: int = 0
    changed_columns: frozenset[str] = frozenset()


@dataclass
class _Writer:
    """Writes tables into one file in row groups of at least `_ROW_GROUP_ROWS` rows."""

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
    """Write the source's rows to an empty folder, or describe how its own files can be scanned.

    `on_batch` is called with every batch, in order, but never for files that are scanned directly. `always_copy` stages
    also such files, for engines that cannot scan them, or for `on_batch`. Raises the errors of `Source.batches`.
    """
    if not always_copy and (direct := source.direct_scan()):
        files, columns = direct
        footers = [pq.read_metadata(file) for file in files]
        rows = sum(footer.num_rows for footer in footers)
        return StagedSource(files, columns, empty_table(source.kinds).schema, rows, _finite(footers, source))
    schema = empty_table(source.kinds).schema
    file_field, row_field = pa.field(FILE_COLUMN, pa.int32()), pa.field(ROW_COLUMN, pa.int64())
    rows_writer = _Writer(folder / "rows.parquet", pa.schema([*schema, file_field, row_field]))
    unreadable_writer = _Writer(folder / "unreadable.parquet", _UNREADABLE_SCHEMA)
    changed: frozenset[str] = frozenset()
    for batch in source.batches():
        on_batch(batch)
        changed |= batch.changed_columns
        file = pa.repeat(pa.scalar(batch.file_index, pa.int32()), batch.table.num_rows)
        table = batch.table.append_column(file_field, file).append_column(row_field, batch.row_numbers)
        rows_writer.write(table.cast(rows_writer.schema))
        if batch.unreadable_rows:
            unreadable_writer.write(_unreadable_as_table(batch.unreadable_rows))
    if rows_writer.rows == 0:
        rows_writer.write(rows_writer.schema.empty_table())
    files = rows_writer.close()
    finite = _finite([pq.read_metadata(file) for file in files], source)
    unreadable_files = unreadable_writer.close()
    return StagedSource(
        files, None, schema, rows_writer.rows, finite, unreadable_files, unreadable_writer.rows, changed
    )


def _finite(footers: list[pq.FileMetaData], source: Source) -> frozenset[str]:
    numbers = [column for column, kind in source.kinds.items() if kind == "number"]
    limits = {column: min_and_max(footers, column) for column in numbers}
    return frozenset(c for c, ends in limits.items() if ends is not None and isfinite(ends[0]) and isfinite(ends[1]))


def _unreadable_as_table(rows: tuple[UnreadableRow, ...]) -> pa.Table:
    columns = [[row.position for row in rows], [row.reason for row in rows], [row.raw_text for row in rows]]
    return pa.table(columns, schema=_UNREADABLE_SCHEMA)
