"""Conversion of Arrow columns to the canonical form of their kind, the same for the same value from every source.

`runtime.values` defines the forms. The vectorised rules here cover plain values; every other value is converted by
`runtime.values.canonical`, one at a time.
"""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.common.errors import Rejected
from runtime.values import (
    BOOLEAN_TEXTS,
    KIND_DESCRIPTIONS,
    LABEL_KINDS,
    MAX_EXACT_FLOAT,
    MAX_MICROSECONDS,
    MIN_MICROSECONDS,
    NUMBER_PATTERN,
    SCIENTIFIC_PATTERN,
    WHOLE_FLOAT_PATTERN,
    NoCanonicalForm,
    canonical,
)

ARROW_TYPES: Final = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "flag": pa.int8(),
    "category": pa.string(),
    "key": pa.string(),
    "text": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
}
"""Arrow type by column kind."""

_TIME_TYPE = ARROW_TYPES["time"]
_INTEGER = r"^-?[0-9]{1,18}$"
_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_FLAGS = pa.array(["0", "1", "false", "true", "0.0", "1.0"])  # odd positions mean 1
_BOOLEAN_TEXTS = pa.array(list(BOOLEAN_TEXTS))
_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}

Mask = npt.NDArray[np.bool_]


def convert_column(values: pa.ChunkedArray, kind: str, column: str) -> tuple[pa.ChunkedArray, Mask]:
    """Return the column with its kind's type, and a mask of the values without a canonical form (which are null).

    Raises:
        Rejected: the column is of a type without a canonical form of this kind, such as lists, bytes, times without
            a zone, or booleans for a number; the message names column and type.
    """
    try:
        plain = _decoded(values)
        if kind == "time" and pa.types.is_timestamp(plain.type) and plain.type.tz is None:
            raise Rejected(f"column {column!r} holds times without a zone. Give them one in the source, such as UTC.")
        _check_type(plain.type, kind)
        return _converted(plain, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, NoCanonicalForm) as cause:
        raise Rejected(
            f"column {column!r} is of type {values.type}, which cannot be read as {KIND_DESCRIPTIONS[kind]} ({cause}). "
            "Convert it in the source."
        ) from cause


def canonical_column(values: Iterable[object], kind: str) -> tuple[pa.ChunkedArray, Mask]:
    """Return Python values of mixed types in their kind's type, and a mask as `convert_column` does."""
    forms, bad = [], []
    for value in values:
        form, failed = _form(value, kind)
        forms.append(form)
        bad.append(failed)
    return pa.chunked_array([pa.array(forms, ARROW_TYPES[kind])]), np.array(bad, dtype=bool)


def is_text(kind: pa.DataType) -> bool:
    """Return whether the type is one of Arrow's types of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def changes_form(values: pa.ChunkedArray, kind: str) -> bool:
    """Return whether a column has values that releases before 0012 stored in another form: see docs/values.md."""
    if kind not in ("category", "key"):
        return False
    plain = _decoded(values)
    if not is_text(plain.type):
        changed_type = pa.types.is_boolean(plain.type) or pa.types.is_decimal(plain.type)
        return bool(changed_type) and plain.null_count < len(plain)
    text = plain.cast(pa.string())
    changed = _matches(text, WHOLE_FLOAT_PATTERN, ".")
    if kind == "category":
        changed = pc.or_(changed, pc.is_in(text, _BOOLEAN_TEXTS))
    return bool(pc.any(changed).as_py())


def _form(value: object, kind: str) -> tuple[Any, bool]:
    try:
        return canonical(value, kind), False
    except NoCanonicalForm:
        return None, True


def _decoded(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the values without dictionary, run ends or extension type; a UUID becomes its text."""
    kind = values.type
    if pa.types.is_run_end_encoded(kind):
        return _decoded(pa.chunked_array([pc.run_end_decode(chunk) for chunk in values.chunks], kind.value_type))
    if pa.types.is_dictionary(kind):
        return _decoded(values.cast(kind.value_type))
    if isinstance(kind, pa.UuidType):
        texts = [None if value is None else str(value) for value in values.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if isinstance(kind, pa.BaseExtensionType) and is_text(kind.storage_type):
        return values.cast(kind.storage_type).cast(pa.string())
    if pa.types.is_float16(kind):
        return values.cast(pa.float32())
    return values.cast(pa.string()) if pa.types.is_null(kind) or is_text(kind) else values


def _check_type(kind: pa.DataType, wanted: str) -> None:
    """Raise NoCanonicalForm for a type none of whose values has a canonical form."""
    t = pa.types
    number = t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)
    fits = (
        is_text(kind)
        or {
            "number": number,
            "integer": number,
            "flag": number or t.is_boolean(kind),
            "key": number or t.is_date(kind),
            "category": number or t.is_date(kind) or t.is_boolean(kind),
            "text": number or t.is_date(kind) or t.is_boolean(kind),
            "time": t.is_timestamp(kind),
        }[wanted]
    )
    if not fits:
        raise NoCanonicalForm(f"{kind} has no canonical form as {KIND_DESCRIPTIONS[wanted]}")


