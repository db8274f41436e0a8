"""What every tracking adapter refuses, and how rows are made to fit what a model declares."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_string_dtype

from blocks.common.errors import NotFound, PortError, Rejected, Unavailable


def check_finite(run_id: str, metrics: Mapping[str, float]) -> None:
    """Raise Rejected, naming them, when metrics are NaN or infinite: a store may turn them into numbers."""
    wrong = {key: value for key, value in metrics.items() if not math.isfinite(value)}
    if wrong:
        raise Rejected(f"run {run_id}: metrics {wrong} are not finite; log what was measured, or nothing")


def cast_to_signature(frame: pd.DataFrame, declared_types: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows with the declared columns cast where no information is lost; `frame` is not changed.

    MLflow refuses integers where a model declares "double" (unless all are 0 or 1), and categories and all-null
    columns where it declares "string". `declared_types` is type by column; columns it does not name are left out.
    """
    missing = [name for name in declared_types if name not in frame.columns]
    if missing:
        raise Rejected(f"the model needs columns {missing}, which the rows do not have: {list(frame.columns)}")
    return pd.DataFrame({name: _cast(frame[name], kind) for name, kind in declared_types.items()}, index=frame.index)


def _cast(column: "pd.Series[Any]", kind: str) -> "pd.Series[Any]":
    if kind == "double" and (is_integer_dtype(column.dtype) or is_bool_dtype(column.dtype)):
        return column.astype("float64")
    if kind == "string":
        if isinstance(column.dtype, pd.CategoricalDtype) or column.isna().all():
            return column.astype(object)
        if not is_string_dtype(column.dtype):
            raise Rejected(f"column {column.name!r} is {column.dtype}; the model declares text")
    return column


def as_predictions(answer: object, artifact: Path, rows: int) -> np.ndarray:
    """Return a model's answer as an array of float64 with one entry a row.

    Raises:
        Rejected: the answer is not numeric, or has another number of rows than were given.
    """
    try:
        predictions = np.asarray(answer, dtype=np.float64)
    except (TypeError, ValueError) as cause:
        raise Rejected(f"model {artifact} answered with what is not numbers: {cause}") from cause
    if predictions.ndim not in (1, 2) or len(predictions) != rows:
        raise Rejected(f"model {artifact} answered with shape {predictions.shape} for {rows} rows")
    return predictions


def port_error_type(code: str, text: str) -> type[PortError]:
    """Return the port's error for MLflow's error code: what a person must mend, or what may pass in a moment."""
    if code == "RESOURCE_DOES_NOT_EXIST" or re.search(r"alias \S+ not found", text):
        return NotFound
    refused = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_STATE"}
    return Rejected if code in {*refused, "RESOURCE_ALREADY_EXISTS", "FEATURE_DISABLED"} else Unavailable


def check_filter_value(key: str) -> str:
    """Return the key when it can stand in a search; MLflow's filters know no escape."""
    if not key or "'" in key:
        raise Rejected(f"key {key!r} must be text without an apostrophe")
    return key
