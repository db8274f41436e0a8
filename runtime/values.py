"""The canonical form of a value: what a key, category, flag, number or time is, whatever way it came in.

`canonical` defines the form of one Python value. Columns of Arrow are converted by `blocks.sources.columns`, which
calls it for every value that its vectorised rules do not cover. `docs/values.md` has the table.

A value without a canonical form raises NoCanonicalForm: a row is set aside, a request is refused.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import numpy as np

KIND_DESCRIPTIONS: Final[Mapping[str, str]] = {
    "number": "a number",
    "integer": "a whole number",
    "flag": "a flag (0 or 1)",
    "category": "a text",
    "key": "a key (text or a whole number)",
    "text": "a text",
    "time": "a time with a zone (such as 2026-01-31T08:00:00Z)",
}
"""Description of each kind, for messages such as "not a number"."""

FORMS_VERSION: Final = "2"
"""The version of these forms, which snapshots and model versions record; those without it are of an earlier release."""

LABEL_KINDS: Final = frozenset({"key", "category", "text"})
"""The kinds whose canonical form is a text."""

NUMBER_PATTERN: Final = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
"""A number as text, without blanks around it."""

WHOLE_FLOAT_PATTERN: Final = r"-?(0|[1-9][0-9]*)\.0+"
"""A whole number that a program wrote as a float, such as 1000.0: a key or category loses the point."""

SCIENTIFIC_PATTERN: Final = r"[+-]?([0-9]+(\.[0-9]+)?[eE]\+[0-9]+|[0-9]\.[0-9]+[eE][0-9]+)"
"""A number in scientific notation, such as 1.23457E+11 of a spreadsheet: as a key it has lost digits."""

BOOLEAN_TEXTS: Final[Mapping[str, str]] = {
    "True": "True", "true": "True", "TRUE": "True", "False": "False", "false": "False", "FALSE": "False",
}  # fmt: skip
"""The texts of true and false, with the canonical text of the category."""

MAX_EXACT_FLOAT: Final = 2**53
"""From here on two whole numbers can be the same float."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]((?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.([0-9]+))?"
    r"(Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_NUMBER, _WHOLE_FLOAT, _SCIENTIFIC = map(re.compile, (NUMBER_PATTERN, WHOLE_FLOAT_PATTERN, SCIENTIFIC_PATTERN))
_FLAG_WORDS = {"true": 1, "false": 0}
_LARGEST_INTEGER = 10**18 - 1  # as many digits fit into every engine's integer


class NoCanonicalForm(ValueError):
    """The value has no canonical form as this kind; the message gives the reason, "" when the kind says it all."""


def canonical(value: object, kind: str) -> Any:
    """Return the canonical form of a value; None for a missing one.

    The form of a key, category or text is a str, of a number a float, of an integer an int, of a flag 0 or 1, and of a
    time a datetime in UTC. Missing are None, NaN, NaT and blank text.

    Raises:
        NoCanonicalForm: the value has none.
        KeyError: there is no such kind.
    """
    rule = _RULES[kind]
    if is_missing(value):
        return None
    if isinstance(value, np.generic) and not isinstance(value, np.datetime64 | np.timedelta64):
        if isinstance(value, np.float32 | np.float16) and kind in LABEL_KINDS and not float(value).is_integer():
            raise NoCanonicalForm("a float of 32 bits with a fraction has no canonical text; convert it in the source")
        value = value.item()
    if isinstance(value, str) and _is_blank(value):
        return None
    return rule(value)


