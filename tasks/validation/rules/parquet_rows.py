"""A table as Parquet files that an engine reads: its columns, aggregates in one pass, few rows, few columns."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.shared.rules import sql

TABLE_NAME = "rows"
"""What the files are called in the SQL."""

ColumnFamily = Literal["whole", "double", "text", "other"]
"""Kinds of columns of which SQL and pandas mean the same; "other" is all the rest."""


@dataclass(frozen=True)
class ParquetRows:
    """Rows in Parquet files, and the engine that computes over them.

    Args:
        files: paths, or s3:// URLs.
        query: runs SQL in DuckDB's dialect in which `rows` stands for the files, and returns its small answer:
            `lambda sql: engine.query(sql, {"rows": files})`.
        most_cells: the most values (rows x columns) that may be read into memory for an expectation that is not
            computed by SQL; above that it is refused.
    """

    files: tuple[str, ...]
    query: Callable[[str], pa.Table]
    most_cells: int = 25_000_000

    @cached_property
    def kinds(self) -> Mapping[str, pa.DataType]:
        """The columns in their order, each with its type. No file has no column."""
        found = self.query(sql.select_sql("*", TABLE_NAME, "LIMIT 0")).schema if self.files else ()
        return {each.name: each.type for each in found}

    def family(self, column: str) -> ColumnFamily:
        """Return the kind of a column. Raises KeyError when it is not there."""
        return _family(self.kinds[column])

    @cached_property
    def repeated(self) -> frozenset[str]:
        """Columns that one file holds more than once; engines rename them, silently. Looked up in local files."""
        held: set[str] = set()
        for file in self.files:
            names = [] if "://" in file else pq.read_schema(file).names
            held.update(each for each in names if names.count(each) > 1)
        return frozenset(held)

    def source(self, columns: Iterable[str]) -> str:
        """Return SQL for these columns of the table, in which no number (NaN) is null, as pandas sees it."""
        return f"({sql.select_sql(', '.join(map(self._cell, columns)), TABLE_NAME)}) AS t"

    def _cell(self, column: str) -> str:
        """Return SQL for the column's value, null where it is NaN.

        Engines keep the files' statistics, which leave NaN out, away from the comparison (docs/engines.md).
        """
        quoted, kind = sql.quoted_name(column), _FLOATS.get(self.kinds[column])
        return f"nullif({quoted}, CAST('NaN' AS {kind})) AS {quoted}" if kind else quoted

    def values(self, expressions: Iterable[str]) -> dict[str, Any]:
        """Return each aggregate over the rows, computed in one pass."""
        asked = list(dict.fromkeys(expressions))
        chosen = ", ".join(f"{each} AS m{n}" for n, each in enumerate(asked))
        (row,) = self.query(sql.select_sql(chosen, self.source(self.kinds))).to_pylist()
        return {each: row[f"m{n}"] for n, each in enumerate(asked)}

    def frame(self, columns: tuple[str, ...]) -> pd.DataFrame:
        """Return all rows of these columns, in memory."""
        return to_frame(self.query(sql.select_sql(sql.quoted_names(columns), TABLE_NAME)))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return the table as pandas sees it, giving Arrow's memory back column by column."""
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
