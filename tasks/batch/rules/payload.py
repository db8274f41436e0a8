"""The payload of `/invocations`: rows as JSON requests, and JSON responses as numbers, without rounding."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.shared.rules.refusal import Refusal

MAX_REQUEST_BYTES = 4 * 2**20
"""The largest request body. SageMaker accepts 6 MB by default."""
MAX_REQUEST_ROWS = 10_000
"""The largest number of rows in a request."""


def split_into_requests(table: pa.Table, columns: Sequence[str]) -> list[tuple[bytes, pa.Table]]:
    """Return requests for all rows, in order, each with its rows. A request that is too large is halved.

    Raises:
        Refusal: a single row is too large.
    """
    requests: list[tuple[bytes, pa.Table]] = []
    for start in range(0, table.num_rows, MAX_REQUEST_ROWS):
        requests += _halve_until_fitting(table.slice(start, MAX_REQUEST_ROWS), columns)
    return requests


def request_body(table: pa.Table, columns: Sequence[str]) -> bytes:
    """Return the rows as a JSON body for `/invocations`. NaN becomes null."""
    values = [[_json_value(value) for value in table.column(name).to_pylist()] for name in columns]
    rows = [list(row) for row in zip(*values, strict=True)]
    try:
        return json.dumps({"dataframe_split": {"columns": list(columns), "data": rows}}, allow_nan=False).encode()
    except (TypeError, ValueError) as cause:
        raise Refusal(f"a row cannot be sent to a scoring server: {cause}",
                      remedy="Correct the value; nothing was predicted.") from cause  # fmt: skip


def parse_predictions(body: bytes, rows: int) -> np.ndarray:
    """Return the predictions of a response, of shape (rows,) or (rows, classes).

    Raises:
        Refusal: the response does not have a number, or a list of numbers, for each row.
    """
    try:
        predictions = json.loads(body)["predictions"]
        plain = [list(row.values()) if isinstance(row, dict) else row for row in predictions]
        numbers = np.asarray(plain, dtype=np.float64)
    except (ValueError, KeyError, TypeError, RecursionError) as cause:
        raise Refusal("a response of the scoring server has no predictions",
                      value=body[:200].decode(errors="replace")) from cause  # fmt: skip
    if numbers.ndim not in (1, 2) or len(numbers) != rows:
        raise Refusal(f"the scoring server answered {rows} rows with predictions of the shape {numbers.shape}")
    return numbers


def _halve_until_fitting(table: pa.Table, columns: Sequence[str]) -> list[tuple[bytes, pa.Table]]:
    body, rows = request_body(table, columns), table.num_rows
    if len(body) <= MAX_REQUEST_BYTES:
        return [(body, table)]
    if rows == 1:
        raise Refusal("a single row exceeds the request limit of the scoring server", value=f"{len(body):,} bytes",
                      remedy=f"Remove the row: the limit is {MAX_REQUEST_BYTES:,} bytes.")  # fmt: skip
    return _halve_until_fitting(table.slice(0, rows // 2), columns) + _halve_until_fitting(
        table.slice(rows // 2), columns
    )


def _json_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)  # a numeric model expects 1 and 0
    return None if isinstance(value, float) and math.isnan(value) else value
