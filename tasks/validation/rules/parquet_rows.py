"""A table of Parquet files that an engine reads: its columns, aggregates in one pass, and frames of few columns."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.shared.rules import sql

TABLE_NAME = "rows"
"""The name of the files in the SQL."""

ColumnFamily = Literal["whole", "double", "text", "other"]
"""Column types on which SQL and pandas agree; "other" is every other type."""


@dataclass(frozen=True)
class ParquetRows:
    """Rows in Parquet files, and the engine that computes over them.

    Args:
        files: paths, or s3:// URLs.
        query: runs SQL in DuckDB's dialect in which `rows` stands for the files, and returns its small result:
            `lambda sql: engine.query(sql, {"rows": files})`.
        max_cells: the most values (rows x columns) that may be read into memory for an expectation without a plan
            in SQL; with more, it fails.
    """

    files: tuple[str, ...]
    query: Callable[[str], pa.Table]
    max_cells: int = 25_000_000

    @cached_property
    def kinds(self) -> Mapping[str, pa.DataType]:
        """The columns in order, each with its type; empty when there is no file."""
        found = self.query(sql.select_sql("*", TABLE_NAME, "LIMIT 0")).schema if self.files else ()
        return {each.name: each.type for each in found}

    def family(self, column: str) -> ColumnFamily:
        """Return the family of a column. Raises KeyError when there is no such column."""
        return _family(self.kinds[column])

    @cached_property
    def repeated(self) -> frozenset[str]:
        """Columns that a local file holds more than once: engines rename these silently."""
        repeated: set[str] = set()
        for file in self.files:
            names = [] if "://" in file else pq.read_schema(file).names
            repeated.update(each for each in names if names.count(each) > 1)
        return frozenset(repeated)

    @cached_property
    def row_count(self) -> int:
        """How many rows there are."""
        return int(self.values(["count(*)"])["count(*)"])

    def source(self, columns: Iterable[str]) -> str:
        """Return SQL for these columns of the table, with null for NaN, as in pandas."""
        return f"({sql.select_sql(', '.join(map(self._cell, columns)), TABLE_NAME)}) AS t"

    def _cell(self, column: str) -> str:
        """Return SQL for the column's value, with null for NaN.

        The files' statistics, which leave NaN out, do not affect the comparison (docs/engines.md).
        """
        quoted, kind = sql.quoted_name(column), _FLOATS.get(self.kinds[column])
        return f"nullif({quoted}, CAST('NaN' AS {kind})) AS {quoted}" if kind else quoted

    def values(self, expressions: Iterable[str]) -> dict[str, Any]:
        """Return each aggregate over the rows, computed in one pass."""
        aggregates = list(dict.fromkeys(expressions))
        chosen = ", ".join(f"{each} AS m{n}" for n, each in enumerate(aggregates))
        (row,) = self.query(sql.select_sql(chosen, self.source(self.kinds))).to_pylist()
        return {each: row[f"m{n}"] for n, each in enumerate(aggregates)}

    def frame(self, columns: tuple[str, ...]) -> pd.DataFrame:
        """Return all rows of these columns, in memory."""
        return to_frame(self.query(sql.select_sql(sql.quoted_names(columns), TABLE_NAME)))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return the table as a pandas frame. Arrow's memory is released column by column."""
    frame: pd.DataFrame = table.to_pandas(split_blocks=True, self_destruct=True, date_as_object=False)
    return frame


_FLOATS = {pa.float32(): "FLOAT", pa.float64(): "DOUBLE"}


def _family(kind: pa.DataType) -> ColumnFamily:
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return "whole"
    if pa.types.is_float64(kind):
        return "double"
    textual = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return "text" if textual else "other"
