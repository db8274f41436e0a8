"""Names and values as SQL writes them, in DuckDB's dialect, safe whatever a column or a value is called."""

import math
from collections.abc import Iterable


def name(column: str) -> str:
    """Return a column's name, quoted."""
    return '"' + column.replace('"', '""') + '"'


def names(columns: Iterable[str]) -> str:
    """Return columns' names, quoted, with commas between."""
    return ", ".join(map(name, columns))


def select(what: str, source: str, *clauses: str) -> str:
    """Return a query; what it is made of was quoted by `name` and `literal`."""
    return " ".join((f"SELECT {what} FROM {source}", *clauses))  # noqa: S608 - identifiers and literals are quoted


def literal(value: object) -> str:
    """Return a finite number or a text as a literal; a float as the double that it is.

    Raises:
        ValueError: it is neither, and has no literal here.
    """
    if isinstance(value, str) and "\x00" not in value:
        return "'" + value.replace("'", "''") + "'"
    if is_number(value):
        return str(value) if isinstance(value, int) else _double(float(str(value)))
    raise ValueError(f"{value!r} has no literal")


def is_number(value: object) -> bool:
    """Tell whether the value is a finite number, whole ones within 64 bits; True and False are none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _double(value: float) -> str:
    text = repr(value)
    return text if "e" in text else f"{text}e0"  # without an exponent it would be a decimal
