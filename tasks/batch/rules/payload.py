"""Rows as the container's `/invocations` takes them, and its answers as numbers: the same values, nothing rounded."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.shared.rules.refusal import Refusal

MAX_REQUEST_BYTES = 4 * 2**20
"""The largest request: SageMaker takes 6 MB by default."""
MAX_REQUEST_ROWS = 10_000
"""The most rows of a request."""


def split_into_requests(table: pa.Table, columns: Sequence[str]) -> list[tuple[bytes, pa.Table]]:
    """Return requests for all rows, in order, each with the rows that it asks for; halved until they are small enough.

    Raises:
        Refusal: one row alone is too large.
    """
    made: list[tuple[bytes, pa.Table]] = []
    for start in range(0, table.num_rows, MAX_REQUEST_ROWS):
        made += _halve_until_fitting(table.slice(start, MAX_REQUEST_ROWS), columns)
    return made


def request_body(table: pa.Table, columns: Sequence[str]) -> bytes:
    """Return the rows as a JSON body for `/invocations`. A number that is none (NaN) is missing, as in a frame."""
    values = [[_json_value(value) for value in table.column(name).to_pylist()] for name in columns]
    rows = [list(row) for row in zip(*values, strict=True)]
    try:
        return json.dumps({"dataframe_split": {"columns": list(columns), "data": rows}}, allow_nan=False).encode()
    except (TypeError, ValueError) as cause:
        raise Refusal(f"a row cannot be sent to a scoring server: {cause}",
                      remedy="Mend the value; nothing was scored.") from cause  # fmt: skip


def parse_predictions(body: bytes, rows: int) -> np.ndarray:
    """Return the predictions of an answer: of shape (rows,), or (rows, classes).

    Raises:
        Refusal: it is no answer with a number, or a list of numbers, for each row.
    """
    try:
        found = json.loads(body)["predictions"]
        plain = [list(row.values()) if isinstance(row, dict) else row for row in found]
        numbers = np.asarray(plain, dtype=np.float64)
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise Refusal("an answer of the scoring server holds no predictions",
                      value=body[:200].decode(errors="replace")) from cause  # fmt: skip
    if numbers.ndim not in (1, 2) or len(numbers) != rows:
        raise Refusal(f"the scoring server answered {rows} rows with predictions of the shape {numbers.shape}")
    return numbers


def _halve_until_fitting(table: pa.Table, columns: Sequence[str]) -> list[tuple[bytes, pa.Table]]:
    body, rows = request_body(table, columns), table.num_rows
    if len(body) <= MAX_REQUEST_BYTES:
        return [(body, table)]
    if rows == 1:
        raise Refusal("one row is larger than a scoring server takes", value=f"{len(body):,} bytes",
                      remedy=f"Take it out: at most {MAX_REQUEST_BYTES:,}.")  # fmt: skip
    return _halve_until_fitting(table.slice(0, rows // 2), columns) + _halve_until_fitting(
        table.slice(rows // 2), columns
    )


def _json_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)  # a model of numbers takes 1 and 0, and not true and false
    return None if isinstance(value, float) and math.isnan(value) else value
