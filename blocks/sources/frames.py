"""DataFrames as sources, and columns of Python values without a fixed type."""

from collections.abc import Iterable, Iterator, Mapping

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
            raw = pa.table({column: _column_from_series(part[column]) for column in self.kinds})
            yield to_typed_batch(raw, number_range(first + 1, raw.num_rows), "row", self.kinds, row_as_json(raw))


def column_from_values(values: Iterable[object]) -> pa.ChunkedArray:
    """Return a column of Python values; values of different types all become text.

    Raises:
        Rejected: a text is not Unicode (half of a surrogate pair).
    """
    listed = list(values)
    try:
        return pa.chunked_array([pa.array(listed, from_pandas=True)])
    except UnicodeEncodeError as cause:
        raise Rejected(f"{cause.object!r} is not Unicode text ({cause.reason}). Correct it in the source.") from cause
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        text = [None if _missing(value) else str(value) for value in listed]
        return pa.chunked_array([pa.array(text, type=pa.string())])


def _column_from_series(series: pd.Series) -> pa.ChunkedArray:
    if series.dtype == object:
        return column_from_values(series.tolist())
    try:
        array = pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as cause:
        raise Rejected(f"column {series.name!r} is of type {series.dtype}: {cause}. Convert it.") from cause
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or value != value  # noqa: PLR0124  (NaN)