def _converted(plain: pa.ChunkedArray, kind: str) -> tuple[pa.ChunkedArray, Mask]:
    if kind == "time" and not is_text(plain.type):
        return _times_of_timestamps(plain)
    if kind == "number" and not is_text(plain.type):
        return _numbers_of_numbers(plain), np.zeros(len(plain), dtype=bool)
    if kind in LABEL_KINDS:
        return _labels_of_text(plain, kind) if is_text(plain.type) else _labels_of_numbers(plain, kind)
    text, bad = (plain, None) if is_text(plain.type) else _labels_of_numbers(plain, "text")
    text = _without_blanks(text)
    parse = {"number": _numbers, "integer": _integers, "flag": _flags, "time": _times_of_text}[kind]
    parsed = parse(text)
    failed = _mask(pc.and_(pc.is_valid(text), pc.is_null(parsed)))
    parsed, failed = _with_others(parsed, text, failed, kind)
    return parsed, failed if bad is None else failed | bad


def _with_others(
    parsed: pa.ChunkedArray, values: pa.ChunkedArray, others: Mask, kind: str
) -> tuple[pa.ChunkedArray, Mask]:
    """Return the column with the canonical form of the values that the fast rules left out, and those without one.

    Each distinct value is converted once.
    """
    if not others.any():
        return parsed, others
    left = values.filter(pa.array(others)).combine_chunks()
    left = left.dictionary_encode() if len(left) else left
    forms = [_form(value, kind) for value in left.dictionary.to_pylist()]
    places = left.indices.to_numpy(zero_copy_only=False)
    failed = others.copy()
    failed[np.flatnonzero(others)] = np.array([bad for _, bad in forms], dtype=bool)[places]
    found = pa.array([form for form, _ in forms], parsed.type).take(left.indices)
    merged = pc.replace_with_mask(parsed.combine_chunks(), pa.array(others), found)
    return pa.chunked_array([merged]), failed


def _labels_of_text(text: pa.ChunkedArray, kind: str) -> tuple[pa.ChunkedArray, Mask]:
    text = _without_blanks(text)
    odd = pc.match_substring(text, "\0")
    if kind != "text":
        odd = pc.or_(odd, _matches(text, WHOLE_FLOAT_PATTERN, "."))
    if kind == "key":
        odd = pc.or_(odd, _matches(text, SCIENTIFIC_PATTERN, ".+"))
    if kind == "category":
        odd = pc.or_(odd, pc.is_in(text, _BOOLEAN_TEXTS))
    return _with_others(text, text, _mask(odd), kind)


def _matches(text: pa.ChunkedArray, pattern: str, letters: str) -> pa.ChunkedArray:
    """Return which texts match the whole pattern, all of whose matches have one of these letters."""
    if not any(pc.any(pc.match_substring(text, letter)).as_py() for letter in letters):
        return pa.chunked_array([pa.repeat(pa.scalar(False), len(text))])
    return pc.match_substring_regex(text, f"^({pattern})$")


