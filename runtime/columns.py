"""The columns that a model takes, and the values that each kind of column accepts."""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from runtime.values import LABEL_KINDS, NoCanonicalForm, canonical, label_text

_STRING_DTYPE = pd.StringDtype(na_value=np.nan)
_FLOAT32_LIMIT = float(np.finfo(np.float32).max)
_INTEGER_RANGE = {"long": 2**63, "integer": 2**31}


class BadInput(Exception):
    """The caller sent something that cannot be scored; the message names it and its place. `status` is for HTTP."""

    def __init__(self, problem: str, status: int = 400) -> None:
        self.status = status
        super().__init__(problem)


@dataclass(frozen=True)
class Column:
    """A column of a model's signature.

    `type_name` is MLflow's name of the type (double, long, string, …). A column that is not `required` may be
    left out or null: it had missing values when the model was trained. `kind` is the column's kind in `runtime.values`;
    empty for a model of an earlier release, whose texts are taken as they are sent.
    """

    name: str
    type_name: str
    required: bool = True
    kind: str = ""


def shortened_repr(value: object) -> str:
    """Return the value as Python writes it, cut after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def to_series(column: Column, values: Sequence[Any]) -> Any:
    """Return the column's values in the type that the model was trained on.

    Each value has the canonical form of the column's kind: see `runtime.values`. None is a missing value.

    Raises:
        BadInput: a value is missing, not finite, out of range or without a canonical form; the message names the row.
    """
    read = [_convert_value(column, row, value) for row, value in enumerate(values)]
    try:
        return pd.Series(read, dtype=_converter(column)[1], name=column.name)
    except (ValueError, TypeError, OverflowError) as cause:
        raise BadInput(f"column {shortened_repr(column.name)} cannot be read as {column.type_name}: {cause}") from None


def _converter(column: Column) -> tuple[Callable[[Any, Column], Any], Any, str]:
    return _CONVERTERS.get(column.type_name, (_unchanged, object, "a value"))


def _convert_value(column: Column, row: int, value: Any) -> Any:
    convert, _, expected = _converter(column)
    try:
        form = None if value is None else convert(value, column)
    except (ValueError, TypeError, OverflowError) as cause:
        problem = f"column {shortened_repr(column.name)}, row {row}: expected {expected}, got {shortened_repr(value)}"
        reason = f" ({cause})" if isinstance(cause, NoCanonicalForm) and str(cause) else ""
        raise BadInput(problem + reason) from None
    if form is None and column.required:
        raise BadInput(f"column {shortened_repr(column.name)}, row {row}: the value is missing, and the model needs it")
    if form is None and column.type_name in ("long", "integer", "boolean"):
        raise BadInput(f"column {shortened_repr(column.name)}, row {row}: the value is missing")
    return form


def _number(value: Any, column: Column) -> float | None:
    number = canonical(finite(value), "flag" if column.kind == "flag" else "number")
    limit = _FLOAT32_LIMIT if column.type_name == "float" else math.inf
    if number is not None and not abs(number) < limit:
        raise ValueError
    return None if number is None else float(number)


def _integer(value: Any, column: Column) -> int | None:
    if column.kind == "flag" or isinstance(value, bool) or str(value).strip().lower() in ("true", "false"):
        return cast("int | None", canonical(finite(value), "flag"))
    number = value if type(value) is int else canonical(finite(value), "integer")
    if number is not None and not -_INTEGER_RANGE[column.type_name] <= number < _INTEGER_RANGE[column.type_name]:
        raise ValueError
    return cast("int | None", number)


def finite(value: Any) -> Any:
    """Return the value. Raises NoCanonicalForm for NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        raise NoCanonicalForm
    return value


def _boolean(value: Any, column: Column) -> bool | None:
    flag = canonical(finite(value), "flag")
    return None if flag is None else bool(flag)


def _string(value: Any, column: Column) -> str | None:
    if column.kind in LABEL_KINDS:
        return cast("str | None", canonical(finite(value), column.kind))
    if type(value) is not str:
        raise TypeError
    return label_text(value, "text")


def _time(value: Any, column: Column) -> pd.Timestamp:
    if type(value) is not str:
        raise TypeError
    moment = pd.Timestamp(value)
    if not isinstance(moment, pd.Timestamp):
        raise TypeError
    return moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment


def _bytes(value: Any, column: Column) -> bytes:
    if type(value) is not str:
        raise TypeError
    return base64.b64decode(value, validate=True)


def _unchanged(value: Any, column: Column) -> Any:
    return value


_CONVERTERS: dict[str, tuple[Callable[[Any, Column], Any], Any, str]] = {
    "double": (_number, "float64", "a finite number"),
    "float": (_number, "float32", "a finite number"),
    "long": (_integer, "int64", "a whole number"),
    "integer": (_integer, "int32", "a whole number of 32 bits"),
    "boolean": (_boolean, "bool", "true or false"),
    "string": (_string, _STRING_DTYPE, "text"),
    "datetime": (_time, "datetime64[ns]", "a time in ISO 8601"),
    "binary": (_bytes, object, "bytes in base64"),
}
"""By MLflow's name of the type: the function that reads a value, the pandas type, and the text of the message."""
