"""What is watched of a model: its columns, cut into bins once, and the counts by bin that everything is judged on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ColumnKind = Literal["number", "category"]

BINS = 10
"""Bins of a number, of equal counts in the reference as nearly as ties allow."""

MAX_CATEGORY_VALUES = 50
"""Values of a category that are told apart; with more, the most frequent ones are, and new ones are not looked for."""


@dataclass(frozen=True)
class MonitoredColumn:
    """A column and its bins, fixed by the reference.

    Attributes:
        name: the column in the rows.
        kind: number (flags are numbers, cut at one half) or category.
        edges: of a number, in order: bin i holds what is at least edge i-1 and below edge i.
        values: of a category, the most frequent first; one more bin holds all others.
        has_all_values: whether `values` are all that the reference has.
        centre: about the middle of a number; sums are taken around it, so that nothing cancels.
        is_prediction: whether it is what the model said.
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
        """How many bins it has."""
        return len(self.edges) + 1 if self.kind == "number" else len(self.values) + 1

    @property
    def display_name(self) -> str:
        """The name that people read."""
        return (
            "prediction" + self.name.removeprefix("_prediction").replace("_", " ", 1)
            if self.is_prediction
            else self.name
        )

    def label(self, index: int) -> str:
        """Return a bin in words."""
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

    `centred_sum` and `centred_square_sum` are the sums over finite numbers of their distance from the column's centre, and of its
    square; `unseen` are a few values that the reference does not have, each with its rows.
    """

    bins: tuple[int, ...]
    nulls: int = 0
    not_finite: int = 0
    centred_sum: float = 0.0
    centred_square_sum: float = 0.0
    unseen: tuple[tuple[str, int], ...] = field(default=())

    @property
    def binned_rows(self) -> int:
        """Rows with a value that is in a bin."""
        return sum(self.bins)

    @property
    def rows(self) -> int:
        """All rows."""
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
    """Return a number's column, its edges from a sample of the reference; values that are not finite do not count."""
    values = np.asarray(sample, dtype=np.float64)
    values = values[np.isfinite(values)]
    if flag or not len(values):
        return MonitoredColumn(name, "number", (0.5,), centre=0.5, is_prediction=prediction)
    cuts = np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1], method="higher")
    edges = tuple(float(edge) for edge in np.unique(cuts))
    return MonitoredColumn(name, "number", edges, centre=float(np.median(values)), is_prediction=prediction)


def category_column(name: str, counted: Sequence[tuple[str, int]]) -> MonitoredColumn:
    """Return a category's column from the reference's values with their rows, in any order."""
    ordered = sorted(counted, key=lambda each: (-each[1], each[0]))
    values = tuple(value for value, _ in ordered[:MAX_CATEGORY_VALUES])
    return MonitoredColumn(name, "category", values=values, has_all_values=len(ordered) <= MAX_CATEGORY_VALUES)
