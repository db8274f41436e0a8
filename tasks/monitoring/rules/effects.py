"""Effect sizes and significance tests for the difference of two distributions.

The population stability index is the symmetric Kullback-Leibler divergence of the shares by bin. Between two samples
of the same distribution its expected value is about (bins - 1)(1/n + 1/m) (Yurdakul, 2018). This is subtracted, so
that small windows have no larger index. A shift of a normal variable by d standard deviations has an index of d². By
convention 0.1 is a moderate change, and 0.25 a large one.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_SMOOTHING_ROWS = 0.5
_MIN_EXPECTED_ROWS = 5.0


def stability_index(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return the population stability index of two counts with the same bins, without its expected value; at least 0.

    It is NaN when one side has no rows. Half a row is added to each bin that has rows, so that a bin without rows on
    one side gives no infinity.
    """
    counts = np.array([reference, current], dtype=np.float64)
    before, now = counts[:, counts.sum(axis=0) > 0]
    n, m = before.sum(), now.sum()
    if not n or not m:
        return float("nan")
    p = (before + _SMOOTHING_ROWS) / (n + _SMOOTHING_ROWS * len(before))
    q = (now + _SMOOTHING_ROWS) / (m + _SMOOTHING_ROWS * len(now))
    index = float(((q - p) * np.log(q / p)).sum())
    return max(0.0, index - float((len(p) - 1) * (1 / n + 1 / m)))


def homogeneity_p_value(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return the p-value of the hypothesis that both counts are of one distribution; 1 for equal counts.

    The test is chi-squared, where bins with fewer than five expected rows are merged, the rarest first. Merging hides
    rows in bins that were empty before. So the rows of all rare bins together are tested as well, exactly (Fisher), and
    the smaller p-value counts twice (Bonferroni). Both tests choose bins by the sum of both sides alone.
    """
    from scipy.stats import chi2_contingency  # more than a second to import

    table = np.array([reference, current], dtype=np.float64)
    sides = table.sum(axis=1)
    if not sides.size or (sides == 0).any():  # SciPy refuses a side without rows
        return 1.0
    merged = _merge_rare_bins(table)
    p_values = [float(chi2_contingency(merged, correction=False).pvalue)] if merged.shape[1] > 1 else []
    is_rare = table.sum(axis=0) * sides.min() / sides.sum() < _MIN_EXPECTED_ROWS
    rare = table[:, is_rare].sum(axis=1)
    if 0 < rare.sum() < sides.sum():
        p_values.append(_exact_p_value(rare, sides))
    return min(1.0, len(p_values) * min(p_values)) if p_values else 1.0


def _exact_p_value(inside: npt.NDArray[np.float64], sides: npt.NDArray[np.float64]) -> float:
    """Return Fisher's exact p-value of the difference of two shares: twice that of the side on which it is."""
    from scipy.stats import hypergeom

    rows, first_side, drawn = (int(number) for number in (sides.sum(), sides[0], inside.sum()))
    first = hypergeom(rows, first_side, drawn)  # SciPy's work grows with the number of drawn rows
    at = int(inside[0])
    return min(1.0, 2 * min(float(first.cdf(at)), float(first.sf(at - 1))))


def proportions_p_value(a: int, n: int, b: int, m: int) -> float:
    """Return the p-value of the difference of the shares a/n and b/m."""
    return homogeneity_p_value((a, n - a), (b, m - b))


def holm_significant(p_values: Mapping[str, float], level: float) -> frozenset[str]:
    """Return the names of the significant tests. The probability of any false one is at most `level`.

    The method is Holm's (Scandinavian Journal of Statistics 1979). A p-value of NaN counts as 1: it was not measured.
    Why not by statsmodels: docs/decisions/0009-holm.md.
    """
    known = {name: 1.0 if math.isnan(value) else value for name, value in p_values.items()}
    significant: set[str] = set()
    for rank, name in enumerate(sorted(known, key=known.__getitem__)):
        if known[name] > level / (len(known) - rank):
            break
        significant.add(name)
    return frozenset(significant)


def _merge_rare_bins(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the table (2, bins) with rare bins merged, until each has five expected rows on both sides."""
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2 or table.sum() == 0:
        return table
    least = table.sum(axis=1).min() / table.sum()
    ordered = table[:, np.argsort(table.sum(axis=0), kind="stable")]
    columns: list[npt.NDArray[np.float64]] = []
    held = np.zeros(2)
    for column in ordered.T:
        held = held + column
        if held.sum() * least >= _MIN_EXPECTED_ROWS:
            columns.append(held)
            held = np.zeros(2)
    if held.sum():
        if columns:
            columns[-1] = columns[-1] + held
        else:
            columns.append(held)
    return np.array(columns).T
