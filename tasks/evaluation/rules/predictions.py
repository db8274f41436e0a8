"""Checks of truth and predictions: invalid ones are refused before any metric is computed.

Predictions are, for a classification, an array (rows, classes) of probabilities in the order of `classes`
(binary: two columns, the last is the positive class); for a regression, an array (rows,) in the unit of
the target.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from runtime.digests import bytes_digest
from tasks.shared.rules.refusal import Refusal

TaskType = Literal["binary", "multiclass", "regression"]
"""The task types that a model may have."""

Labels = pd.Series | npt.NDArray[Any]
"""Truth as the table holds it: labels of classes, or numbers."""

FloatArray = npt.NDArray[np.float64]
"""Checked predictions, or any column of numbers."""

EncodedTruth = npt.NDArray[Any]
"""Encoded truth (rows,): positions in `classes` (int64), or the target itself (float64)."""

SUM_TOLERANCE = 1e-6


def encode_truth(task: TaskType, classes: Sequence[str], truth: Labels) -> EncodedTruth:
    """Return the truth as positions in `classes`, or as float64 for a regression.

    Raises:
        Refusal: empty, null, not one-dimensional, a label outside `classes`, a target that is not finite.
    """
    series = _one_column(truth)
    if task == "regression":
        return _numeric_target(series)
    _check_classes(task, classes)
    numbers, labels = pd.factorize(series)
    position = {name: index for index, name in enumerate(classes)}
    unknown = [label for label in labels if str(label) not in position]
    if unknown:
        remedy = f"The classes are {', '.join(classes)}: correct the rows, or add the label to data.classes."
        raise Refusal("The truth holds a label outside the classes", where="truth", value=unknown[0], remedy=remedy)
    return np.array([position[str(label)] for label in labels], dtype=np.int64)[numbers]


def _one_column(truth: Labels) -> pd.Series:
    """Return the truth as a series without nulls; refuse anything else."""
    if np.ndim(truth) != 1 or len(truth) == 0:
        remedy = "Give one label a row, of one row at least."
        raise Refusal("The truth is not one column of rows", where="truth", value=np.shape(truth), remedy=remedy)
    series = pd.Series(truth).reset_index(drop=True)
    missing = np.flatnonzero(series.isna())
    if len(missing):
        remedy = f"Drop or quarantine the {len(missing)} rows without a label before evaluating."
        raise Refusal("The truth holds a null", where=f"truth, row {missing[0]}", remedy=remedy)
    return series


def _numeric_target(series: pd.Series) -> FloatArray:
    """Return the target of a regression as float64; refuse values that are not finite."""
    if not pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series):
        remedy = "A regression needs a target of numbers."
        raise Refusal("The truth is not a number", where="truth", value=str(series.dtype), remedy=remedy)
    values = series.to_numpy(dtype=np.float64)
    _refuse_rows(~np.isfinite(values), "The truth is not finite", "truth", values, "Quarantine such rows.")
    return values


def _check_classes(task: TaskType, classes: Sequence[str]) -> None:
    """Refuse classes that are too few for the task, or named twice."""
    enough = len(classes) == 2 if task == "binary" else len(classes) >= 2
    if not enough or len(set(classes)) != len(classes):
        remedy = "A binary task has two different classes, a multiclass task two or more."
        raise Refusal("The classes do not fit the task", where="classes", value=tuple(classes), remedy=remedy)


def check_predictions(
    task: TaskType, classes: Sequence[str], rows: int, predictions: npt.NDArray[Any], where: str = "predictions"
) -> FloatArray:
    """Return the predictions as float64 in the shape that the task needs.

    Raises:
        Refusal: another shape, no number, NaN or infinity, outside 0 to 1, rows that do not sum to 1.
    """
    shape = (rows,) if task == "regression" else (rows, len(classes))
    if task != "regression":
        _refuse_labels(classes, rows, predictions, where)
    if np.shape(predictions) != shape:
        remedy = f"The shape must be {shape}: one row a row of the truth, one column a class."
        raise Refusal("The predictions have another shape", where=where, value=np.shape(predictions), remedy=remedy)
    values = _as_float(predictions, where)
    finite = np.isfinite(values.reshape(rows, -1)).all(axis=1)
    _refuse_rows(~finite, "A prediction is not finite", where, values, "Look for NaN in the model's input.")
    if task != "regression":
        _check_probabilities(values, where)
    return values


def _refuse_labels(classes: Sequence[str], rows: int, predictions: npt.NDArray[Any], where: str) -> None:
    """Refuse one value a row, which is a label or the probability of one class, with the remedy for it."""
    array = np.asarray(predictions)
    flat = array[:, 0] if array.shape == (rows, 1) else array
    textual = array.dtype.kind in "OUS" and array.size > 0 and isinstance(array.ravel()[0], (str, bytes))
    if not textual and flat.shape != (rows,):
        return
    shown = array.ravel()[: min(3, array.size)].tolist()
    if textual or array.dtype.kind == "b" or (array.dtype.kind in "fiu" and (flat == np.floor(flat)).all()):
        remedy = "Return the probabilities of all classes: log the model with pyfunc_predict_fn='predict_proba'."
        raise Refusal("The model returned labels, not probabilities", where=where, value=shown, remedy=remedy)
    if array.dtype.kind == "f" and np.nanmin(flat) >= 0 and np.nanmax(flat) <= 1:
        remedy = f"Return one column a class, in the order {', '.join(classes)}, as predict_proba does."
        raise Refusal("The model returned one probability a row", where=where, value=shown, remedy=remedy)


def check_class_order(classes: Sequence[str], known: Sequence[str] | None, where: str = "challenger") -> None:
    """Refuse a model whose probabilities are in another order than `data.classes`.

    Args:
        classes: the declared classes, in the order that the probabilities must have.
        known: the model's own `classes_`, as text in their order; None when it has none. The positions 0, 1, … of
            labels that the training program encoded by `data.classes` are in order.

    Raises:
        Refusal: the same classes in another order, or other classes.
    """
    positions = tuple(str(number) for number in range(len(classes)))
    if known is None or not classes or tuple(known) == tuple(classes):
        return
    order = ", ".join(known)
    if sorted(known) == sorted(classes):
        remedy = f"Declare data.classes: [{order}] (of two classes the last is the positive one: floors and metrics "
        remedy += f"are about it), or let the training program return the columns in the order {', '.join(classes)}."
        raise Refusal("The model's probabilities are in another order", where=where, value=order, remedy=remedy)
    if tuple(known) == positions:
        return
    missing = [label for label in classes if label not in known]
    remedy = f"Train it on the classes of model.yaml, {', '.join(classes)}"
    remedy += f"; no training row had {', '.join(missing)}." if set(known) < set(classes) else "."
    raise Refusal("The model knows other classes than data.classes", where=where, value=order, remedy=remedy)


def _as_float(predictions: npt.NDArray[Any], where: str) -> FloatArray:
    """Return predictions as float64, refusing text and objects even if they could be parsed."""
    array = np.asarray(predictions)
    if array.dtype.kind not in "fiu":
        remedy = "The model must return numbers: probabilities, not labels."
        raise Refusal("The predictions are not numbers", where=where, value=str(array.dtype), remedy=remedy)
    return array.astype(np.float64)


def _check_probabilities(values: FloatArray, where: str) -> None:
    """Refuse rows outside 0 to 1, or whose sum is further than 1e-6 from 1."""
    outside = ((values < 0) | (values > 1)).any(axis=1)
    _refuse_rows(outside, "A probability lies outside 0 to 1", where, values, "Return probabilities.")
    astray = np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE
    remedy = "Return one probability a class, in the order of the classes."
    _refuse_rows(astray, "The probabilities of a row do not sum to 1", where, values, remedy)


def _refuse_rows(wrong: Any, problem: str, where: str, values: FloatArray, remedy: str) -> None:
    """Refuse with the first wrong row and the count of all, when there is any."""
    found = np.flatnonzero(wrong)
    if len(found):
        place = f"{where}, row {found[0]} (one of {len(found)})"
        raise Refusal(problem, where=place, value=values[found[0]].tolist(), remedy=remedy)


def digest_predictions(predictions: np.ndarray) -> str:
    """Return the SHA-256 over predictions, bit by bit: shape, then the numbers as little-endian doubles."""
    return bytes_digest(f"{predictions.shape}".encode() + np.ascontiguousarray(predictions, dtype="<f8").tobytes())
