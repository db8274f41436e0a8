"""Monitored columns with their bins, and the counts per bin: the SQL that counts, and the parsing of its result."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.shared.rules import sql

ColumnKind = Literal["number", "category"]

BINS = 10
"""The number of bins of a number. They have equal counts in the reference, except for ties."""

MAX_CATEGORY_VALUES = 50
"""The most values of a category that have their own bin. With more values, unseen ones are not detected."""

_NULL, _NOT_FINITE = -1, -2
_LARGEST = "1.7976931348623157e308"
UNSEEN_SHOWN = 5
"""The largest number of unseen values that are shown."""


@dataclass(frozen=True)
class MonitoredColumn:
    """A column and its bins, fixed by the reference.

    Attributes:
        name: the name of the column.
        kind: number or category. A flag is a number with one edge at 0.5.
        edges: the bin edges of a number, in order. Bin i has values from edge i-1 (included) to edge i (excluded).
        values: the values of a category, the most frequent first. One more bin counts all others.
        has_all_values: whether `values` are all values of the reference.
        centre: a value near the median of a number. Sums are taken around it, to avoid cancellation.
        is_prediction: whether the column is a prediction of the model.
    """

    name: str
    kind: ColumnKind
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    has_all_values: bool = True
    centre: float = 0.0
    is_prediction: bool = False

    @property
    def bins(self) -> int:
        """The number of bins."""
        return len(self.edges) + 1 if self.kind == "number" else len(self.values) + 1

    @property
    def display_name(self) -> str:
        """The name in reports."""
        if not self.is_prediction:
            return self.name
        return "prediction" + self.name.removeprefix("_prediction").replace("_", " ", 1)

    def label(self, index: int) -> str:
        """Return the label of a bin."""
        if self.kind == "category":
            others = "new values" if self.has_all_values else "(others)"
            return self.values[index] if index < len(self.values) else others
        if self.edges == (0.5,):
            return str(index)
        if not self.edges:
            return "all"
        if index == 0:
            return f"< {self.edges[0]:.4g}"
        if index == len(self.edges):
            return f"≥ {self.edges[-1]:.4g}"
        return f"{self.edges[index - 1]:.4g} to {self.edges[index]:.4g}"


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


def number_column(
    name: str, sample: npt.NDArray[Any], *, flag: bool = False, prediction: bool = False
) -> MonitoredColumn:
    """Return a number column with edges from a sample of the reference. Values that are not finite are ignored."""
    values = np.asarray(sample, dtype=np.float64)
    values = values[np.isfinite(values)]
    if flag or not len(values):
        return MonitoredColumn(name, "number", (0.5,), centre=0.5, is_prediction=prediction)
    cuts = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1], method="higher")
    edges = tuple(float(edge) for edge in np.unique(cuts))
    return MonitoredColumn(name, "number", edges, centre=float(np.median(values)), is_prediction=prediction)


def category_column(name: str, counted: Sequence[tuple[str, int]]) -> MonitoredColumn:
    """Return a category column from the values of the reference with their rows, in any order."""
    ordered = sorted(counted, key=lambda each: (-each[1], each[0]))
    values = tuple(value for value, _ in ordered[:MAX_CATEGORY_VALUES])
    return MonitoredColumn(name, "category", values=values, has_all_values=len(ordered) <= MAX_CATEGORY_VALUES)


def counts_sql(columns: Sequence[MonitoredColumn], source: str, window: str = "0") -> str:
    """Return the query of all columns' counts, with the columns feature, win, bin, found, total and squares.

    Args:
        columns: the columns to count; at least one.
        source: the table in SQL, with its conditions: "rows" or "(SELECT …)".
        window: SQL for the index of a row's window.
    """
    return " UNION ALL ".join(_column_counts_sql(column, source, window) for column in columns)


def read_counts(
    columns: Sequence[MonitoredColumn], answer: Iterable[Mapping[str, Any]]
) -> dict[int, dict[str, BinCounts]]:
    """Return the counts by window and column from the result rows of `counts_sql`."""
    windows: dict[int, dict[str, dict[int, tuple[int, float, float]]]] = {}
    for row in answer:
        by_bin = windows.setdefault(int(row["win"]), {}).setdefault(row["feature"], {})
        by_bin[int(row["bin"])] = (int(row["found"]), float(row["total"] or 0), float(row["squares"] or 0))
    return {
        number: {column.name: _counts(column, window.get(column.name, {})) for column in columns}
        for number, window in sorted(windows.items())
    }


def values_sql(name: str, source: str, excluded: Sequence[str] = (), limit: int = MAX_CATEGORY_VALUES + 1) -> str:
    """Return the query of a category's values with their numbers of rows, the most frequent first."""
    value = f"CAST({sql.quoted_name(name)} AS VARCHAR)"
    known = f" AND {value} NOT IN ({', '.join(map(_text, excluded))})" if excluded else ""
    return sql.select_sql(
        f"{value} AS value, count(*) AS found",
        source,
        f"WHERE {sql.quoted_name(name)} IS NOT NULL{known}",
        "GROUP BY 1",
        f"ORDER BY 2 DESC, 1 LIMIT {limit}",
    )


def with_unseen(window: WindowCounts, name: str, values: Sequence[tuple[str, int]]) -> dict[str, BinCounts]:
    """Return the window with examples of unseen values added to one column."""
    return {**window, name: replace(window[name], unseen=tuple(values))}


def _column_counts_sql(column: MonitoredColumn, source: str, window: str) -> str:
    known = sql.quoted_name(column.name)
    if column.kind == "number":
        value = f"CAST({known} AS DOUBLE)"
        cut = (
            " + ".join(f"CASE WHEN {value} >= {sql.value_literal(edge)} THEN 1 ELSE 0 END" for edge in column.edges)
            or "0"
        )
        place = (
            f"CASE WHEN {known} IS NULL THEN {_NULL} "
            f"WHEN NOT ({value} BETWEEN -{_LARGEST} AND {_LARGEST}) THEN {_NOT_FINITE} ELSE {cut} END"
        )
        apart = f"({value} - {sql.value_literal(column.centre)})"
        sums = f"sum({apart}) AS total, sum({apart} * {apart}) AS squares"
    else:
        value = f"CAST({known} AS VARCHAR)"
        cases = " ".join(f"WHEN {_text(each)} THEN {at}" for at, each in enumerate(column.values))
        chosen = f"CASE {value} {cases} ELSE {len(column.values)} END" if cases else "0"
        place = f"CASE WHEN {known} IS NULL THEN {_NULL} ELSE {chosen} END"
        sums = "CAST(0 AS DOUBLE) AS total, CAST(0 AS DOUBLE) AS squares"
    columns = f"{_text(column.name)} AS feature, {window} AS win, {place} AS bin, count(*) AS found, {sums}"
    return sql.select_sql(columns, source, "GROUP BY 1, 2, 3")


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
