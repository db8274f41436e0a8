"""The rows of a frame that break an expectation, named by their key."""

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from tasks.validation.rules.outcomes import display_value
from tasks.validation.rules.suites import Expectation

MAX_EXAMPLES = 5
"""How many rows that break an expectation are shown."""

_BY_POSITION = ("expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing")
_NULL = object()


def failing_examples(
    frame: pd.DataFrame, expectation: Expectation, details: Mapping[str, Any], key: str
) -> Iterator[tuple[str, str]]:
    """Find the rows that hold the unexpected values: a row with the same values breaks the same rule."""
    columns, found = expectation.columns, 0
    values = details.get("partial_unexpected_list", ())
    if expectation.type in _BY_POSITION or not columns:
        yield from (("", display_value(value)) for value in values[:MAX_EXAMPLES])
        return
    tuples = (value for value in map(_comparable, values) if len(value) == len(columns))
    for value in dict.fromkeys(tuples):
        rows = frame.iloc[np.flatnonzero(_matching_rows(frame, columns, value))[: MAX_EXAMPLES - found]]
        found += len(rows)
        yield from rows_with_keys(rows, columns, key)


def rows_with_keys(rows: pd.DataFrame, columns: tuple[str, ...], key: str) -> Iterator[tuple[str, str]]:
    """Return for each of these rows its key and the values of the columns, as people read them."""
    for row in range(len(rows)):
        cells = [display_value(rows[name].iloc[row]) for name in columns]
        text = cells[0] if len(cells) == 1 else ", ".join(map("{}={}".format, columns, cells))
        yield display_value(rows[key].iloc[row]), text


def _comparable(value: Any) -> tuple[Hashable, ...]:
    """Return an unexpected value as the library lists it (scalar, pair or mapping) as one tuple of columns."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
    scalars = (part if pd.api.types.is_scalar(part) else repr(part) for part in parts)
    return tuple(_NULL if pd.isna(part) else part for part in scalars)


def _matching_rows(frame: pd.DataFrame, columns: tuple[str, ...], value: tuple[Hashable, ...]) -> Any:
    """Return which rows (rows,) hold exactly these values in these columns."""
    holds = np.ones(len(frame), dtype=bool)
    for name, part in zip(columns, value, strict=True):
        same = frame[name].isna() if part is _NULL else (frame[name] == part).fillna(False)
        holds &= same.to_numpy(dtype=bool)
    return holds
