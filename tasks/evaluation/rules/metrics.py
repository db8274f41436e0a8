"""The metrics of the three task types, over all rows and by slice, computed by scikit-learn.

A metric that the rows do not define (auc of a single class, r2 of a constant target) is NaN, never a default such
as 0 or 1: the gate holds a model with a NaN metric.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.evaluation.rules.predictions import (
    EncodedTruth,
    FloatArray,
    TaskType,
)
from tasks.shared.rules.model.parts import SliceFloor
from tasks.shared.rules.refusal import Refusal

CALIBRATION_BINS = 10

_HIGHER_IS_BETTER = {
    "auc": True,
    "average_precision": True,
    "accuracy": True,
    "f1_macro": True,
    "r2": True,
    "log_loss": False,
    "brier": False,
    "calibration_error": False,
    "rmse": False,
    "mae": False,
}

METRICS: dict[TaskType, tuple[str, ...]] = {
    "binary": ("auc", "average_precision", "log_loss", "brier", "accuracy", "calibration_error"),
    "multiclass": ("auc", "log_loss", "accuracy", "f1_macro"),
    "regression": ("rmse", "mae", "r2"),
}
"""The metrics of each kind of task, in the order in which reports show them."""


def higher_is_better(metric: str) -> bool:
    """Return whether a larger value of the metric is better.

    Raises:
        Refusal: no metric has that name.
    """
    if metric not in _HIGHER_IS_BETTER:
        known = ", ".join(sorted(_HIGHER_IS_BETTER))
        raise Refusal("there is no such metric", where="metric", value=metric, remedy=f"Use one of {known}.")
    return _HIGHER_IS_BETTER[metric]


def compute_metrics(task: TaskType, codes: EncodedTruth, predictions: FloatArray) -> dict[str, float]:
    """Return every metric of the task, of encoded truth and checked predictions; NaN where undefined."""
    return {metric: compute_metric(task, metric, codes, predictions) for metric in METRICS[task]}


def compute_metric(task: TaskType, metric: str, codes: EncodedTruth, predictions: FloatArray) -> float:
    """Return one metric of truth and predictions that have been encoded and checked; NaN when undefined.

    Raises:
        Refusal: the task has no such metric.
    """
    if metric not in METRICS[task]:
        remedy = f"A {task} task has {', '.join(METRICS[task])}."
        raise Refusal("the task has no such metric", where="metric", value=metric, remedy=remedy)
    if undefined_reason(task, metric, codes, classes=predictions.shape[-1]):
        return float("nan")
    with np.errstate(over="ignore", invalid="ignore"):  # an overflow is infinity, on which the gate holds
        return float(_metric_function(task, metric)(codes, predictions))


def undefined_reason(task: TaskType, metric: str, codes: EncodedTruth, *, classes: int) -> str:
    """Return why the rows do not define the metric; "" when they do."""
    if task == "regression":
        constant = metric == "r2" and (codes == codes[0]).all()
        return "the target is the same in every row" if constant else ""
    if metric not in ("auc", "average_precision"):
        return ""
    found = len(np.unique(codes))
    if found == 1:
        return "the rows hold a single class"
    return f"the rows hold {found} of {classes} classes" if found < classes else ""


def _metric_function(task: TaskType, metric: str) -> Callable[[EncodedTruth, FloatArray], float]:
    """Return the function that computes a metric; scikit-learn is imported here because its import is slow."""
    from sklearn import metrics as sk

    if task == "binary":
        return _binary_metric_function(metric, sk)
    formulas: dict[str, Callable[[EncodedTruth, FloatArray], float]] = {
        "auc": lambda y, p: np.mean([sk.roc_auc_score(y == k, p[:, k]) for k in range(p.shape[1])]),
        "log_loss": lambda y, p: row_log_loss(y, p).mean(),
        "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(axis=1)),
        "f1_macro": lambda y, p: sk.f1_score(
            y, p.argmax(axis=1), labels=range(p.shape[1]), average="macro", zero_division=np.nan
        ),
        "rmse": sk.root_mean_squared_error,
        "mae": sk.mean_absolute_error,
        "r2": sk.r2_score,
    }
    return formulas[metric]


def _binary_metric_function(metric: str, sk: Any) -> Callable[[EncodedTruth, FloatArray], float]:
    """Return the function that computes a metric of two classes; a tie of 0.5 counts as the first class."""
    formulas: dict[str, Callable[[EncodedTruth, FloatArray], float]] = {
        "auc": lambda y, p: sk.roc_auc_score(y, p[:, 1]),
        "average_precision": lambda y, p: sk.average_precision_score(y, p[:, 1]),
        "log_loss": lambda y, p: row_log_loss(y, p).mean(),
        "brier": lambda y, p: ((p[:, 1] - y) ** 2).mean(),
        "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(axis=1)),
        "calibration_error": lambda y, p: _calibration_error(y, p[:, 1]),
    }
    return formulas[metric]


def row_log_loss(codes: EncodedTruth, predictions: FloatArray) -> FloatArray:
    """Return (rows,) the negative logarithm of the true class's probability, clipped as scikit-learn does."""
    chosen = predictions[np.arange(len(codes)), codes]
    smallest = np.finfo(np.float64).eps
    return -np.log(np.clip(chosen, smallest, 1 - smallest))


