"""Monitored columns with their bins, and the counts per bin on which all comparisons are based."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ColumnKind = Literal["number", "category"]

BINS = 10
"""The number of bins of a number. They have equal counts in the reference, except for ties."""

MAX_CATEGORY_VALUES = 50
"""The most values of a category that have their own bin. With more values, unseen ones are not detected."""


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
        return (
            "prediction" + self.name.removeprefix("_prediction").replace("_", " ", 1)
            if self.is_prediction
            else self.name
        )

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
    unseen: tuple[tuple[str, int], ...] = field(default=())

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
