"""Confidence intervals of the difference between two models that predicted the same rows.

- auc: DeLong, DeLong and Clarke-Pearson (Biometrics 1988), in O(n log n) by sorting as Sun and Xu (IEEE
  Signal Processing Letters 2014) do; several classes: each row's components averaged over the classes.
- average_precision: infinitesimal jackknife (Efron 1982), from the influence of each row.
- all others, which are functions of column means: the paired percentile bootstrap. The percentiles are widened for
  few rows (Hesterberg, The American Statistician 2015). Above 5,000 rows, 5,000 random groups of rows are
  resampled instead of rows, which leaves the variance unbiased (Wolter, Introduction to Variance Estimation
  2007, chapter 2) and the cost independent of the number of rows.

A bound at a smaller level than the interval's, such as 0.01 %, is beyond what 2,000 resamples show. It is computed from
the rows' influences: estimate ± Student's quantile × standard error, widened where the influences are skewed (Hall, On
the removal of skewness by transformation, JRSS B 1992). It is never within the interval. It can allow for the luck of
training, too: another draw of as many training rows would give other models. Nadeau and Bengio (Inference for the
Generalization Error, Machine Learning 2003) multiply the variance by 1 + holdout rows / training rows, for two programs
that are trained on the same rows. Champion and challenger are trained on different ones, so the ratio is added twice.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.evaluation.rules.metrics import CALIBRATION_BINS, calibration_bins, row_log_loss
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray

MIN_DIFFERING_ROWS = 10
"""With fewer differing rows, or fewer rows of a class, no interval is computed."""

RANK_METRICS = ("auc", "average_precision")

RESAMPLES = 2_000
GROUPS = 5_000
CHUNK_RESAMPLES = 200


@dataclass(frozen=True)
class Interval:
    """The interval of `challenger - champion` in the metric's own direction.

    `method` is how it was computed; `insufficiency` is why the rows do not suffice for one, or "". `level_lower` and
    `level_upper` are the one-sided bounds at the level that was asked for.
    """

    lower: float
    upper: float
    method: str
    insufficiency: str
    level_lower: float
    level_upper: float


def paired_interval(
    metric: str,
    codes: EncodedTruth,
    champion: FloatArray,
    challenger: FloatArray,
    *,
    confidence: float,
    level: float,
    seed: int,
    training_rows: float = math.inf,
) -> Interval:
    """Return the interval for encoded truth and checked predictions. Too few rows give bounds that are NaN.

    Args:
        metric: one of the task's metrics.
        codes: (rows,) as `encode_truth` returns them.
        champion: the champion's predictions, as `check_predictions` returns them.
        challenger: the challenger's predictions, the same.
        confidence: of the two-sided interval, between 0 and 1.
        level: of the one-sided bounds, from 0 to (1 - confidence) / 2.
        seed: of the resampling; the same seed draws the same rows.
        training_rows: the rows that a model trains on, when the bounds at `level` allow for the luck of training.
    """
    if insufficiency := _insufficient_rows_reason(metric, codes, champion, challenger):
        return no_interval("none", insufficiency)
    ranks = metric in RANK_METRICS
    influenced = _mean_influence if ranks else _columns_influence
    # What overflows becomes NaN, which gives the outcome `cannot tell`.
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        old, new = (influenced(metric, codes, each) for each in (champion, challenger))
        difference, influence = new[0] - old[0], new[1] - old[1]
        if ranks:
            interval = _normal_interval(metric, difference, influence, confidence)
        else:
            interval = _bootstrap_interval(metric, codes, champion, challenger, confidence=confidence, seed=seed)
        lower, upper = bounds_at(level, difference, influence, training_rows)
    if level >= (1 - confidence) / 2 and math.isinf(training_rows):
        return interval
    outer = float(np.minimum(interval.lower, lower)), float(np.maximum(interval.upper, upper))  # NaN if either is
    return replace(interval, level_lower=outer[0], level_upper=outer[1])


def no_interval(method: str, insufficiency: str, bound: float = float("nan")) -> Interval:
    """Return an interval whose bounds are all NaN, or all the same number."""
    return Interval(bound, bound, method, insufficiency, bound, bound)


def _insufficient_rows_reason(metric: str, codes: EncodedTruth, champion: FloatArray, challenger: FloatArray) -> str:
    """Return why the rows are too few for an interval; "" when they suffice."""
    changed = _compared_part(metric, codes, champion) != _compared_part(metric, codes, challenger)
    differing = int(np.count_nonzero(changed.reshape(len(codes), -1).any(axis=1)))
    if differing < MIN_DIFFERING_ROWS:
        return f"the models differ on {differing:,} of {len(codes):,} rows, fewer than {MIN_DIFFERING_ROWS}"
    if metric in RANK_METRICS:
        counts = np.bincount(codes, minlength=champion.shape[1])
        smallest = int(min(counts.min(), (len(codes) - counts).min()))
        if smallest < MIN_DIFFERING_ROWS:
            return f"a class has {smallest} rows, fewer than {MIN_DIFFERING_ROWS}"
    return ""


def _compared_part(metric: str, codes: EncodedTruth, predictions: FloatArray) -> npt.NDArray[Any]:
    """Return the part of the predictions that the metric depends on."""
    if metric == "accuracy":
        return np.asarray(predictions.argmax(axis=1) == codes)
    return predictions.argmax(axis=1) if metric == "f1_macro" else predictions


def _normal_interval(metric: str, difference: float, influence: FloatArray, confidence: float) -> Interval:
    """Return estimate ± quantile × standard error, for a metric whose rows' influences are known."""
    error = float(np.sqrt((influence**2).sum())) / len(influence)
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * error
    method = "DeLong" if metric == "auc" else "infinitesimal jackknife"
    lower, upper = difference - reach, difference + reach
    return Interval(lower, upper, method, "", lower, upper)


