"""Values that may stand for a missing one, such as R's NA: pointed out to people, never changed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tasks.shared.rules import sql

PLACEHOLDER_TEXTS = (
    "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "null", "(null)", "<null>", "nil", "none", "missing", "unknown",
    "undefined", "not available", "-", "--", "---", "–", "—", "?", "??", ".", "..", "\\n", "-1", "-9", "-99", "-999",
    "-9999", "999", "9999", "99999",
)  # fmt: skip
"""Texts that stand for a missing value in exports of R, SQL, pandas and spreadsheets; case and outer blanks do not
matter."""
NEGATIVE_NUMBERS = (-1, -9, -99, -999, -9999, -99999, -999999, -32768, -2147483648)
"""They are pointed out in a column of which no other value is negative."""
LARGE_NUMBERS = (999, 9999, 99999, 999999, 9999999, 2147483647)
"""They are pointed out in a column of which no other value is more than half as large."""
PLACEHOLDER_DATES = tuple(f"{date} 00:00:00" for date in ("1900-01-01", "1970-01-01", "9999-12-31"))
"""Midnights that stand for an unknown time in spreadsheets, on Unix, and in databases."""
MAX_ROWS, MAX_CELLS = 100_000, 4_000_000
"""The most rows and cells that are read: a placeholder is rarely alone."""

_HOLDS = re.compile(r"column (?P<quote>['\"])(?P<column>.+)(?P=quote) holds ['\"](?P<value>.*)['\"]$")
_MAX_NAMED = 5


@dataclass(frozen=True)
class Placeholder:
    """A value of a column that may stand for a missing one, and in how many rows it was found."""

    column: str
    value: str
    rows: int


def sample_sql(kinds: Mapping[str, str], relation: str) -> str:
    """Return the query of the first rows of a relation (SQL of a SELECT) that `find_placeholders` reads."""
    rows = min(MAX_ROWS, MAX_CELLS // max(1, len(kinds)))
    return sql.select_sql(sql.quoted_names(kinds), f"({relation}) AS r", f"LIMIT {rows}")


def find_placeholders(kinds: Mapping[str, str], rows: pa.Table) -> list[Placeholder]:
    """Return the values that may stand for missing ones, in the order of the columns.

    Args:
        kinds: the columns with their kinds: key, text, time, number, category or flag.
        rows: the columns.
    """
    found: list[Placeholder] = []
    for column, kind in kinds.items():
        values = rows[column].drop_null() if column in rows.column_names else pa.chunked_array([[]], pa.string())
        if kind == "number" and (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
            found += _numbers(column, values.cast(pa.float64(), safe=False).to_numpy())
        elif kind not in ("number", "flag"):
            known = PLACEHOLDER_DATES if pa.types.is_timestamp(values.type) else PLACEHOLDER_TEXTS
            if kind == "key":  # 999 is a key like any other
                known = tuple(each for each in known if not any(letter.isdigit() for letter in each))
            found += _texts(column, _as_text(values), known)
    return found


def _as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_timestamp(values.type):
        return values.cast(pa.string())
    seconds = values.cast(pa.timestamp("s", values.type.tz), safe=False)
    return pc.strftime(seconds, format="%Y-%m-%d %H:%M:%S")


def _texts(column: str, values: pa.ChunkedArray, known: Sequence[str]) -> Iterator[Placeholder]:
    """Yield the most frequent placeholder of a column of text, with the rows of all."""
    counts = [(str(each["values"]).strip(), each["counts"]) for each in _matching_counts(values, known)]
    if counts:
        yield Placeholder(column, max(counts, key=lambda each: each[1])[0], sum(count for _, count in counts))


def _matching_counts(values: pa.ChunkedArray, known: Sequence[str]) -> list[dict[str, Any]]:
    counts = pc.value_counts(values)
    plain = pc.utf8_lower(pc.utf8_trim_whitespace(counts.field("values")))
    return list(counts.filter(pc.is_in(plain, value_set=pa.array(known))).to_pylist())


def _numbers(column: str, values: npt.NDArray[np.float64]) -> Iterator[Placeholder]:
    """Yield the negative and the large number of a column that stand apart from its other values."""
    negative, low, high = values[values < 0], np.isin(values, NEGATIVE_NUMBERS), np.isin(values, LARGE_NUMBERS)
    if low.any() and np.isin(negative, NEGATIVE_NUMBERS).all() and len(negative) < len(values):
        yield Placeholder(column, f"{values[low].min():.10g}", int(low.sum()))
    others = values[~high]
    if high.any() and len(others) and others.max() <= values[high].max() / 2:
        yield Placeholder(column, f"{values[high].max():.10g}", int(high.sum()))


def unreadable_placeholders(reasons: Iterable[tuple[str, int]]) -> list[Placeholder]:
    """Return the placeholders among values that could not be read, such as NA in a column of numbers.

    `reasons` are the texts of the quarantine ("not a number: column 'age' holds 'NA'") with how many rows have them.
    """
    matches = ((_HOLDS.search(reason), count) for reason, count in reasons)
    named = [(match["column"], match["value"].strip(), count) for match, count in matches if match]
    return [Placeholder(*each) for each in named if each[1].lower() in PLACEHOLDER_TEXTS]


def placeholder_sentence(found: Sequence[Placeholder]) -> str:
    """Return one sentence about the values that may stand for missing ones; "" for none."""
    if not found:
        return ""
    named = [
        f"{each.value!r} in {each.rows:,} {'row' if each.rows == 1 else 'rows'} of {each.column}"
        for each in found[:_MAX_NAMED]
    ]
    more = f" and {len(found) - _MAX_NAMED} more columns" if len(found) > _MAX_NAMED else ""
    return (
        f"Possibly missing values: {', '.join(named)}{more}. They are read as values; "
        "if they mean that nothing is known, leave the cell empty in the source."
    )
