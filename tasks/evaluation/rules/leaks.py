"""Signs of a leak: a feature that alone predicts nearly perfectly, a metric at its limit, rows that repeat.

Each sign holds the gate under a name that people may waive with a reason: `leak in <feature>`, `perfect <metric>` and
`repeated rows`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray, TaskType, encode_truth
from tasks.shared.rules.promotion import REPEATED_ROWS_GATE, feature_leak_gate, perfect_metric_gate

MIN_ROWS = 50
"""With fewer holdout rows a sign of a leak is no better than chance, and none is looked for."""
MIN_CLASS_ROWS = 10
"""A class with fewer holdout rows does not count."""
STRONG_AUC, STRONG_CORRELATION = 0.99, 0.9999
"""The auc and the rank correlation from which a single feature predicts nearly perfectly; see decision 0016.

An honest earlier value of a persistent target, such as yesterday's load, has a rank correlation of 0.99 and more.
"""
LIMIT = 0.9999
"""From here on auc or r2 is at its limit of 1."""
REPEATED_SHARE, MIN_REPEATED = 0.02, 5
"""The share and the number of holdout rows equal to a training row, beyond chance, that hold the gate."""
MAX_COMPARED = 20_000
"""The most holdout rows that are compared with the training rows."""
MAX_COPIES = 20
"""Rows that more training rows equal than this are common ones, not copies."""
DEPENDENCE = 1.5
"""How many times as often rows repeat as `_repeated_rows` expects, since columns depend on each other."""
MAX_CELLS, MAX_ROWS = 8_000_000, 200_000
"""The most cells and rows of each side that are read for these checks; see `sampled_rows`."""
MIN_SAMPLE = 5_000
"""However many classes there are, so many rows are read if there are and the columns allow."""
BINS = 256
"""The most bins of a number; see `_levels`."""


@dataclass(frozen=True)
class LeakFinding:
    """A sign of a leak: the gate that it holds, and the sentence with the remedy."""

    gate: str
    sentence: str


@dataclass(frozen=True)
class LeakSearch:
    """The result of the search for leaks.

    Attributes:
        findings: the signs that hold the gate.
        strongest: the five strongest features with their power (auc, or rank correlation for a regression).
        checked_rows: holdout rows that were compared with training rows.
        notes: what could not be checked, and why.
    """

    findings: tuple[LeakFinding, ...] = ()
    strongest: tuple[tuple[str, float], ...] = ()
    checked_rows: int = 0
    notes: tuple[str, ...] = ()


def sampled_rows(rows: int, columns: int, classes: int = 1) -> int:
    """Return how many of `rows` are read, evenly spaced, so that many columns or classes cost no more than few.

    Every feature is ranked once for each of three `classes` or more; two cost what one costs.
    """
    allowed = MAX_CELLS // max(1, columns)
    each = min(allowed, max(MIN_SAMPLE, allowed // (classes if classes > 2 else 1)))
    return min(rows, MAX_ROWS, max(MIN_ROWS, each))


def sample_positions(rows: int, chosen: int) -> npt.NDArray[np.int64]:
    """Return `chosen` positions among `rows`, evenly spaced."""
    return np.asarray(np.arange(chosen) * rows // max(1, chosen), dtype=np.int64)


def search_leaks(
    *,
    task: TaskType,
    classes: Sequence[str],
    features: Mapping[str, str],
    target: str,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    train_rows: int,
    entity: str = "",
) -> LeakSearch:
    """Look for single features that reveal the target, and for training rows that the holdout repeats.

    Args:
        features: the features with their kinds.
        train: a sample of the training rows, with features and target; evenly spaced rows.
        holdout: the holdout rows, or such a sample.
        train_rows: how many training rows there are in all.
        entity: the column whose equal values name one entity that may be on both sides; rows of the same entity are
            no repeats. "": each row is an entity of its own.
    """
    if len(holdout) < MIN_ROWS or len(train) < MIN_ROWS:
        few = f"Leaks were not looked for: fewer than {MIN_ROWS} rows for training or in the holdout."
        return LeakSearch(notes=(few,))
    truths = [encode_truth(task, classes, rows[target]) for rows in (train, holdout)]
    power = {name: _feature_power(task, kind, name, train, holdout, *truths) for name, kind in features.items()}
    known = {name: value for name, value in power.items() if np.isfinite(value)}
    notes = () if known else ("No feature was checked alone: the holdout has too few rows of each class.",)
    strongest = sorted(known.items(), key=lambda each: -each[1])
    findings = [_feature_finding(name, value, task, target, len(holdout)) for name, value in strongest]
    repeats = _repeated_rows(train, holdout, [*features, target], entity)
    found = (*filter(None, findings), *_repeat_finding(repeats, len(train) / max(train_rows, len(train))))
    return LeakSearch(found, tuple(strongest[:5]), len(holdout), notes)


def perfect_metrics(task: TaskType, codes: EncodedTruth, metrics: Mapping[str, float]) -> Iterator[LeakFinding]:
    """Yield a finding for the metric that is at its limit: auc or accuracy of a classification, r2 of a regression.

    The others reach their limit with these, or reach it without a leak: a rare class makes the Brier score small.
    """
    few = task != "regression" and np.unique(codes, return_counts=True)[1].min(initial=len(codes)) < MIN_CLASS_ROWS
    if len(codes) < MIN_ROWS or few:
        return
    for metric, limit in (("r2", LIMIT),) if task == "regression" else (("auc", LIMIT), ("accuracy", 1.0)):
        value = metrics.get(metric, float("nan"))
        if value >= limit:
            sentence = f"{metric} is {value:.6g}, at its limit of 1, on {len(codes):,} holdout rows. "
            sentence += "Real data are hardly ever that easy: look for a feature that is known only after the outcome. "
            yield LeakFinding(perfect_metric_gate(metric), sentence + _waive(perfect_metric_gate(metric)))


def _waive(gate: str) -> str:
    return f"If it is right, waive the gate `{gate}` with the reason."


def _feature_finding(name: str, power: float, task: TaskType, target: str, rows: int) -> LeakFinding | None:
    measure, limit = ("rank correlation", STRONG_CORRELATION) if task == "regression" else ("auc", STRONG_AUC)
    if power < limit:
        return None
    sentence = f"{name} alone predicts {target} nearly perfectly ({measure} {power:.6g} on {rows:,} holdout rows, "
    sentence += f"where {limit:g} is suspicious): it may be known only after the outcome, or be a copy of it. "
    return LeakFinding(feature_leak_gate(name), sentence + f"Remove it. {_waive(feature_leak_gate(name))}")


def _feature_power(
    task: TaskType,
    kind: str,
    name: str,
    train: pd.DataFrame,
    holdout: pd.DataFrame,
    train_truth: EncodedTruth,
    holdout_truth: EncodedTruth,
) -> float:
    """Return how well one feature alone predicts the target of the holdout: auc, or rank correlation.

    The feature's levels (bins of a number; null is a level) get the training rows' mean of the target, and the means
    are the score of the holdout rows. So a direction, a curve and missing values count alike. For several classes it
    is the mean auc of one class against the others, for a regression Spearman's correlation. A number without nulls
    is a score by itself, too, in both directions: bins of few rows are coarse.
    """
    known, asked = _levels(kind, train[name], holdout[name])
    own = _finite(holdout[name]) if kind == "number" and not holdout[name].isna().any() else None
    if task == "regression":
        scores = _level_means(known, asked, _ranks(train_truth) / len(train_truth))
        found = [_correlation(each, holdout_truth) for each in (scores, own) if each is not None]
        return float(np.nanmax(np.abs(found))) if np.isfinite(found).any() else float("nan")
    codes = [1] if task == "binary" else np.unique(holdout_truth).tolist()
    found = [_auc(_level_means(known, asked, train_truth == code), holdout_truth == code) for code in codes]
    means = [float(np.mean([each for each in found if np.isfinite(each)] or [np.nan]))]
    if task == "binary" and own is not None:
        means += [_auc(own, holdout_truth == 1), 1 - _auc(own, holdout_truth == 1)]
    return max(means)


def _levels(kind: str, known: pd.Series, asked: pd.Series) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the levels of a feature as codes; -1 is null. A number has up to 256 bins, by the training rows.

    The bins are between quantiles, and a quantile itself is a level: a point mass does not hide what is beside it.
    """
    if kind != "number":
        codes, _ = pd.factorize(pd.concat([known, asked], ignore_index=True).astype(object))
        return codes[: len(known)], codes[len(known) :]
    numbers = [_finite(each) for each in (known, asked)]
    filled = numbers[0][~np.isnan(numbers[0])]
    shares = np.linspace(0, 1, max(2, min(BINS, len(filled) // 5)) + 1)
    edges = np.unique(np.quantile(filled, shares, method="nearest")) if len(filled) else np.zeros(1)
    found = [np.searchsorted(edges, each, "left") + np.searchsorted(edges, each, "right") for each in numbers]
    left, right = (np.where(np.isnan(each), -1, code) for each, code in zip(numbers, found, strict=True))
    return left, right


def _finite(values: pd.Series) -> FloatArray:
    """Return numbers as float64: NaN for null, and the largest number for infinity."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(np.nan_to_num(numbers, nan=np.nan), dtype=np.float64)


def _level_means(known: npt.NDArray[np.int64], asked: npt.NDArray[np.int64], target: FloatArray) -> FloatArray:
    """Return (asked rows,) the mean of the target in the training rows of the same level; of all rows for a new one."""
    size, prior = int(max(known.max(initial=0), asked.max(initial=0))) + 2, float(np.mean(target))
    counts = np.bincount(known + 1, minlength=size)
    sums = np.bincount(known + 1, weights=np.asarray(target, dtype=np.float64), minlength=size)
    return np.asarray(((sums + prior) / (counts + 1))[asked + 1], dtype=np.float64)


def _ranks(values: npt.NDArray[np.float64]) -> FloatArray:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def _correlation(left: FloatArray, right: FloatArray) -> float:
    """Return Spearman's rank correlation; NaN for a constant."""
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    return float(np.corrcoef(_ranks(left), _ranks(right))[0, 1])


def _auc(scores: FloatArray, positive: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve by ranks (Mann and Whitney 1947); NaN with too few rows of either kind."""
    count = int(positive.sum())
    if min(count, len(positive) - count) < MIN_CLASS_ROWS:
        return float("nan")
    above = _ranks(scores)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * (len(positive) - count)))


@dataclass(frozen=True)
class _Repeats:
    """Of `compared` holdout rows `found` equal a training row; chance explains the others than `unexplained`."""

    compared: int
    found: int
    unexplained: float


def _repeat_finding(repeats: _Repeats, train_share: float) -> Iterator[LeakFinding]:
    share = min(1.0, repeats.unexplained / (repeats.compared * train_share))
    if repeats.unexplained >= MIN_REPEATED and share >= REPEATED_SHARE:
        sample = f", compared with {train_share:.1%} of the training rows" if train_share < 1 else ""
        sentence = f"About {share:.1%} of the holdout rows repeat a training row under another key: "
        sentence += f"{repeats.found:,} of {repeats.compared:,} are equal in all features and the target, "
        sentence += f"{repeats.unexplained:,.0f} more than chance explains{sample}. "
        sentence += "Remove the repeats from the source, or give them one key. "
        yield LeakFinding(REPEATED_ROWS_GATE, sentence + _waive(REPEATED_ROWS_GATE))


def _repeated_rows(train: pd.DataFrame, holdout: pd.DataFrame, columns: Sequence[str], entity: str) -> _Repeats:
    """Count the holdout rows that equal another entity's training row, and those beyond what chance explains.

    Equal training rows of one entity count once. Rows of few, coarse columns repeat by nature. Two estimates of how
    many; the excess over either one counts:

    - Rows that differ in one column. Where `m` training rows equal a row in all columns but one, and a share `p` of
      the training rows has its value of that column, `e = m * p` equal rows are expected (the equal rows themselves
      count for neither), and at least one with probability `1 - exp(-e)`. The largest `e` over the columns
      counts, and 1.5 times that many rows: columns depend on each other. Finds also a table that was doubled.
    - Training rows that equal another entity's. By exchangeability no more holdout rows do, but for 4 standard
      deviations, of as many draws as entities. Finds training rows that were copied into the holdout, in coarse
      tables, too.
    """
    rows, many = len(train), len(train) + len(holdout)
    each_row = pd.Series(range(many))
    known, asked = (train[entity], holdout[entity]) if entity else (each_row[:rows], each_row[rows:])
    owner, entities = _column_hashes(known, asked, len(columns))
    hashes = np.zeros(many, dtype=np.uint64)
    for place, name in enumerate(columns):
        hashes += _column_hashes(train[name], holdout[name], place)[0]
    once = np.unique((hashes + owner)[:rows], return_index=True)[1]
    chosen = rows + sample_positions(len(holdout), min(len(holdout), MAX_COMPARED))
    equal = _count_others(hashes, owner, once, chosen)
    found, compared = int((equal > 0).sum()), len(chosen)
    if found < MIN_REPEATED:
        return _Repeats(compared, found, 0.0)
    expected = np.zeros(compared)
    for place, name in enumerate(columns):
        own, values = _column_hashes(train[name], holdout[name], place)
        near = _count_others(hashes - own, owner, once, chosen) - equal
        usual = _count_others(values.astype(np.uint64), owner, once, chosen) - equal
        expected = np.maximum(expected, near * usual / len(once))
    expected = np.where(equal > MAX_COPIES, np.inf, expected)
    over_neighbours = found - DEPENDENCE * float((1 - np.exp(-expected)).sum())
    within = float((_count_others(hashes, owner, once, np.arange(rows)) > 0).mean())
    draws = [len(np.unique(entities[each])) for each in (np.arange(rows), chosen)]
    spread = np.sqrt(within * (1 - within) * (1 / draws[0] + 1 / draws[1]))
    over_training = found - compared * (within + 4 * spread)
    return _Repeats(compared, found, max(over_neighbours, over_training, 0.0))


def _column_hashes(
    known: pd.Series, asked: pd.Series, place: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return 64-bit hashes of a column's values (splitmix64 of value and place), and the values' codes; -1 is null."""
    codes, _ = pd.factorize(pd.concat([known, asked], ignore_index=True))
    mixed = (codes + 2).astype(np.uint64) + np.uint64((place + 1) << 32)
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31)), codes


def _count_others(
    values: npt.NDArray[np.uint64],
    owner: npt.NDArray[np.uint64],
    known: npt.NDArray[np.int64],
    asked: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Return how many of the `known` rows of other owners have the value of each of the `asked` rows."""
    return _count(values, known, asked) - _count(values + owner, known, asked)


def _count(
    values: npt.NDArray[np.uint64], known: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return how many of the `known` rows have the value of each of the `asked` rows."""
    ordered = np.sort(values[known])
    return np.searchsorted(ordered, values[asked], "right") - np.searchsorted(ordered, values[asked], "left")