def _calibration_error(positive: EncodedTruth, scores: FloatArray) -> float:
    """Return the expected calibration error: the mean over rows of |observed − predicted| of their bin.

    Naeini, Cooper and Hauskrecht (AAAI 2015), with the equal-count bins of Nguyen and O'Connor (EMNLP 2015).
    """
    gaps = np.bincount(calibration_bins(scores), weights=positive - scores, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(scores))


def calibration_bins(scores: FloatArray) -> npt.NDArray[np.int64]:
    """Return (rows,) the bin 0 to 9 of each score: equal counts as nearly as ties allow.

    Equal scores share a bin (by the middle of their ranks), so that the order of the rows changes nothing.
    """
    ordered = np.sort(scores)
    middle = np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")
    return np.asarray(middle * CALIBRATION_BINS // (2 * len(scores)), dtype=np.int64)


NULL_SLICE = "(null)"
MAX_SLICE_VALUES = 1_000


@dataclass(frozen=True)
class SliceResult:
    """One metric over the rows that share one value of a column.

    Attributes:
        value: the value as text; `(null)` for rows without one.
        metric: what was measured.
        rows: how many rows have the value.
        metric_value: the metric over them; None when there are too few.
        undefined_because: why `metric_value` is NaN, when it is.
    """

    column: str
    value: str
    metric: str
    rows: int
    metric_value: float | None
    undefined_because: str = ""

    @property
    def place(self) -> str:
        """The slice and its size as text."""
        return f"where {self.column} is {self.value} ({self.rows} rows)"


def measure_slices(
    task: TaskType, floors: Sequence[SliceFloor], codes: EncodedTruth, columns: pd.DataFrame, predictions: FloatArray
) -> Iterator[SliceResult]:
    """Yield a result for each column and metric of `floors` and each value, rows without a value included.

    Args:
        floors: the declared slices.
        codes: (rows,) as `encode_truth` returns them.
        columns: the columns that the floors name, in the order of the rows of `codes`.
        predictions: as `check_predictions` returns them.

    Raises:
        Refusal: a column is missing, of another length, or has more than 1,000 values.
    """
    least: dict[tuple[str, str], int] = {}
    for floor in floors:
        pair = floor.column, floor.metric
        least[pair] = min(floor.minimum_rows, least.get(pair, floor.minimum_rows))
    for (column, metric), minimum in least.items():
        for value, members in _slice_rows(columns, column, len(codes)):
            if len(members) < minimum:
                yield SliceResult(column, value, metric, len(members), None)
            else:
                metric_value = compute_metric(task, metric, codes[members], predictions[members])
                why = undefined_reason(task, metric, codes[members], classes=predictions.shape[-1])
                yield SliceResult(column, value, metric, len(members), metric_value, why)


def _slice_rows(columns: pd.DataFrame, column: str, rows: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield each value of the column as text, in the order of the texts, with the positions of its rows."""
    if column not in columns:
        remedy = "Add it to data.features, or take the slice out of evaluation.slices."
        raise Refusal("the slice's column is not in the holdout", where=f"slices, {column}", remedy=remedy)
    if len(columns) != rows:
        remedy = f"Give the columns of the same {rows} rows as the truth."
        raise Refusal("the slice columns have another length", where=column, value=len(columns), remedy=remedy)
    text = columns[column].astype(object).map(str, na_action="ignore")
    values, names = pd.factorize(text.where(text.notna(), NULL_SLICE), sort=True)
    if len(names) > MAX_SLICE_VALUES:
        remedy = "Slice by a column of few values: a category, a flag, or a number in ranges."
        raise Refusal("the slice's column has too many values", where=column, value=len(names), remedy=remedy)
    ends = np.cumsum(np.bincount(values, minlength=len(names)))[:-1]
    groups = np.split(np.argsort(values, kind="stable"), ends)
    yield from zip([str(name) for name in names], groups, strict=True)
