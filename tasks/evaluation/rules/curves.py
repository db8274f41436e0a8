"""Curves of a model on the holdout, thinned so that they can be drawn and stored with the evidence."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.evaluation.rules.metrics import CALIBRATION_BINS, calibration_bins
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray, TaskType

MAX_CURVE_POINTS = 120

CurveKind = Literal["roc", "calibration", "recall", "fit"]


@dataclass(frozen=True)
class Curve:
    """Points of one curve of one model.

    Attributes:
        kind: `roc` (false over true positive rate), `calibration` (mean predicted over observed share, by
            bin; of several classes, of the class that was predicted), `recall` (by class), `fit` (mean
            predicted over mean actual value, by bin of the predictions).
        model: `challenger` or `champion`.
        x: at most 120 abscissae; positions of the classes for `recall`.
        y: as many ordinates.
        rows: the rows behind each point; empty for `roc`.
    """

    kind: CurveKind
    model: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    rows: tuple[int, ...]


def compute_curves(task: TaskType, codes: EncodedTruth, predictions: FloatArray, model: str) -> tuple[Curve, ...]:
    """Return the curves of the task type, for encoded truth and checked predictions."""
    if task == "regression":
        return (_binned("fit", model, predictions, codes),)
    if task == "binary":
        scores = predictions[:, 1]
        return *_roc(codes, scores, model), _binned("calibration", model, scores, codes == 1)
    chosen = predictions.argmax(axis=1)
    hits = chosen == codes
    return _recall(codes, hits, predictions.shape[1], model), _binned(
        "calibration", model, predictions.max(axis=1), hits
    )


def _roc(codes: EncodedTruth, scores: FloatArray, model: str) -> tuple[Curve, ...]:
    """Return the ROC curve, thinned to points at equal distances along it; none for a single class."""
    from sklearn.metrics import roc_curve

    if len(np.unique(codes)) < 2:
        return ()
    false, true, _ = roc_curve(codes, scores)
    distance = np.concatenate(([0.0], np.cumsum(np.diff(false) + np.diff(true))))
    chosen = np.unique(
        np.searchsorted(distance, np.linspace(0, distance[-1], MAX_CURVE_POINTS)).clip(0, len(false) - 1)
    )
    return (Curve("roc", model, _rounded(false[chosen]), _rounded(true[chosen]), ()),)


def _binned(kind: CurveKind, model: str, predicted: FloatArray, observed: EncodedTruth) -> Curve:
    """Return mean predicted against mean observed for each of ten bins of equal counts."""
    bins = calibration_bins(predicted)
    rows = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = rows > 0
    means = [
        np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[filled] / rows[filled]
        for values in (predicted, np.asarray(observed, dtype=np.float64))
    ]
    return Curve(kind, model, _rounded(means[0]), _rounded(means[1]), tuple(rows[filled].tolist()))


def _recall(codes: EncodedTruth, hits: EncodedTruth, classes: int, model: str) -> Curve:
    """Return the share of each class's rows that were predicted as that class, for the classes that occur."""
    rows = np.bincount(codes, minlength=classes)
    right = np.bincount(codes, weights=hits, minlength=classes)
    found = np.flatnonzero(rows)
    return Curve("recall", model, _rounded(found), _rounded(right[found] / rows[found]), tuple(rows[found].tolist()))


def _rounded(values: npt.NDArray[Any]) -> tuple[float, ...]:
    """Return the values with 6 significant digits: more would only make the record larger."""
    return tuple(float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64).tolist())