def _labels_of_numbers(plain: pa.ChunkedArray, kind: str) -> tuple[pa.ChunkedArray, Mask]:
    """Return the texts of numbers, booleans and dates: digits without a point for whole numbers."""
    none = np.zeros(len(plain), dtype=bool)
    if pa.types.is_boolean(plain.type):
        return pc.if_else(plain, "True", "False"), none
    if pa.types.is_decimal(plain.type):
        return _with_others(pa.chunked_array([pa.nulls(len(plain), pa.string())]), plain, _mask(plain.is_valid()), kind)
    if pa.types.is_date(plain.type):
        days = plain.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        beyond = _outside(days, MIN_MICROSECONDS // 86_400_000_000, MAX_MICROSECONDS // 86_400_000_000)
        return _null_where(pa.array(beyond), plain).cast(pa.string()), beyond
    if not pa.types.is_floating(plain.type):
        return plain.cast(pa.string()), none
    numbers = _without_nan(plain)
    whole = pc.and_(pc.equal(pc.round(numbers), numbers), pc.less(pc.abs(numbers), float(MAX_EXACT_FLOAT)))
    digits = pc.if_else(whole, numbers, None).cast(pa.int64()).cast(pa.string())
    others = _mask(pc.and_(pc.is_valid(numbers), pc.invert(whole)))
    if pa.types.is_float32(plain.type):
        return digits, others  # 0.1 is 0.10000000149011612 there
    return _with_others(digits, numbers, others, kind)


def _without_blanks(text: pa.ChunkedArray) -> pa.ChunkedArray:
    blank = pc.equal(pc.utf8_trim_whitespace(text), "")
    return _null_where(blank, text) if pc.any(blank).as_py() else text


def _numbers_of_numbers(plain: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the nearest double of each number; Arrow's own cast of decimals is not always the nearest."""
    if pa.types.is_decimal(plain.type):
        plain = plain.cast(pa.string())
    return _without_nan(plain.cast(pa.float64(), safe=False))


def _numbers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        numbers = pc.cast(text, pa.float64())
        if pc.all(pc.is_finite(numbers)).as_py() in (True, None):
            return numbers
    except pa.ArrowInvalid:
        pass  # at least one is not a number: check each
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.match_substring_regex(trimmed, f"^({NUMBER_PATTERN})$"), trimmed, None).cast(pa.float64())


def _integers(text: pa.ChunkedArray) -> pa.ChunkedArray:
    trimmed = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.match_substring_regex(trimmed, _INTEGER), trimmed, None).cast(pa.int64())


def _flags(text: pa.ChunkedArray) -> pa.ChunkedArray:
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    return pc.bit_wise_and(pc.index_in(lower, value_set=_FLAGS), 1).cast(pa.int8())


def _times_of_timestamps(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, Mask]:
    """Return the times in microseconds; without a form is one that is finer, or outside the years 1 to 9999."""
    counts = values.cast(pa.timestamp(values.type.unit)).cast(pa.int64())
    if values.type.unit == "ns":
        numbers = pc.fill_null(counts, 0).to_numpy()
        bad = numbers % 1_000 != 0
    else:
        factor = _MICROSECONDS[values.type.unit]
        bad = _outside(counts, -(-MIN_MICROSECONDS // factor), MAX_MICROSECONDS // factor)
    kept = _null_where(pa.array(bad), values) if bad.any() else values
    return kept.cast(_TIME_TYPE), bad


def _times_of_text(text: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the times of plain texts; null for every other one."""
    trimmed = pc.utf8_trim_whitespace(text)
    written = pc.if_else(pc.match_substring_regex(trimmed, _TIME), trimmed, None)
    try:
        times = written.cast(_TIME_TYPE)
    except pa.ArrowInvalid:  # at least one is not a valid date: each is converted by `canonical`
        return pa.chunked_array([pa.nulls(len(text), _TIME_TYPE)])
    outside = _outside(times.cast(pa.int64()), MIN_MICROSECONDS, MAX_MICROSECONDS)
    return _null_where(pa.array(outside), times) if outside.any() else times


def _outside(counts: pa.ChunkedArray, least: int, most: int) -> Mask:
    return _mask(pc.or_(pc.less(counts, least), pc.greater(counts, most)))


def _without_nan(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    nan = pc.is_nan(numbers)
    return _null_where(nan, numbers) if pc.any(nan).as_py() else numbers


def _null_where(mask: Any, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(mask, pa.scalar(None, values.type), values)


def _mask(values: pa.ChunkedArray) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)