def is_missing(value: object) -> bool:
    """Return whether a value is None, NaN, NaT or pandas' NA."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, np.datetime64 | np.timedelta64):
        return bool(np.isnat(value))
    if isinstance(value, Decimal):
        return value.is_nan()
    return isinstance(value, float | np.floating) and bool(value != value)  # noqa: PLR0124  (NaN)


def label_text(text: str, kind: str) -> str:
    """Return the canonical text of a key, category or text that is written as text.

    Letters, blanks around it and its Unicode form stay as they are written.

    Raises:
        NoCanonicalForm: it holds NUL or half of a surrogate pair, or it is a key in scientific notation.
    """
    if "\0" in text:
        raise NoCanonicalForm("it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NoCanonicalForm("it holds half of a surrogate pair, which is no character") from None
    if kind == "text":
        return text
    if _WHOLE_FLOAT.fullmatch(text):
        whole = text.partition(".")[0]
        return "0" if whole == "-0" else whole
    if kind == "key" and _SCIENTIFIC.fullmatch(text):
        raise NoCanonicalForm("a number in scientific notation has lost digits; write the key with all its digits")
    return BOOLEAN_TEXTS.get(text, text) if kind == "category" else text


def _label(value: object, kind: str) -> str:
    if isinstance(value, bool):
        if kind == "key":
            raise NoCanonicalForm("true and false are no keys")
        return str(value)
    for types, text in _LABELS:
        if isinstance(value, types):
            return text(value, kind)
    raise NoCanonicalForm(f"a {type(value).__name__} has no canonical text; convert it in the source")


def _float_label(value: float, kind: str) -> str:
    if not math.isfinite(value):
        raise NoCanonicalForm("infinity has no canonical text")
    if abs(value) >= MAX_EXACT_FLOAT:
        raise NoCanonicalForm  # it has lost digits
    return str(int(value)) if value.is_integer() else repr(value)


def _decimal_label(value: Decimal, kind: str) -> str:
    if not value.is_finite() or value != value.to_integral_value():
        raise NoCanonicalForm("a decimal with a fraction has no canonical text (1.5 and 1.50 would be two); write text")
    return str(int(value))


def _date_label(value: date, kind: str) -> str:
    if isinstance(value, datetime):
        raise NoCanonicalForm("a time has no canonical text; convert it in the source")
    return value.isoformat()


def _number(value: object) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        return float(text)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise NoCanonicalForm("it is larger than any float") from None
    raise NoCanonicalForm


def _integer(value: object) -> int:
    number = Decimal(text) if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()) else value
    if isinstance(number, bool) or not isinstance(number, int | float | Decimal):
        raise NoCanonicalForm
    largest = MAX_EXACT_FLOAT if isinstance(number, float) else _LARGEST_INTEGER + 1
    if not -largest < number < largest or int(number) != number:
        raise NoCanonicalForm
    return int(number)


def _flag(value: object) -> int:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and (word := value.strip().lower()) in _FLAG_WORDS:
        return _FLAG_WORDS[word]
    number = _number(value)
    if number not in (0, 1):
        raise NoCanonicalForm
    return int(number)


def _time(value: object) -> datetime:
    if isinstance(value, str):
        return _time_of_text(value.strip())
    if not isinstance(value, datetime):
        raise NoCanonicalForm
    if value.tzinfo is None:
        raise NoCanonicalForm("it has no zone; give it one in the source, such as UTC")
    if getattr(value, "nanosecond", 0):  # of pandas
        raise NoCanonicalForm("it is finer than a microsecond, which would be lost; round it in the source")
    try:
        return datetime.fromisoformat(value.isoformat()).astimezone(UTC)
    except (OverflowError, ValueError):
        raise NoCanonicalForm("it is outside the years 1 to 9999 in UTC") from None


def _time_of_text(text: str) -> datetime:
    found = _TIME.fullmatch(text)
    if found is None:
        raise NoCanonicalForm
    day, clock, fraction, zone = found[1], found[2], (found[3] or "").rstrip("0"), found[4]
    if len(fraction) > 6:
        raise NoCanonicalForm("it is finer than a microsecond, which would be lost; round it in the source")
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{fraction:0<6}{zone}").astimezone(UTC)
    except OverflowError:
        raise NoCanonicalForm("it is outside the years 1 to 9999 in UTC") from None
    except ValueError:
        raise NoCanonicalForm("there is no such day") from None


def _is_blank(text: str) -> bool:
    return not text or text.isspace()


_LABELS: Final[tuple[tuple[type, Callable[[Any, str], str]], ...]] = (
    (str, label_text),
    (int, lambda value, kind: str(value)),
    (float, _float_label),
    (Decimal, _decimal_label),
    (UUID, lambda value, kind: str(value)),
    (date, _date_label),
)
"""The canonical text of the types that have one."""

_RULES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "key": lambda value: _label(value, "key"),
    "category": lambda value: _label(value, "category"),
    "text": lambda value: _label(value, "text"),
    "number": _number,
    "integer": _integer,
    "flag": _flag,
    "time": _time,
}

MIN_MICROSECONDS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // (datetime.resolution)
"""The earliest time, year 1, in microseconds since 1970."""
MAX_MICROSECONDS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // (datetime.resolution)
"""The latest time, year 9999, in microseconds since 1970."""