def bounds_at(
    level: float, difference: float, influence: FloatArray, training_rows: float = math.inf
) -> tuple[float, float]:
    """Return the one-sided bounds at a level: Student's, each widened by Hall's correction where that is wider.

    The correction is not used to narrow: at such levels the rows do not show the tail that would justify it.
    """
    from scipy.special import stdtrit  # half a second to import

    rows, deviation = len(influence), float(np.sqrt((influence**2).mean()))
    if deviation == 0:
        return difference, difference
    quantile = -float(stdtrit(rows - 1, level)) if level > 0 else math.inf
    error = deviation * math.sqrt(1 / rows + 2 / training_rows)
    skewness = float((influence**3).mean()) / deviation**3
    below, above = (np.maximum(quantile, _halls_quantile(quantile, each, rows)) for each in (skewness, -skewness))
    return float(difference - below * error), float(difference + above * error)


def _halls_quantile(quantile: float, skewness: float, rows: int) -> float:
    """Return the quantile of the studentised mean of skewed rows, given that of rows without skewness.

    It solves Hall's cubic transformation with a = 1/3 and b = 1/6, his values for a mean.
    """
    root = np.sqrt(rows)
    if abs(skewness) < 1e-9:
        return quantile
    return float(3 * root / skewness * (np.cbrt(1 + skewness * (quantile / root - skewness / (6 * rows))) - 1))


def _mean_influence(metric: str, codes: EncodedTruth, predictions: FloatArray) -> tuple[float, FloatArray]:
    """Return the metric and each row's influence; auc of several classes is the mean over the classes."""
    if metric == "average_precision":
        return average_precision_influence(codes == 1, predictions[:, 1])
    columns = range(1, 2) if predictions.shape[1] == 2 else range(predictions.shape[1])
    parts = [auc_influence(codes == column, predictions[:, column]) for column in columns]
    values, influences = zip(*parts, strict=True)
    return float(np.mean(values)), np.asarray(np.mean(influences, axis=0))


