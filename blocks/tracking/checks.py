"""Checks shared by the tracking adapters, and the conversion of rows to a model's signature."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_string_dtype

from blocks.common.errors import Rejected


def check_finite(run_id: str, metrics: Mapping[str, float]) -> None:
    """Raise Rejected, with their names, if metrics are NaN or infinite: a store may turn them into numbers."""
    invalid = {key: value for key, value in metrics.items() if not math.isfinite(value)}
    if invalid:
        raise Rejected(f"run {run_id}: metrics {invalid} are not finite; log the measured values, or nothing")


def cast_to_signature(frame: pd.DataFrame, declared_types: Mapping[str, str]) -> pd.DataFrame:
    """Return the rows with the declared columns, cast if no information is lost; `frame` is not modified.

    MLflow rejects integers for a declared "double" (unless all are 0 or 1), and categories and all-null columns for a
    declared "string". `declared_types` is the type by column; other columns are dropped.
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


def check_filter_value(key: str) -> str:
    """Return the text if it is valid in an MLflow filter, which has no escape for apostrophes."""
    if not key or "'" in key:
        raise Rejected(f"{key!r} must be text without an apostrophe")
    return key
