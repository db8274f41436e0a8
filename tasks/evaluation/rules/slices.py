"""Metrics over parts of the holdout: the rows that share a value of a column."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tasks.evaluation.rules.gate import SliceResult
from tasks.evaluation.rules.metrics import compute_metric, undefined_reason
from tasks.evaluation.rules.predictions import EncodedTruth, FloatArray, TaskType
from tasks.shared.rules.model.spec import SliceFloor
from tasks.shared.rules.refusal import Refusal

NULL_SLICE = "(null)"
MAX_SLICE_VALUES = 1_000


def measure_slices(
    task: TaskType, floors: Sequence[SliceFloor], codes: EncodedTruth, columns: pd.DataFrame, predictions: FloatArray
) -> Iterator[SliceResult]:
    """Yield a result for each column and metric of `floors` and each value, rows without a value included.

    Args:
        task: the kind of task.
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
                measured = compute_metric(task, metric, codes[members], predictions[members])
                why = undefined_reason(task, metric, codes[members], classes=predictions.shape[-1])
                yield SliceResult(column, value, metric, len(members), measured, why)


def _slice_rows(columns: pd.DataFrame, column: str, rows: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield each value of the column as text, in the order of the texts, with the positions of its rows."""
    if column not in columns:
        remedy = "Add it to data.features, or take the slice out of evaluation.slices."
        raise Refusal("A slice's column is not in the holdout", where=f"slices, {column}", remedy=remedy)
    if len(columns) != rows:
        remedy = f"Give the columns of the same {rows} rows as the truth."
        raise Refusal("The slice columns have another length", where=column, value=len(columns), remedy=remedy)
    text = columns[column].astype(object).map(str, na_action="ignore")
    values, names = pd.factorize(text.where(text.notna(), NULL_SLICE), sort=True)
    if len(names) > MAX_SLICE_VALUES:
        remedy = "Slice by a column of few values: a category, a flag, or a number in ranges."
        raise Refusal("A slice's column has too many values", where=column, value=len(names), remedy=remedy)
    ends = np.cumsum(np.bincount(values, minlength=len(names)))[:-1]
    groups = np.split(np.argsort(values, kind="stable"), ends)
    yield from zip([str(name) for name in names], groups, strict=True)
