"""Monitored columns with their bins, and the counts per bin: the SQL that counts, and the parsing of its result."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tasks.shared.rules import sql

ColumnKind = Literal["number", "category", "text"]
QueryFunction = Callable[[str], pa.Table]
"""Runs one query over the rows."""

HASHED_BINS = 10
"""The number of bins by hash for the values of a category that have no bin of their own."""

_NULL, _NOT_FINITE = -1, -2
_LARGEST = "1.7976931348623157e308"
_COLUMNS_PER_QUERY = 20
_CELLS_PER_QUERY = 20_000_000
UNSEEN_SHOWN = 5
"""The largest number of unseen values that are shown."""


@dataclass(frozen=True)
class MonitoredColumn:
    """A column and its bins, fixed by the reference (`bins.py`).

    Attributes:
        name: the name of the column.
        kind: number, category or text. A flag is a number with one edge at 0.5. Free text is binned by its length.
        edges: the bin edges of a number or of a length, in order. Bin i has values from edge i-1 (included) to edge i
            (excluded).
        values: the values of a category or a text that have a bin of their own, the most frequent first. These bins
            come before all others.
        hashed: the number of bins, by hash, for the other values of a category. 0: `values` are all values of the
            reference, and one more bin counts the unseen ones.
        points: the values of a number or of a length that are alone in a bin.
        centre: a value near the median of a number. Sums are taken around it, to avoid cancellation.
        is_prediction: whether the column is a prediction of the model.
    """

    name: str
    kind: ColumnKind
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    hashed: int = 0
    points: tuple[float, ...] = ()
    centre: float = 0.0
    is_prediction: bool = False

    @property
    def bins(self) -> int:
        """The number of bins."""
        if self.kind == "category":
            return len(self.values) + max(1, self.hashed)
        return len(self.values) + len(self.edges) + 1

    @property
    def has_all_values(self) -> bool:
        """Whether each value of the reference has a bin, so that an unseen value is known."""
        return self.kind == "category" and not self.hashed

    @property
    def display_name(self) -> str:
        """The name in reports."""
        if not self.is_prediction:
            return f"{self.name} (length)" if self.kind == "text" else self.name
        return "prediction" + self.name.removeprefix("_prediction").replace("_", " ", 1)

    @property
    def point_bins(self) -> dict[int, float]:
        """The bins that hold one value, with that value."""
        return {len(self.values) + at: point for at, point in zip(self.bins_of(self.points), self.points, strict=True)}

    def bins_of(self, numbers: Sequence[float] | npt.NDArray[np.float64]) -> list[int]:
        """Return the bins of finite numbers by the edges alone."""
        found: list[int] = np.searchsorted(self.edges, numbers, side="right").tolist()
        return found

    def label(self, index: int) -> str:
        """Return the label of a bin."""
        if index < len(self.values):
            return self.values[index]
        place = index - len(self.values)
        if self.kind == "category":
            return f"(others {place + 1} of {self.hashed})" if self.hashed else "new values"
        if self.edges == (0.5,):
            return str(place)
        if index in (points := self.point_bins):
            return f"{points[index]:.4g}"
        if 0 < place < len(self.edges):
            return f"{self.edges[place - 1]:.4g} to {self.edges[place]:.4g}"
        return f"< {self.edges[0]:.4g}" if place == 0 else f"≥ {self.edges[-1]:.4g}"


@dataclass(frozen=True)
class BinCounts:
    """The rows of one window by the bins of one column.

    `centred_sum` and `centred_square_sum` are the sums, over finite numbers, of the difference from the column's
    centre and of its square. `unseen` are examples of values that are not in the reference, with their rows.
    """

    bins: tuple[int, ...]
    nulls: int = 0
    not_finite: int = 0
    centred_sum: float = 0.0
    centred_square_sum: float = 0.0
    unseen: tuple[tuple[str, int], ...] = ()

    @property
    def binned_rows(self) -> int:
        """The number of rows with a value in a bin."""
        return sum(self.bins)

    @property
    def rows(self) -> int:
        """The number of all rows."""
        return self.binned_rows + self.nulls + self.not_finite

    @property
    def missing_share(self) -> float:
        """The share of rows without a usable value: null, NaN or infinite."""
        return (self.nulls + self.not_finite) / self.rows if self.rows else 0.0

    def mean(self, column: MonitoredColumn) -> float:
        """Return the mean of a number; NaN without rows."""
        return column.centre + self.centred_sum / self.binned_rows if self.binned_rows else float("nan")

    def deviation(self) -> float:
        """Return the standard deviation of a number; NaN without rows."""
        if not self.binned_rows:
            return float("nan")
        return float(
            np.sqrt(max(0.0, self.centred_square_sum / self.binned_rows - (self.centred_sum / self.binned_rows) ** 2))
        )

    def __add__(self, other: "BinCounts") -> "BinCounts":
        """Return the counts of both windows together."""
        return BinCounts(
            tuple(a + b for a, b in zip(self.bins, other.bins, strict=True)),
            self.nulls + other.nulls,
            self.not_finite + other.not_finite,
            self.centred_sum + other.centred_sum,
            self.centred_square_sum + other.centred_square_sum,
        )


WindowCounts = Mapping[str, BinCounts]
"""The counts of one window by column."""


def count_windows(
    query: QueryFunction, columns: Sequence[MonitoredColumn], source: str, window: str = "0", rows: int = 0
) -> dict[int, dict[str, BinCounts]]:
    """Return the counts by window and column. A window without rows is left out.

    A query counts `_COLUMNS_PER_QUERY` columns, or fewer of very many rows. With one query for each column the work
    would grow with the square of their number, because the engine resolves all columns of a table in each.

    Args:
        query: runs a query.
        columns: the columns to count.
        source: the table in SQL, with its conditions: "rows" or "(SELECT …)".
        window: SQL for the index of a row's window.
        rows: the number of rows, about.
    """
    windows: dict[int, dict[str, dict[int, tuple[int, float, float]]]] = {}
    for some in in_parts(columns, rows):
        for row in query(_counts_sql(some, source, window)).to_pylist():
            by_bin = windows.setdefault(int(row["win"]), {}).setdefault(row["feature"], {})
            by_bin[int(row["bin"])] = (int(row["found"]), float(row["total"] or 0), float(row["squares"] or 0))
    return {
        number: {column.name: _counts(column, window_counts.get(column.name, {})) for column in columns}
        for number, window_counts in sorted(windows.items())
    }


def in_parts(columns: Sequence[Any], rows: int) -> list[Sequence[Any]]:
    """Return the columns in parts of a size that one query can hold in memory."""
    size = max(1, min(_COLUMNS_PER_QUERY, _CELLS_PER_QUERY // max(1, rows)))
    return [columns[start : start + size] for start in range(0, len(columns), size)]


def values_sql(excluded: Mapping[str, Sequence[str]], source: str, limit: int) -> str:
    """Return the query of the most frequent values of text columns: feature, value, found, distinct_values, present.

    Args:
        excluded: by column the values that are left out.
        source: the table in SQL.
        limit: the largest number of values of each column. `distinct_values` and `present` count all values, and all
            rows that have one.
    """
    texts = ", ".join(f"CAST({sql.quoted_name(name)} AS VARCHAR) AS v{at}" for at, name in enumerate(excluded))
    parts = []
    for at, (name, known) in enumerate(excluded.items()):
        unknown = f" AND v{at} NOT IN ({', '.join(map(_text, known))})" if known else ""
        counting = "count(*) AS found, count(*) OVER () AS distinct_values, sum(count(*)) OVER () AS present"
        parts.append(
            sql.select_sql(
                f"{_text(name)} AS feature, v{at} AS value, {counting}",
                "texts",
                f"WHERE v{at} IS NOT NULL{unknown}",
                f"GROUP BY v{at} ORDER BY found DESC, value LIMIT {limit}",
            )
        )
    return f"WITH texts AS ({sql.select_sql(texts, source)}) " + " UNION ALL ".join(f"({part})" for part in parts)


def with_unseen(window: WindowCounts, name: str, values: Sequence[tuple[str, int]]) -> dict[str, BinCounts]:
    """Return the window with examples of unseen values added to one column."""
    return {**window, name: replace(window[name], unseen=tuple(values))}


def _counts_sql(columns: Sequence[MonitoredColumn], source: str, window: str) -> str:
    """Return the query of the columns' counts: feature, win, bin, found, total and squares. It reads the rows once."""
    picked, parts = [f"{window} AS win"], []
    for at, column in enumerate(columns):
        picked.append(f"{_bin_sql(column)} AS b{at}")
        sums = "CAST(0 AS DOUBLE) AS total, CAST(0 AS DOUBLE) AS squares"
        if column.kind != "category":
            picked.append(f"{_number_sql(column)} - {sql.value_literal(column.centre)} AS v{at}")
            sums = f"sum(v{at}) AS total, sum(v{at} * v{at}) AS squares"
        what = f"{_text(column.name)} AS feature, win, b{at} AS bin, count(*) AS found, {sums}"
        parts.append(sql.select_sql(what, "binned", f"GROUP BY win, b{at}"))
    return f"WITH binned AS ({sql.select_sql(', '.join(picked), source)}) " + " UNION ALL ".join(parts)


