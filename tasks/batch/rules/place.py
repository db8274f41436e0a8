"""The placement of a batch inference: in the flow run at no extra cost, or on paid machines that may save hours."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

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


def placement_markdown(place: BatchPlacement, model: str, cost: str) -> str:
    """Return the placement, its reason and the worst-case cost as Markdown."""
    where = {"flow": "in the flow run", "transform": "by batch transform, on paid machines"}[place.target]
    return f"## Batch inference of {model}: {where}\nReason: {place.reason}.\n\nWorst-case cost: {cost}"


def _duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


BATCH_JOB_TAG = "ratchet.batch_inference_job"
"""The tag of a tracked run: the transform job that it pays for."""