def auc_influence(positive: npt.NDArray[np.bool_], scores: FloatArray) -> tuple[float, FloatArray]:
    """Return auc and each row's influence on it: `sqrt(sum(influence**2)) / rows` is DeLong's error.

    Args:
        positive: (rows,) whether the row is of the positive class; at least two rows of either kind.
        scores: (rows,) larger means more likely positive; ties count one half.
    """
    influence = np.empty(len(scores))
    for side, placements in (
        (positive, _share_below(scores[positive], scores[~positive])),
        (~positive, 1 - _share_below(scores[~positive], scores[positive])),
    ):
        rows = len(placements)
        scale = len(scores) / np.sqrt(rows * (rows - 1))  # the sample variance's rows - 1, as DeLong has it
        influence[side] = (placements - placements.mean()) * scale
        auc = float(placements.mean())
    return auc, influence


def _share_below(scores: FloatArray, others: FloatArray) -> FloatArray:
    """Return for each score the share of `others` below it, those equal to it counted one half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(below / (2 * len(others)), dtype=np.float64)


def average_precision_influence(positive: npt.NDArray[np.bool_], scores: FloatArray) -> tuple[float, FloatArray]:
    """Return average precision and each row's influence on it (its derivative by the row's weight).

    With H(s) the share of rows scored s or more, H1(s) that of positive ones and p the share of positives,
    the metric is E[Y H1(S) / H(S)] / p. Differentiated, the row (s, y) has the influence
    (y H1(s)/H(s) + y E[Y'/H(S'); S' <= s] - E[Y' H1(S')/H(S')²; S' <= s] - y metric) / p.
    """
    rows, above = len(scores), np.sort(scores[positive])
    at_least = rows - np.searchsorted(np.sort(scores), scores, "left")
    precision = (len(above) - np.searchsorted(above, scores, "left")) / at_least
    metric = float(precision[positive].mean())
    upwards = np.argsort(scores[positive], kind="stable")
    ended = np.searchsorted(above, scores, "right")
    gained = _prefix_sums(1 / at_least[positive][upwards])[ended]
    lost = _prefix_sums((precision / at_least)[positive][upwards])[ended]
    share = len(above) / rows
    return metric, (positive * (precision + gained - metric) - lost) / share


def _prefix_sums(values: FloatArray) -> FloatArray:
    """Return the sums of the first 0, 1, … values."""
    return np.concatenate(([0.0], np.cumsum(values)))


def _bootstrap_interval(
    metric: str, codes: EncodedTruth, champion: FloatArray, challenger: FloatArray, *, confidence: float, seed: int
) -> Interval:
    """Return percentiles over resamples of the same rows for both; NaN when a resample does not define the metric."""
    generator = np.random.default_rng(seed)
    groups = min(len(codes), GROUPS)
    group = generator.permutation(len(codes)) % groups
    sums = [_group_sums(metric, codes, each, group) for each in (champion, challenger)]
    differences = _resampled(metric, np.bincount(group), sums, generator)
    percentile = _percentile(groups, confidence)
    lower, upper = map(float, np.quantile(differences, [percentile, 1 - percentile]))
    of_groups = f" of {GROUPS:,} groups of rows" if len(codes) > groups else ""
    return Interval(lower, upper, f"paired bootstrap, {RESAMPLES:,} resamples{of_groups}", "", lower, upper)


def _group_sums(metric: str, codes: EncodedTruth, predictions: FloatArray, group: npt.NDArray[np.int64]) -> FloatArray:
    """Return (groups, columns) the sums over each group's rows of the metric's columns."""
    sums = [np.bincount(group, column) for column in _columns(metric, codes, predictions)]
    return np.stack(sums, axis=1).astype(np.float64)


def _resampled(
    metric: str, rows: npt.NDArray[np.int64], sums: list[FloatArray], generator: np.random.Generator
) -> FloatArray:
    """Return (resamples,) differences, given each group's count of rows and sums (groups, columns)."""
    groups, parts = len(rows), []
    shift = np.arange(CHUNK_RESAMPLES)[:, None] * groups
    for _ in range(RESAMPLES // CHUNK_RESAMPLES):
        drawn = generator.integers(0, groups, (CHUNK_RESAMPLES, groups)) + shift
        counts = np.bincount(drawn.ravel(), minlength=CHUNK_RESAMPLES * groups)
        times = counts.reshape(CHUNK_RESAMPLES, groups).astype(np.float64)
        size = (times @ rows)[:, None]
        champion, challenger = (_metric_of_means(metric, times @ each / size) for each in sums)
        parts.append(challenger - champion)
    return np.concatenate(parts)


def _percentile(groups: int, confidence: float) -> float:
    """Return the lower percentile level, widened as Student's t is wider than the normal distribution."""
    from scipy.special import stdtrit  # half a second to import

    quantile = float(stdtrit(groups - 1, (1 - confidence) / 2))
    return NormalDist().cdf(quantile * np.sqrt(groups / (groups - 1)))


def _columns(metric: str, codes: EncodedTruth, predictions: FloatArray) -> Iterator[FloatArray]:
    """Yield the columns (rows,) from whose means the metric is computed."""
    if metric == "log_loss":
        yield row_log_loss(codes, predictions)
    elif metric == "brier":
        yield (predictions[:, 1] - codes) ** 2
    elif metric == "accuracy":
        yield (predictions.argmax(axis=1) == codes).astype(np.float64)
    elif metric == "mae":
        yield np.abs(predictions - codes)
    elif metric in ("rmse", "r2"):
        centred = codes - codes.mean()  # so that the variance below does not cancel
        yield from ((predictions - codes) ** 2, centred, centred**2)
    elif metric == "f1_macro":
        yield from _f1_columns(codes, predictions)
    elif metric == "calibration_error":
        bins, gaps = calibration_bins(predictions[:, 1]), codes - predictions[:, 1]
        yield from (np.where(bins == each, gaps, 0.0) for each in range(CALIBRATION_BINS))
    else:
        raise NotImplementedError(f"there is no interval for the metric {metric!r}")


def _columns_influence(metric: str, codes: EncodedTruth, predictions: FloatArray) -> tuple[float, FloatArray]:
    """Return a metric of column means and each row's influence on it: its derivative by the row's weight."""
    means = np.array([column.mean() for column in _columns(metric, codes, predictions)])
    step = np.cbrt(np.finfo(np.float64).eps) * np.maximum(np.abs(means), np.abs(means).max())  # of central differences
    around = _metric_of_means(metric, np.concatenate((means + np.diag(step), means - np.diag(step))))
    slopes = (around[: len(means)] - around[len(means) :]) / (2 * step)
    columns = zip(slopes, _columns(metric, codes, predictions), means, strict=True)
    influence = sum((slope * (column - mean) for slope, column, mean in columns), np.zeros(len(codes)))
    return float(_metric_of_means(metric, means[None])[0]), influence


def _f1_columns(codes: EncodedTruth, predictions: FloatArray) -> Iterator[FloatArray]:
    """Yield for each class: twice the true positives, then predicted plus true members."""
    chosen = predictions.argmax(axis=1)
    for each in range(predictions.shape[1]):
        yield 2.0 * ((chosen == each) & (codes == each))
        yield 1.0 * (chosen == each) + (codes == each)


def _metric_of_means(metric: str, means: FloatArray) -> FloatArray:
    """Return (resamples,) the metric from the means (resamples, columns) of its columns."""
    if metric == "rmse":
        return np.asarray(np.sqrt(means[:, 0]))
    if metric == "r2":
        return np.asarray(1 - means[:, 0] / (means[:, 2] - means[:, 1] ** 2))
    if metric == "f1_macro":
        return np.asarray(np.nanmean(means[:, 0::2] / means[:, 1::2], axis=1))
    if metric == "calibration_error":
        return np.asarray(np.abs(means).sum(axis=1))
    return means[:, 0]
