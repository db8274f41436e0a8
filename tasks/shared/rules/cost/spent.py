"""What was spent: a run's own cost, and the sums by model and month.

A run that has not said what it cost counts with its worst case: one that is running, or died before it could say.
Attempts of a run that failed were paid too, and stay in the sum when a later one succeeds.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from tasks.shared.rules.cost.prices import PriceTable, Use, hourly_price
from tasks.shared.rules.cost.worst import SECONDS_PER_HOUR, Job
from tasks.shared.rules.refusal import Refusal

COST = "cost_usd"
"""The metric of a tracked run: what it cost in US dollars, its failed attempts included."""
FAILED = "cost_failed_attempts_usd"
"""The metric: what its failed attempts cost."""
BILLED = "billable_seconds"
"""The metric: what the service billed for each instance."""
WORST = "ratchet.worst_case_usd"
"""The tag: what the run may cost at worst, written before it starts."""


class Ended(Protocol):
    """How a job ended; `blocks.trainers.base.JobState` is one."""

    @property
    def seconds(self) -> float:
        """How long it ran."""

    @property
    def billable_seconds(self) -> float | None:
        """What the service bills for each instance, or None when it has not said."""

    @property
    def instance_type(self) -> str:
        """Which instance type ran it, or "" when the service has not said."""


class TrackedRun(Protocol):
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
class MonthSum:
    """What a model's runs of a month ("2026-11") cost; `open` of them count with their worst case."""

    month: str
    usd: float
    runs: int
    open: int


def actual_cost(table: PriceTable, job: Job, ended: Ended, use: Use = "training") -> tuple[float, float]:
    """Return what a job cost in US dollars, and the seconds billed for each instance.

    What the service has not said counts at its worst: all of the run's seconds, on the dearest of its types. The
    prices were believed when the work was let through, so their age is not asked again.
    """
    if not job.instance_types:
        return 0.0, 0.0
    seconds = ended.seconds + job.keep_alive_seconds if ended.billable_seconds is None else ended.billable_seconds
    types = (ended.instance_type,) if ended.instance_type else job.instance_types
    day = date.fromisoformat(table.date)
    price = max(hourly_price(table, use, job.region, kind, day) for kind in types)
    return price * job.count * seconds / SECONDS_PER_HOUR, seconds


def is_open(run: TrackedRun) -> bool:
    """Whether the run has still to say what it cost."""
    return run.status == "RUNNING" or COST not in run.metrics


def charge(run: TrackedRun) -> float:
    """Return what a run counts with: its cost; while it is open its failed attempts and its worst case.

    Raises:
        Refusal: what is written there is no amount of money.
    """
    written: tuple[float | str, ...] = (run.metrics.get(COST, 0.0),)
    if is_open(run):
        written = (run.metrics.get(FAILED, 0.0), run.tags.get(WORST, 0.0))
    try:
        usd = math.fsum(map(float, written))
    except (ValueError, OverflowError):
        usd = math.nan
    if not (math.isfinite(usd) and usd >= 0):
        remedy = f"Mend its metric {COST} or its tag {WORST}."
        raise Refusal("a tracked run has a cost that is no amount", value=written, remedy=remedy)
    return usd


def by_month(runs: Iterable[TrackedRun]) -> tuple[MonthSum, ...]:
    """Return the sums of the months in which the runs began (UTC), newest first."""
    sums: dict[str, list[tuple[float, bool]]] = {}
    for run in runs:
        if run.started is not None and (COST in run.metrics or WORST in run.tags):
            sums.setdefault(f"{run.started:%Y-%m}", []).append((charge(run), is_open(run)))
    return tuple(
        MonthSum(month, math.fsum(usd for usd, _ in charges), len(charges), sum(still for _, still in charges))
        for month, charges in sorted(sums.items(), reverse=True)
    )


def month_to_date(runs: Iterable[TrackedRun], now: datetime) -> float:
    """Return what the runs that began in the month of `now` (in UTC) cost so far, in US dollars."""
    return next((each.usd for each in by_month(runs) if each.month == f"{now:%Y-%m}"), 0.0)
