"""DataFrames as sources, and columns of Python values, whose types pandas and databases leave open."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import pandas as pd
import pyarrow as pa

from blocks.errors import Rejected
from blocks.sources.base import (
    SourceTable,
    check_kinds,
    check_names,
    not_empty,
    numbered,
    row_text,
    typed,
)


def from_frame(frame: pd.DataFrame, *, kinds: Mapping[str, str], description: str = "DataFrame") -> SourceTable:
    """Return the declared columns of a DataFrame, which is not changed. NaN, NaT and None are nulls.

    Raises:
        Rejected: columns that are missing or there twice, no rows, or values that have no place in a table.
    """
    check_kinds(kinds)
    ignored = check_names([str(name) for name in frame.columns], kinds, description)
    plain = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    raw = pa.table({column: _of_series(plain[column]) for column in kinds})
    source = typed(raw, numbered("row", 1, raw.num_rows), kinds, row_text(raw))
    return not_empty(replace(source, description=description, ignored=ignored))


def of_values(values: Iterable[object]) -> pa.ChunkedArray:
    """Return a column of Python values; when their types do not agree, all as text.

    Raises:
        Rejected: a text that is not Unicode (half of a surrogate pair).
    """
    listed = list(values)
    try:
        return pa.chunked_array([pa.array(listed, from_pandas=True)])
    except UnicodeEncodeError as cause:
        raise Rejected(f"{cause.object!r} is not Unicode text ({cause.reason}). Mend it in the source.") from cause
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        text = [None if _missing(value) else str(value) for value in listed]
        return pa.chunked_array([pa.array(text, type=pa.string())])


def _of_series(series: pd.Series) -> pa.ChunkedArray:
    if series.dtype == object:
        return of_values(series.tolist())
    try:
        array = pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as cause:
        raise Rejected(f"column {series.name!r} is of type {series.dtype}: {cause}. Convert it.") from cause
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124  (NaN)