def _number_sql(column: MonitoredColumn) -> str:
    known = sql.quoted_name(column.name)
    return f"CAST({f'length(CAST({known} AS VARCHAR))' if column.kind == 'text' else known} AS DOUBLE)"


def _bin_sql(column: MonitoredColumn) -> str:
    """Return SQL for the index of a row's bin."""
    known = sql.quoted_name(column.name)
    text, number, own = f"CAST({known} AS VARCHAR)", _number_sql(column), len(column.values)
    not_finite = ""
    if column.kind == "category":
        other = f"{own} + bucket_of({text}, 1) % {column.hashed}" if column.hashed else str(own)
    else:
        steps = [f"CASE WHEN {number} >= {sql.value_literal(edge)} THEN 1 ELSE 0 END" for edge in column.edges]
        other = " + ".join([str(own), *steps])
    if column.kind == "number":
        not_finite = f"WHEN NOT ({number} BETWEEN -{_LARGEST} AND {_LARGEST}) THEN {_NOT_FINITE} "
    cases = " ".join(f"WHEN {text} = {_text(each)} THEN {at}" for at, each in enumerate(column.values))
    return f"CASE WHEN {known} IS NULL THEN {_NULL} {not_finite}{cases} ELSE {other} END"


def _counts(column: MonitoredColumn, by_bin: Mapping[int, tuple[int, float, float]]) -> BinCounts:
    inside = {at: found for at, found in by_bin.items() if at >= 0}
    return BinCounts(
        bins=tuple(inside.get(at, (0, 0.0, 0.0))[0] for at in range(column.bins)),
        nulls=by_bin.get(_NULL, (0,))[0],
        not_finite=by_bin.get(_NOT_FINITE, (0,))[0],
        centred_sum=sum(found[1] for found in inside.values()),
        centred_square_sum=sum(found[2] for found in inside.values()),
    )


def _text(value: str) -> str:
    return sql.text_literal(value.replace("\x00", ""))
