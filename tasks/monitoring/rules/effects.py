"""How far two distributions are apart, and whether chance alone would do that.

The population stability index is the symmetric Kullback-Leibler divergence of the shares by bin. Of rows that
differ by chance alone it is not 0 but about (bins - 1)(1/n + 1/m) (Yurdakul, 2018): that is taken off, so that a
small window is not judged by its size. A shift of a normal variable by d standard deviations has an index of d²;
0.1 is called a moderate and 0.25 a large change wherever the index is used.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_SMOOTHING_ROWS = 0.5
_MIN_EXPECTED_ROWS = 5.0


def stability_index(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return the population stability index of two counts by the same bins, less what chance makes; at least 0.

    NaN when one of them has no rows. Half a row is added to each bin, so that an empty one is no infinity.
    """
    expected, found = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    n, m = expected.sum(), found.sum()
    if not n or not m:
        return float("nan")
    p = (expected + _SMOOTHING_ROWS) / (n + _SMOOTHING_ROWS * len(expected))
    q = (found + _SMOOTHING_ROWS) / (m + _SMOOTHING_ROWS * len(found))
    filled = int(((expected > 0) | (found > 0)).sum())
    index = float(((q - p) * np.log(q / p)).sum())
    return max(0.0, index - float((filled - 1) * (1 / n + 1 / m)))


def homogeneity_p_value(reference: Sequence[int], current: Sequence[int]) -> float:
    """Return the probability of counts at least so different by chance: chi-squared of homogeneity; 1 when alike.

    Bins with fewer than five expected rows are taken together, the rarest first.
    """
    from scipy.stats import chi2_contingency  # more than a second to import

    table = _merge_rare_bins(np.array([reference, current], dtype=np.float64))
    if (table.sum(axis=1) == 0).any():  # without rows nothing is expected, which SciPy refuses
        return 1.0
    return float(chi2_contingency(table, correction=False).pvalue)


def proportions_p_value(a: int, n: int, b: int, m: int) -> float:
    """Return the probability by chance of shares a/n and b/m at least so different."""
    return homogeneity_p_value((a, n - a), (b, m - b))


def holm_significant(chances: Mapping[str, float], level: float) -> frozenset[str]:
    """Return which of many tests are beyond chance, so that one false one among all has at most probability `level`.

    Holm (Scandinavian Journal of Statistics 1979). A chance that is NaN counts as 1: it was not measured.
    """
    from statsmodels.stats.multitest import multipletests  # imports scipy.stats and pandas

    known = np.nan_to_num(np.array([*chances.values()], dtype=np.float64), nan=1.0)  # NaN would be rejected
    rejected = multipletests(known, alpha=level, method="holm")[0]
    return frozenset(name for name, beyond in zip(chances, rejected, strict=True) if beyond)


def _merge_rare_bins(table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the table (2, bins) with rare bins taken together until each has five expected rows in both."""
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
