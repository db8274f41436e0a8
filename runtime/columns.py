"""The columns that a model takes, and the values that each kind of column accepts."""

import base64
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

_STRING_DTYPE = pd.StringDtype(na_value=np.nan)
_INTEGER_RANGE = {"long": 2**63, "integer": 2**31}
_EXACT = 2.0**53  # above this, two whole numbers can be the same float
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")


class BadInput(Exception):
    """The caller sent something that cannot be scored; the message names it and its place. `status` is for HTTP."""

    def __init__(self, problem: str, status: int = 400) -> None:
        self.status = status
        super().__init__(problem)


@dataclass(frozen=True)
class Column:
    """A column of a model's signature.

    `type_name` is MLflow's name of the type (double, long, string, …). A column that is not `required` may be
    left out or null: it had missing values when the model was trained.
    """

    name: str
    type_name: str
    required: bool = True


def shortened_repr(value: object) -> str:
    """Return the value as Python writes it, cut after 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def to_series(column: Column, values: Sequence[Any], *, parse_text: bool) -> Any:
    """Return the column's values in the type that the model was trained on.

    A column of doubles accepts whole numbers, and one of longs accepts 34.0. Text is never read as a number, except
    where every value is text (`parse_text`: CSV). None is a missing value.

    Raises:
        BadInput: a value is missing, not finite, out of range or of another type; the message names the row.
    """
    if column.required and None in values:
        row = next(number for number, value in enumerate(values) if value is None)
        raise BadInput(f"column {shortened_repr(column.name)}, row {row}: the value is missing, and the model needs it")
    read = [_convert_value(column, row, value, as_text=parse_text) for row, value in enumerate(values)]
    try:
        return pd.Series(read, dtype=_converter(column)[1], name=column.name)
    except (ValueError, TypeError, OverflowError) as cause:
        raise BadInput(f"column {shortened_repr(column.name)} cannot be read as {column.type_name}: {cause}") from None


def key_text(value: Any) -> str | None:
    """Return a key in its canonical form, text, as ingest stores it; None for a missing or blank one.

    Raises:
        ValueError: it is neither text nor a whole number; the message says what was expected.
    """
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        value = int(value)  # pandas writes whole numbers beside missing ones as floats
    if value is not None and type(value) not in (str, int):
        raise ValueError("expected a key as text or whole number")
    text = "" if value is None else str(value)
    try:
        text.encode()  # a lone surrogate is not text
    except UnicodeEncodeError:
        raise ValueError("expected a key as text that is Unicode") from None
    return text if text.strip() else None


def time_text(value: Any) -> str | None:
    """Return a time in its canonical form: ISO 8601 in UTC, to the microsecond; None for a missing or blank one.

    Raises:
        ValueError: it is no text of a time with its zone, as ingest requires it; the message says what was expected.
    """
    if value is None or (type(value) is str and not value.strip()):
        return None
    if type(value) is not str or not _TIME.fullmatch(value.strip()):
        raise ValueError("expected a time with a zone (such as 2026-01-31T08:00:00Z)")
    try:
        return datetime.fromisoformat(value.strip()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        raise ValueError("expected a time that exists (such as 2026-01-31T08:00:00Z)") from None


def _converter(column: Column) -> tuple[Callable[..., Any], Any, str]:
    return _CONVERTERS.get(column.type_name, (_unchanged, object, "a value"))


def _convert_value(column: Column, row: int, value: Any, *, as_text: bool) -> Any:
    if value is None:
        if column.type_name in ("long", "integer", "boolean"):
            raise BadInput(f"column {shortened_repr(column.name)}, row {row}: the value is missing")
        return None
    convert, _, expected = _converter(column)
    try:
        return convert(value, column.type_name, as_text)
    except (ValueError, TypeError, OverflowError):
        problem = f"column {shortened_repr(column.name)}, row {row}: expected {expected}, got {shortened_repr(value)}"
        raise BadInput(problem) from None


def _number(value: Any, kind: str, as_text: bool) -> float:
    number = _parse_number(value) if as_text else value
    if type(number) not in (int, float):
        raise TypeError
    limit = float(np.finfo(np.float32).max) if kind == "float" else math.inf
    if not math.isfinite(number) or abs(number) > limit:
        raise ValueError
    return float(number)


def _integer(value: Any, kind: str, as_text: bool) -> int:
    number = _parse_number(value) if as_text else value
    if type(number) is float and number.is_integer():
        number = int(number)
    if type(number) is not int:
        raise TypeError
    if not -_INTEGER_RANGE[kind] <= number < _INTEGER_RANGE[kind]:
        raise ValueError
    return number


def _parse_number(text: str) -> float | int:
    if "_" in text:
        raise ValueError
    try:
        return int(text)
    except ValueError:
        return float(text)


def _boolean(value: Any, kind: str, as_text: bool) -> bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if as_text and str(value).lower() in words:
        return words[str(value).lower()]
    if type(value) not in (bool, int) or value not in (0, 1):
        raise TypeError
    return bool(value)


def _string(value: Any, kind: str, as_text: bool) -> str:
    if type(value) is not str:
        raise TypeError
    value.encode()  # a lone surrogate is not text
    return value


def _time(value: Any, kind: str, as_text: bool) -> pd.Timestamp:
    if type(value) is not str:
        raise TypeError
    moment = pd.Timestamp(value)
    if not isinstance(moment, pd.Timestamp):
        raise TypeError
    return moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment


def _bytes(value: Any, kind: str, as_text: bool) -> bytes:
    if type(value) is not str:
        raise TypeError
    return base64.b64decode(value, validate=True)


def _unchanged(value: Any, kind: str, as_text: bool) -> Any:
    return value


_CONVERTERS: dict[str, tuple[Callable[..., Any], Any, str]] = {
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
