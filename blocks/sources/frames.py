"""DataFrames as sources, and columns of Python values without a fixed type."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import pandas as pd
import pyarrow as pa

from blocks.common.errors import Rejected
from blocks.sources.base import (
    RowBatch,
    Source,
    check_kinds,
    check_names,
    number_range,
    row_as_json,
    to_typed_batch,
)
from blocks.sources.columns import Mask, canonical_column
from runtime.values import is_missing

_BATCH_ROWS = 65_536


class FrameSource(Source):
    """The rows of a DataFrame, which is not modified. NaN, NaT and None are nulls.

    Raises:
        Rejected: missing or duplicate columns, or values that a table cannot hold.
    """

    def __init__(self, frame: pd.DataFrame, kinds: Mapping[str, str], description: str = "DataFrame") -> None:
        check_kinds(kinds)
        names = [str(name) for name in frame.columns]
        self.kinds, self.description = kinds, description
        self._ignored = check_names(names, kinds, description)
        self._frame = frame.set_axis(names, axis="columns")

    def batches(self) -> Iterator[RowBatch]:
        """Convert the rows in batches: see `Source.batches`."""
        for first in range(0, len(self._frame), _BATCH_ROWS):
            part = self._frame[first : first + _BATCH_ROWS]
            columns = {column: _column_from_series(part[column], kind) for column, kind in self.kinds.items()}
            yield batch_from_columns(columns, number_range(first + 1, len(part)), self.kinds)


@dataclass(frozen=True)
class ValueColumn:
    """A column of Python values: in Arrow, and converted to its kind if its values are of several types."""

    raw: pa.ChunkedArray
    converted: tuple[pa.ChunkedArray, Mask] | None = None


def batch_from_columns(columns: Mapping[str, ValueColumn], numbers: pa.Array, kinds: Mapping[str, str]) -> RowBatch:
    """Return the batch of rows of these columns, with the rows that do not fit as unreadable ones."""
    raw = pa.table({name: column.raw for name, column in columns.items()})
    converted = {name: column.converted for name, column in columns.items() if column.converted is not None}
    return to_typed_batch(raw, numbers, "row", kinds, row_as_json(raw), converted=converted)


def column_from_values(values: Iterable[object], kind: str) -> ValueColumn:
    """Return a column of Python values. Each value of a column of several types is converted by its own type.

    Raises:
        Rejected: a text is not Unicode (half of a surrogate pair).
    """
    listed = list(values)
    types = {type(value) for value in listed if not is_missing(value)}
    if len(types) <= 1 and not types & _OWN_RULES:
        try:
            array = pa.array(listed, from_pandas=True)
            return ValueColumn(pa.chunked_array([array]))
        except UnicodeEncodeError as cause:
            problem = f"{cause.object!r} is not Unicode text ({cause.reason})"
            raise Rejected(f"{problem}. Correct it in the source.") from cause
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass  # such as whole numbers of more than 64 bits
    shown = [None if is_missing(value) else _as_text(value) for value in listed]
    return ValueColumn(pa.chunked_array([pa.array(shown, pa.string())]), canonical_column(listed, kind))


def _column_from_series(series: pd.Series, kind: str) -> ValueColumn:
    if series.dtype == object:
        return column_from_values(series.tolist(), kind)
    try:
        array = pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as cause:
        raise Rejected(f"column {series.name!r} is of type {series.dtype}: {cause}. Convert it.") from cause
    return ValueColumn(array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array]))


def _as_text(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()


_OWN_RULES = {pd.Timestamp, datetime, UUID}
"""Types of which Arrow would lose the zone, the nanoseconds or the meaning."""
