"""Quoted names and literals for SQL, safe for any column name or value.

The dialect is DuckDB's; the engines translate it.
"""

import math
from collections.abc import Iterable
from datetime import datetime


def quoted_name(identifier: str) -> str:
    """Return a column's name as SQL writes it: in double quotes, those inside doubled."""
    return '"' + identifier.replace('"', '""') + '"'


def quoted_names(columns: Iterable[str]) -> str:
    """Return columns' names, quoted, with commas between."""
    return ", ".join(map(quoted_name, columns))


def text_literal(value: str) -> str:
    """Return a text as SQL writes it: in single quotes, those inside doubled."""
    return "'" + value.replace("'", "''") + "'"


def key_text_sql(identifier: str, table: str = "") -> str:
    """Return a column read as the text of a key: an integer as its digits, as docs/buckets.md says."""
    return f"CAST({table}{'.' if table else ''}{quoted_name(identifier)} AS VARCHAR)"


def bucket_sql(identifier: str, first_digit: int) -> str:
    """Return the bucket of a key column: 1 is the first digit of the tier's, 9 of the holdout's."""
    return f"bucket_of({key_text_sql(identifier)}, {first_digit})"


def timestamp_literal(at: datetime) -> str:
    """Return a time with a zone as a literal."""
    return f"CAST({text_literal(at.isoformat())} AS TIMESTAMPTZ)"


def select_sql(what: str, source: str, *clauses: str) -> str:
    """Return a query. Its parts must be quoted by `quoted_name` and `value_literal`."""
    return " ".join((f"SELECT {what} FROM {source}", *clauses))  # noqa: S608 - identifiers and literals are quoted


def value_literal(value: object) -> str:
    """Return a finite number or a text as a literal; a float as the double that it is.

    Raises:
        ValueError: it is neither, and has no literal here.
    """
    if isinstance(value, str) and "\x00" not in value:
        return text_literal(value)
    if is_number(value):
        return str(value) if isinstance(value, int) else _double(float(str(value)))
    raise ValueError(f"{value!r} has no literal")


def is_number(value: object) -> bool:
    """Return whether the value is a finite number, whole ones within 64 bits; True and False are not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _double(value: float) -> str:
    digits = repr(value)
    return digits if "e" in digits else f"{digits}e0"  # without an exponent it would be a decimal
