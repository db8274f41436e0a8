"""The paired percentile bootstrap of every metric that is a function of column means.

The percentiles are widened for few rows (Hesterberg, The American Statistician 2015). Above 5,000 rows,
5,000 random groups of rows are resampled instead of rows, which leaves the variance unbiased (Wolter,
Introduction to Variance Estimation 2007, chapter 2) and the cost independent of the number of rows.
"""

from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from tasks.evaluation.rules.metrics import CALIBRATION_BINS, calibration_bins, row_log_loss
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray

RESAMPLES = 2_000
GROUPS = 5_000
CHUNK_RESAMPLES = 200


def bootstrap_bounds(
    metric: str, codes: EncodedTruth, champion: FloatArray, challenger: FloatArray, *, confidence: float, seed: int
) -> tuple[float, float, str]:
    """Return the bounds of `challenger - champion` over resamples of the same rows for both, and the method.

    Args:
        metric: any metric but auc and average_precision, which are no functions of means.
        codes: (rows,) as `encode_truth` returns them.
        champion: predictions as `check_predictions` returns them.
        challenger: the same, of the other model.
        confidence: of the two-sided interval, between 0 and 1.
        seed: of the resampling; the same seed draws the same rows.

    Returns:
        Lower and upper bound, NaN when a resample does not define the metric, and a name for the method.
    """
    generator = np.random.default_rng(seed)
    groups = min(len(codes), GROUPS)
    group = generator.permutation(len(codes)) % groups
    with np.errstate(
        over="ignore", divide="ignore", invalid="ignore"
    ):  # becomes NaN, which gives the outcome `cannot tell`
        sums = [_group_sums(metric, codes, each, group) for each in (champion, challenger)]
        differences = _resampled(metric, np.bincount(group), sums, generator)
    level = _percentile(groups, confidence)
    lower, upper = np.quantile(differences, [level, 1 - level])
    of_groups = f" of {GROUPS:,} groups of rows" if len(codes) > groups else ""
    return float(lower), float(upper), f"paired bootstrap, {RESAMPLES:,} resamples{of_groups}"


def _group_sums(metric: str, codes: EncodedTruth, predictions: FloatArray, group: npt.NDArray[np.int64]) -> FloatArray:
    """Return (groups, columns) the sums over each group's rows of the metric's columns."""
    columns = _columns(metric, codes, predictions)
    return np.stack([np.bincount(group, column) for column in columns], axis=1).astype(np.float64)


def _resampled(
    metric: str, rows: npt.NDArray[np.int64], sums: list[FloatArray], generator: np.random.Generator
) -> FloatArray:
    """Return (resamples,) differences, given each group's count of rows and sums (groups, columns)."""
    groups, parts = len(rows), []
    shift = np.arange(CHUNK_RESAMPLES)[:, None] * groups
    for _ in range(RESAMPLES // CHUNK_RESAMPLES):
        drawn = generator.integers(0, groups, (CHUNK_RESAMPLES, groups)) + shift
        times = (
            np.bincount(drawn.ravel(), minlength=CHUNK_RESAMPLES * groups)
            .reshape(CHUNK_RESAMPLES, groups)
            .astype(np.float64)
        )
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
