"""Where rows are predicted: in the flow run, which costs nothing more, or on paid machines, which may save hours."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

SLACK = 3
"""A job may take so many times as long as expected before it is stopped; its worst case is that."""
LEAST_SECONDS = 600
"""The shortest limit of a job's time: what is small may take its time to start."""

Where = Literal["flow", "transform"]


class Machines(Protocol):
    """What is known of the paid machines; `blocks.transforms.base.Transform` is one."""

    @property
    def rows_per_second(self) -> float:
        """How many rows they predict a second."""

    @property
    def start_seconds(self) -> float:
        """How long it takes until they predict."""

    @property
    def flow_rows_per_second(self) -> float:
        """How many rows the flow run predicts a second."""

    @property
    def hour_worth_usd(self) -> float:
        """What an hour less of waiting may cost."""


@dataclass(frozen=True)
class Place:
    """Where rows are predicted, and why, in words for people. `max_seconds` is the limit of a paid job, else 0."""

    where: Where
    reason: str
    max_seconds: int = 0


def choose_place(rows: int, local_rows: int, machines: Machines | None, hourly_usd: Callable[[], float]) -> Place:
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
        return Place("flow", "the environment has no machines for batch transform")
    if rows <= local_rows:
        return Place("flow", f"{rows:,} rows are few: the model's budget has local_rows {local_rows:,}")
    here, there = rows / machines.flow_rows_per_second, machines.start_seconds + rows / machines.rows_per_second
    said = f"{_time(here)} in the flow run against {_time(there)} by batch transform, its start included"
    if here <= there:
        return Place("flow", f"{rows:,} rows take {said}")
    usd, worth = hourly_usd() * there / 3600, machines.hour_worth_usd * (here - there) / 3600
    costs = f"that costs about {usd:,.2f} USD, and the time saved is worth {worth:,.2f} USD (hour_worth_usd)"
    if usd > worth:
        return Place("flow", f"{rows:,} rows take {said}; {costs}")
    return Place("transform", f"{rows:,} rows take {said}; {costs}", max(math.ceil(SLACK * there), LEAST_SECONDS))


def place_markdown(place: Place, model: str, cost: str) -> str:
    """Return where a run predicts, why, and what it may cost, as Markdown."""
    where = {"flow": "in the flow run", "transform": "by batch transform, on paid machines"}[place.where]
    return f"## {model} is scored {where}\nBecause {place.reason}.\n\nAt worst: {cost}"


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


TRANSFORM = "ratchet.transform"
"""The tag of a tracked run: the transform job that it pays for."""
