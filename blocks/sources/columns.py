"""Conversion of columns to their declared kind, with the same result for the same value from every source."""

from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.common.errors import Rejected

ARROW_TYPES: Final = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "flag": pa.int8(),
    "category": pa.string(),
    "text": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
}
"""Arrow type by column kind."""

KIND_DESCRIPTIONS: Final = {
    "number": "a number",
    "integer": "a whole number",
    "flag": "a flag (0 or 1)",
    "category": "a text",
    "text": "a text",
    "time": "a time with a zone (such as 2026-01-31T08:00:00Z)",
}
"""Description of each kind, for messages such as "not a number"."""

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_INTEGER = r"^-?[0-9]{1,18}$"
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
_FLAGS = pa.array(["0", "1", "false", "true", "0.0", "1.0"])  # odd positions mean 1
_EXACT = 2.0**53  # above this, two whole numbers can be the same float

Mask = npt.NDArray[np.bool_]


def convert_column(values: pa.ChunkedArray, kind: str, column: str) -> tuple[pa.ChunkedArray, Mask]:
    """Return the column with its kind's type, and a mask of the values that do not fit (which are null).

    Blank text and NaN become null. "NA" and "None" are ordinary text. Flags may also be written as true and false. A
    time must have a zone, and is converted to UTC. A whole float below 2**53 becomes text without ".0", like an
    integer.

    Raises:
        Rejected: the column is of a type that cannot be read as this kind (lists, bytes, times as numbers).
    """
    try:
        return _converted(values, kind, column)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as cause:
        raise Rejected(
            f"column {column!r} is of type {values.type}, which cannot be read as {KIND_DESCRIPTIONS[kind]} ({cause}). "
            "Convert it in the source."
        ) from cause


def _converted(values: pa.ChunkedArray, kind: str, column: str) -> tuple[pa.ChunkedArray, Mask]:
    plain = _decoded(values, column)
    if kind == "number" and not is_text(plain.type):
        return _without_nan(plain.cast(ARROW_TYPES[kind], safe=False)), np.zeros(len(plain), dtype=bool)
    if kind == "time" and pa.types.is_timestamp(plain.type):
        return _to_utc_timestamps(plain, column), np.zeros(len(plain), dtype=bool)
    text, inexact = _text(plain)
    if kind in ("category", "text"):
        return text, inexact
    parse = {"number": _numbers, "integer": _integers, "flag": _flags, "time": _times}[kind]
    parsed = parse(text)
    return parsed, inexact | _mask(pc.and_(pc.is_valid(text), pc.is_null(parsed)))


def _decoded(values: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    kind = values.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise Rejected(f"column {column!r} is of type {kind}. Convert it to a number or to text.")
    return values.cast(pa.string()) if pa.types.is_null(kind) else values


def is_text(kind: pa.DataType) -> bool:
    """Return whether the type is one of Arrow's types of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _text(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Mask]:
    """Return the values as text, blanks as null, and a mask of the floats that are too large to be exact."""
    inexact = np.zeros(len(values), dtype=bool)
    if pa.types.is_floating(values.type):
        return _text_of_floats(values)
    text = values.cast(pa.string())
    blank = pc.equal(pc.utf8_trim_whitespace(text), "")
    return (_null_where(blank, text) if pc.any(blank).as_py() else text), inexact


def _text_of_floats(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Mask]:
    exact = _without_nan(values.cast(pa.float64()))
    inexact = _mask(pc.greater_equal(pc.abs(exact), _EXACT))
    whole = pc.and_(pc.equal(pc.round(exact), exact), pc.less(pc.abs(exact), _EXACT))
    digits = pc.if_else(whole, exact, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(digits, exact.cast(pa.string())), inexact


def _numbers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        numbers = pc.cast(text, pa.float64())
        if pc.all(pc.is_finite(numbers)).as_py() in (True, None):
            return numbers
    except pa.ArrowInvalid:
        pass  # at least one is not a number: check each
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.match_substring_regex(trimmed, _NUMBER), trimmed, None).cast(pa.float64())


def _integers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.match_substring_regex(trimmed, _INTEGER), trimmed, None).cast(pa.int64())


def _flags(text: pa.ChunkedArray) -> pa.ChunkedArray:
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    return pc.bit_wise_and(pc.index_in(lower, value_set=_FLAGS), 1).cast(pa.int8())


def _to_utc_timestamps(values: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Convert to whole microseconds in UTC; finer digits are cut off."""
    if values.type.tz is None:
        raise Rejected(f"column {column!r} holds times without a zone. Give them one in the source, such as UTC.")
    return values.cast(ARROW_TYPES["time"], safe=False)


def _times(text: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(text)
    written = pc.if_else(pc.match_substring_regex(trimmed, _TIME), trimmed, None)
    try:
        return written.cast(ARROW_TYPES["time"])
    except pa.ArrowInvalid:  # at least one is not a valid date: check each
        return pa.chunked_array([pa.array(map(_parse_time, written.to_pylist()), ARROW_TYPES["time"])])


def _parse_time(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _without_nan(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    nan = pc.is_nan(numbers)
    return _null_where(nan, numbers) if pc.any(nan).as_py() else numbers


def _null_where(mask: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(mask, pa.scalar(None, values.type), values)


def _mask(values: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)
