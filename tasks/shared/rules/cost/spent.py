"""What was spent: a run's own cost, and the sums by model and month.

A run that has not said what it cost counts with its worst case: one that is running, or died before it could say.
Attempts of a run that failed were paid too, and stay in the sum when a later one succeeds.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from tasks.shared.rules.cost.prices import InstanceUse, PriceTable, hourly_price
from tasks.shared.rules.cost.worst import SECONDS_PER_HOUR, ComputeLike
from tasks.shared.rules.refusal import Refusal

COST_METRIC = "cost_usd"
"""The metric of a tracked run: what it cost in US dollars, its failed attempts included."""
FAILED_COST_METRIC = "cost_failed_attempts_usd"
"""The metric: what its failed attempts cost."""
BILLED_SECONDS_METRIC = "billable_seconds"
"""The metric: what the service billed for each instance."""
WORST_CASE_TAG = "ratchet.worst_case_usd"
"""The tag: what the run may cost at worst, written before it starts."""


class JobStateLike(Protocol):
    """How a job ended; `blocks.trainers.base.TrainingJobState` is one."""

    @property
    def seconds(self) -> float:
        """How long it ran."""

    @property
    def billable_seconds(self) -> float | None:
        """What the service bills for each instance, or None when it has not said."""

    @property
    def instance_type(self) -> str:
        """Which instance type ran it, or "" when the service has not said."""


class RunLike(Protocol):
    """A run as the tracking server has it."""

    @property
    def started(self) -> datetime | None:
        """When it was started."""

    @property
    def status(self) -> str:
        """ "RUNNING" while it may still spend."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""


@dataclass(frozen=True)
class MonthlyCost:
    """What a model's runs of a month ("2026-11") cost; `pending_runs` of them count with their worst case."""

    month: str
    usd: float
    runs: int
    pending_runs: int


def actual_cost(
    price_table: PriceTable, job: ComputeLike, ended: JobStateLike, use: InstanceUse = "training"
) -> tuple[float, float]:
    """Return what a job cost in US dollars, and the seconds billed for each instance.

    What the service has not said counts at its worst: all of the run's seconds, on the dearest of its types. The
    prices were believed when the work was let through, so their age is not asked again.
    """
    if not job.instance_types:
        return 0.0, 0.0
    seconds = ended.seconds + job.keep_alive_seconds if ended.billable_seconds is None else ended.billable_seconds
    types = (ended.instance_type,) if ended.instance_type else job.instance_types
    day = date.fromisoformat(price_table.date)
    price = max(hourly_price(price_table, use, job.region, kind, day) for kind in types)
    return price * job.instance_count * seconds / SECONDS_PER_HOUR, seconds


def cost_is_pending(run: RunLike) -> bool:
    """Whether the run has still to say what it cost."""
    return run.status == "RUNNING" or COST_METRIC not in run.metrics


def charged_cost(run: RunLike) -> float:
    """Return what a run counts with: its cost; while it is open its failed attempts and its worst case.

    Raises:
        Refusal: what is written there is no amount of money.
    """
    written: tuple[float | str, ...] = (run.metrics.get(COST_METRIC, 0.0),)
    if cost_is_pending(run):
        written = (run.metrics.get(FAILED_COST_METRIC, 0.0), run.tags.get(WORST_CASE_TAG, 0.0))
    try:
        usd = math.fsum(map(float, written))
    except (ValueError, OverflowError):
        usd = math.nan
    if not (math.isfinite(usd) and usd >= 0):
        remedy = f"Mend its metric {COST_METRIC} or its tag {WORST_CASE_TAG}."
        raise Refusal("a tracked run has a cost that is no amount", value=written, remedy=remedy)
    return usd


def monthly_costs(runs: Iterable[RunLike]) -> tuple[MonthlyCost, ...]:
    """Return the sums of the months in which the runs began (UTC), newest first."""
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


def month_to_date_cost(runs: Iterable[RunLike], now: datetime) -> float:
    """Return what the runs that began in the month of `now` (in UTC) cost so far, in US dollars."""
    return next((each.usd for each in monthly_costs(runs) if each.month == f"{now:%Y-%m}"), 0.0)
