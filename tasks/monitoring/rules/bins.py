"""The bins of a monitored column, fixed by the reference: one definition for features, counts, labels and predictions.

A value of a number that many rows of the reference have (a point mass: zeros, a default, a cap, a constant) has a bin
of its own. The other values have bins of about equal counts, and the outer bins are narrow and open. So rows that move
to a point mass, away from it, between point masses or far outside the reference are in other bins than before.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.monitoring.rules.columns import HASHED_BINS, MonitoredColumn

BINS = 10
"""The number of bins of equal counts for a number without point masses, besides the two outer bins."""

MAX_CATEGORY_VALUES = 50
"""The most values of a category that have their own bin."""

POINT_SHARE = 0.05
"""The smallest share of the reference at which a value has its own bin."""

FEW_VALUES = 20
"""A number with at most this many values has a bin for each that has `MIN_POINT_ROWS` rows."""

OUTER_SHARE = 0.005
"""The share of the reference in each of the two outer bins of a number."""

MIN_POINT_ROWS = 5
"""The fewest rows of the reference's sample with one value that make a point mass."""

MIN_BIN_ROWS, MIN_OUTER_ROWS = 20, 10
"""The fewest rows of the sample in a bin of equal counts, and in an outer bin. With fewer, the edges themselves depend
so much on chance that the chi-squared test finds too much: with 5 rows in each of ten bins 6 % instead of 1 %."""

_MIN_OTHER_BINS = 4
_NOISE = 2.0**-48
"""The relative difference of two doubles that are the same number after some arithmetic: 0.1 + 0.2 and 0.3."""
_SINGLE_PRECISION = 2.0**-23
"""The relative difference of a number and the same number after it was stored in 32 bits."""
_ZERO_NOISE = 1e-12
_WHOLE_WIDTH = 0.25
_LARGEST = 1e307
"""Larger numbers are binned as this one, so that no edge is infinite."""

Floats = npt.NDArray[np.float64]


def number_column(
    name: str, sample: npt.NDArray[np.generic], *, flag: bool = False, prediction: bool = False
) -> MonitoredColumn:
    """Return a number column with bins from a sample of the reference. Values that are not finite are ignored."""
    values = np.asarray(sample, dtype=np.float64)
    values = np.clip(values[np.isfinite(values)], -_LARGEST, _LARGEST)
    if flag or not len(values):
        return MonitoredColumn(name, "number", (0.5,), centre=0.5, is_prediction=prediction)
    points, edges = _bins(values)
    centre = float(np.median(values))
    return MonitoredColumn(name, "number", edges, points=points, centre=centre, is_prediction=prediction)


def category_column(name: str, counted: Sequence[tuple[str, int]], distinct: int | None = None) -> MonitoredColumn:
    """Return a category column. Of more values than `MAX_CATEGORY_VALUES` the others are in bins by their hash.

    Args:
        name: the name of the column.
        counted: the most frequent values of the reference with their rows, in any order.
        distinct: the number of all values of the reference; None when `counted` has all.
    """
    ordered = sorted(counted, key=lambda each: (-each[1], each[0]))
    values = tuple(value for value, _ in ordered[:MAX_CATEGORY_VALUES])
    has_all = (len(ordered) if distinct is None else distinct) <= len(values)
    return MonitoredColumn(name, "category", values=values, hashed=0 if has_all else HASHED_BINS)


def is_free_text(distinct: int, rows: int) -> bool:
    """Return whether a text has so many values that their shares say nothing: more than one for every two rows."""
    return distinct > MAX_CATEGORY_VALUES and 2 * distinct > rows


def text_column(name: str, counted: Sequence[tuple[str, int]], lengths: Floats, rows: int) -> MonitoredColumn:
    """Return a column of free text: bins for the few values that many rows have, and for the others by their length.

    Args:
        name: the name of the column.
        counted: the most frequent values of the reference with their rows.
        lengths: the lengths of a sample of the values, in characters.
        rows: the number of rows of the reference with a value.
    """
    ordered = sorted(counted, key=lambda each: (-each[1], each[0]))
    frequent = [value for value, found in ordered if found >= max(MIN_POINT_ROWS, POINT_SHARE * rows)]
    by_length = number_column(name, lengths)
    return MonitoredColumn(
        name, "text", by_length.edges, tuple(frequent), points=by_length.points, centre=by_length.centre
    )


def _bins(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the point masses, and the edges of all bins."""
    distinct, counts = np.unique(values + 0.0, return_counts=True)  # -0.0 is 0.0
    first, last, rows = _without_noise(distinct, counts)
    is_point = (rows >= MIN_POINT_ROWS) & ((rows >= POINT_SHARE * len(values)) | (len(rows) <= FEW_VALUES))
    points, edges = [], set()
    for place in np.flatnonzero(is_point):
        inside = slice(first[place], last[place] + 1)
        points.append(float(distinct[inside][np.argmax(counts[inside])]))
        edges |= _point_edges(points[-1], distinct, first[place], last[place])
    others = np.repeat(distinct, np.where(np.repeat(is_point, last - first + 1), 0, counts))
    edges |= _quantile_edges(others, len(values))
    return tuple(points), tuple(sorted(edges or {float(np.median(values))}))


def _without_noise(
    distinct: Floats, counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the runs of values that differ by rounding alone: the index of the first and last, and their rows."""
    width = _noise(distinct, distinct)
    begins = np.append(True, np.diff(distinct) > np.maximum(width[1:], width[:-1]))
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(distinct)) - 1
    return first, last, np.add.reduceat(counts, first)


def _noise(value: Floats, distinct: Floats) -> Floats:
    other_than_zero = np.abs(distinct[distinct != 0])
    near_zero = _NOISE * float(np.median(other_than_zero)) if len(other_than_zero) else _ZERO_NOISE
    width: Floats = np.maximum(_NOISE * np.abs(value), near_zero)
    return width


def _point_edges(value: float, distinct: Floats, first: int, last: int) -> set[float]:
    """Return the two edges around a point mass: wider than rounding, and far from the next value."""
    width = max(_SINGLE_PRECISION * abs(value), float(_noise(np.array([value]), distinct)[0]))
    if value == round(value):
        width = min(width, _WHOLE_WIDTH)
    low, high = float(distinct[first]), float(distinct[last])
    if first:
        width = min(width, (low - float(distinct[first - 1])) / 4)
    if last + 1 < len(distinct):
        width = min(width, (float(distinct[last + 1]) - high) / 4)
    return {low - width, max(high + width, float(np.nextafter(high, np.inf)))}


def _quantile_edges(values: Floats, rows: int) -> set[float]:
    """Return edges between sorted values: bins of equal counts, of which the outer two have `OUTER_SHARE` of the rows.

    Args:
        values: the values of the sample that are no point masses.
        rows: the number of all rows of the sample.
    """
    bins = min(max(_MIN_OTHER_BINS, -(-BINS * len(values) // rows)), len(values) // MIN_BIN_ROWS)
    if bins < 1:
        return set()
    outer = max(OUTER_SHARE * rows, MIN_OUTER_ROWS) / len(values)
    shares = [place / bins for place in range(1, bins)] + ([outer, 1 - outer] if outer < 1 / bins else [])
    return {float(edge) for edge in np.quantile(values, shares, method="higher")} if shares else set()
