"""Rules of batch transform: when it is worth its price, and its requests and responses.

A request is the payload of `/invocations`: rows as JSON, and predictions as JSON, without rounding.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from runtime.foreign_text import Markdown
from tasks.shared.rules.refusal import Refusal

BATCH_JOB_TAG = "ratchet.batch_inference_job"
"""The tag of a tracked run: the transform job that it pays for."""
MAX_REQUEST_BYTES = 4 * 2**20
"""The largest request body. SageMaker accepts 6 MB by default."""
MAX_REQUEST_ROWS = 10_000
"""The largest number of rows in a request."""
TIMEOUT_FACTOR = 3
"""The time limit of a job is its expected time, multiplied by this. The worst-case cost assumes the whole limit."""
MIN_JOB_SECONDS = 600
"""The shortest time limit of a job, because a small job also needs time to start."""

PlacementTarget = Literal["flow", "transform"]


class BatchInferenceLike(Protocol):
    """The speed and worth of paid machines, as `blocks.batch_inference.base.BatchInference` has them."""

    @property
    def rows_per_second(self) -> float:
        """Rows that they predict per second."""

    @property
    def startup_seconds(self) -> float:
        """Seconds until they start to predict."""

    @property
    def local_rows_per_second(self) -> float:
        """Rows that the flow run predicts per second."""

    @property
    def max_usd_per_hour_saved(self) -> float:
        """US dollars that one saved hour may cost."""


@dataclass(frozen=True)
class BatchPlacement:
    """Where rows are predicted, and the reason in words. `max_seconds` is the time limit of a paid job, else 0."""

    target: PlacementTarget
    reason: str
    max_seconds: int = 0


def choose_placement(
    rows: int, local_rows: int, machines: BatchInferenceLike | None, hourly_usd: Callable[[], float]
) -> BatchPlacement:
    """Return where the rows are predicted.

    Paid machines are used when they are faster than the flow run, and their expected cost is at most the worth of the
    saved hours. A small number of rows always stays in the flow run.

    Args:
        rows: the number of rows.
        local_rows: up to this many rows the work is small, by the model's budget.
        machines: the paid machines; None when the environment has none.
        hourly_usd: returns the price of one hour of all machines. It is called only when the price decides, and
            raises a Refusal when there is no price.
    """
    if machines is None:
        return BatchPlacement("flow", "the environment has no machines for batch transform")
    if rows <= local_rows:
        return BatchPlacement("flow", f"{rows:,} rows are few: the model's budget has local_rows {local_rows:,}")
    flow_seconds, job_seconds = (
        rows / machines.local_rows_per_second,
        machines.startup_seconds + rows / machines.rows_per_second,
    )
    time_text = (
        f"{_duration_text(flow_seconds)} in the flow run and {_duration_text(job_seconds)} by batch transform, "
        "including its start"
    )
    if flow_seconds <= job_seconds:
        return BatchPlacement("flow", f"{rows:,} rows take {time_text}")
    usd, saving_usd = (
        hourly_usd() * job_seconds / 3600,
        machines.max_usd_per_hour_saved * (flow_seconds - job_seconds) / 3600,
    )
    costs = (
        f"the job costs about {usd:,.2f} USD, and the saved time is worth {saving_usd:,.2f} USD "
        "(max_usd_per_hour_saved)"
    )
    if usd > saving_usd:
        return BatchPlacement("flow", f"{rows:,} rows take {time_text}; {costs}")
    return BatchPlacement(
        "transform",
        f"{rows:,} rows take {time_text}; {costs}",
        max(math.ceil(TIMEOUT_FACTOR * job_seconds), MIN_JOB_SECONDS),
    )


def placement_markdown(place: BatchPlacement, model: str, cost: str) -> Markdown:
    """Return the placement, its reason and the worst-case cost as Markdown."""
    where = {"flow": "in the flow run", "transform": "by batch transform, on paid machines"}[place.target]
    report = Markdown("## Batch inference of {}: {}\nReason: {}.\n\nWorst-case cost: {}")
    return report.format(model, where, place.reason, cost)


def _duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


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
