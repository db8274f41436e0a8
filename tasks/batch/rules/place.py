"""Where rows are predicted: in the flow run, which costs nothing more, or on paid machines, which may save hours."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

TIMEOUT_FACTOR = 3
"""A job may take so many times as long as expected before it is stopped; its worst case is that."""
MIN_JOB_SECONDS = 600
"""The shortest limit of a job's time: what is small may take its time to start."""

PlacementTarget = Literal["flow", "transform"]


class BatchInferenceLike(Protocol):
    """What is known of the paid machines; `blocks.batch_inference.base.BatchInference` is one."""

    @property
    def rows_per_second(self) -> float:
        """How many rows they predict a second."""

    @property
    def startup_seconds(self) -> float:
        """How long it takes until they predict."""

    @property
    def local_rows_per_second(self) -> float:
        """How many rows the flow run predicts a second."""

    @property
    def max_usd_per_hour_saved(self) -> float:
        """What an hour less of waiting may cost."""


@dataclass(frozen=True)
class BatchPlacement:
    """Where rows are predicted, and why, in words for people. `max_seconds` is the limit of a paid job, else 0."""

    target: PlacementTarget
    reason: str
    max_seconds: int = 0


def choose_placement(
    rows: int, local_rows: int, machines: BatchInferenceLike | None, hourly_usd: Callable[[], float]
) -> BatchPlacement:
    """Return where so many rows are predicted.

    Few rows stay in the flow run, and so do those that it predicts as soon as the machines would. Of the rest the
    machines get those whose expected cost is at most what the hours that they save are worth.

    Args:
        rows: how many there are.
        local_rows: up to here work is small by the model's own rule.
        machines: what could be paid for; None where the environment has none.
        hourly_usd: what an hour of all machines costs; asked where it decides, and it refuses what has no price.
    """
    if machines is None:
        return BatchPlacement("flow", "the environment has no machines for batch transform")
    if rows <= local_rows:
        return BatchPlacement("flow", f"{rows:,} rows are few: the model's budget has local_rows {local_rows:,}")
    flow_seconds, job_seconds = (
        rows / machines.local_rows_per_second,
        machines.startup_seconds + rows / machines.rows_per_second,
    )
    time_text = f"{_duration_text(flow_seconds)} in the flow run against {_duration_text(job_seconds)} by batch transform, its start included"
    if flow_seconds <= job_seconds:
        return BatchPlacement("flow", f"{rows:,} rows take {time_text}")
    usd, saving_usd = (
        hourly_usd() * job_seconds / 3600,
        machines.max_usd_per_hour_saved * (flow_seconds - job_seconds) / 3600,
    )
    costs = f"that costs about {usd:,.2f} USD, and the time saved is worth {saving_usd:,.2f} USD (hour_worth_usd)"
    if usd > saving_usd:
        return BatchPlacement("flow", f"{rows:,} rows take {time_text}; {costs}")
    return BatchPlacement(
        "transform",
        f"{rows:,} rows take {time_text}; {costs}",
        max(math.ceil(TIMEOUT_FACTOR * job_seconds), MIN_JOB_SECONDS),
    )


def placement_markdown(place: BatchPlacement, model: str, cost: str) -> str:
    """Return where a run predicts, why, and what it may cost, as Markdown."""
    where = {"flow": "in the flow run", "transform": "by batch transform, on paid machines"}[place.target]
    return f"## {model} is scored {where}\nBecause {place.reason}.\n\nAt worst: {cost}"


def _duration_text(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


BATCH_JOB_TAG = "ratchet.transform"
"""The tag of a tracked run: the transform job that it pays for."""
