"""Spent costs: the cost of a run, and the sums by model and month.

A run without a logged cost (it is running, or crashed before logging) counts with its worst case. Failed attempts of
a run are paid, too: they stay in the sum when a later attempt succeeds.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from blocks.records.compute import Compute
from blocks.records.tracking import TrackingRun
from tasks.shared.rules.cost.budget import SECONDS_PER_HOUR
from tasks.shared.rules.cost.prices import InstanceUse, PriceTable, hourly_price
from tasks.shared.rules.refusal import Refusal

COST_METRIC = "cost_usd"
"""Metric of a tracked run: its cost in US dollars, failed attempts included."""
FAILED_COST_METRIC = "cost_failed_attempts_usd"
"""Metric: the cost of its failed attempts in US dollars."""
BILLED_SECONDS_METRIC = "billable_seconds"
"""Metric: the seconds that the service billed for each instance."""
WORST_CASE_TAG = "ratchet.worst_case_usd"
"""Tag: the worst case of the run in US dollars, written before it starts."""


class JobStateLike(Protocol):
    """The final state of a job, such as `blocks.trainers.base.TrainingJobState`."""

    @property
    def seconds(self) -> float:
        """How long it ran, in seconds."""

    @property
    def billable_seconds(self) -> float | None:
        """The billed seconds of each instance; None when unknown."""

    @property
    def instance_type(self) -> str:
        """The instance type that ran it; "" when unknown."""


@dataclass(frozen=True)
class MonthlyCost:
    """The cost of a model's runs of a month ("2026-11"); `pending_runs` of them count with their worst case."""

    month: str
    usd: float
    runs: int
    pending_runs: int


def actual_cost(
    price_table: PriceTable, job: Compute, ended: JobStateLike, use: InstanceUse = "training"
) -> tuple[float, float]:
    """Return the cost of a job in US dollars, and the seconds billed for each instance.

    Unknown values count at their worst: all seconds of the job, on its most expensive type. The age of the prices was
    checked before the job started, and is not checked again.
    """
    if not job.instance_types:
        return 0.0, 0.0
    seconds = ended.seconds + job.keep_alive_seconds if ended.billable_seconds is None else ended.billable_seconds
    types = (ended.instance_type,) if ended.instance_type else job.instance_types
    day = date.fromisoformat(price_table.date)
    price = max(hourly_price(price_table, use, job.region, kind, day) for kind in types)
    return price * job.instance_count * seconds / SECONDS_PER_HOUR, seconds


def cost_is_pending(run: TrackingRun) -> bool:
    """Return whether the cost of the run is not logged yet."""
    return run.status == "RUNNING" or COST_METRIC not in run.metrics


def charged_cost(run: TrackingRun) -> float:
    """Return the cost that a run counts with. While it is pending: its failed attempts and its worst case.

    Raises:
        Refusal: the recorded value is not an amount of money.
    """
    written: tuple[float | str, ...] = (run.metrics.get(COST_METRIC, 0.0),)
    if cost_is_pending(run):
        written = (run.metrics.get(FAILED_COST_METRIC, 0.0), run.tags.get(WORST_CASE_TAG, 0.0))
    try:
        usd = math.fsum(map(float, written))
    except (ValueError, OverflowError):
        usd = math.nan
    if not (math.isfinite(usd) and usd >= 0):
        remedy = f"Correct its metric {COST_METRIC} or its tag {WORST_CASE_TAG}."
        raise Refusal("the recorded cost of a tracked run is not an amount", value=written, remedy=remedy)
    return usd


def monthly_costs(runs: Iterable[TrackingRun]) -> tuple[MonthlyCost, ...]:
    """Return the sums by month (UTC) of the runs' start, newest first."""
    sums: dict[str, list[tuple[float, bool]]] = {}
    for run in runs:
        if run.started is not None and (COST_METRIC in run.metrics or WORST_CASE_TAG in run.tags):
            sums.setdefault(f"{run.started:%Y-%m}", []).append((charged_cost(run), cost_is_pending(run)))
    return tuple(
        MonthlyCost(
            month, math.fsum(usd for usd, _ in charges), len(charges), sum(is_pending for _, is_pending in charges)
        )
        for month, charges in sorted(sums.items(), reverse=True)
    )


def month_to_date_cost(runs: Iterable[TrackingRun], now: datetime) -> float:
    """Return the cost so far of the runs that started in the month of `now` (UTC), in US dollars."""
    return next((each.usd for each in monthly_costs(runs) if each.month == f"{now:%Y-%m}"), 0.0)
