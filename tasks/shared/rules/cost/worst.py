"""The worst case of paid work: the dearest instance that may run it, for as long as it may run."""

import math
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from tasks.shared.rules.cost.prices import InstanceUse, PriceTable, hourly_price
from tasks.shared.rules.refusal import Refusal

SECONDS_PER_HOUR = 3600


class ComputeLike(Protocol):
    """What a job will ask for; `blocks.common.compute.Compute` is one."""

    @property
    def instance_types(self) -> tuple[str, ...]:
        """What may run it; empty is this machine."""

    @property
    def region(self) -> str:
        """Where."""

    @property
    def instance_count(self) -> int:
        """How many instances at once."""

    @property
    def max_seconds(self) -> int:
        """The longest that it is billed for."""

    @property
    def keep_alive_seconds(self) -> int:
        """How long its instances are billed after it."""


class EndpointComputeLike(Protocol):
    """What serving a model will ask for; `blocks.common.compute.EndpointCompute` is one."""

    @property
    def instance_type(self) -> str:
        """What serves it; "" is this machine."""

    @property
    def region(self) -> str:
        """Where."""

    @property
    def instance_count(self) -> int:
        """The most instances at once."""

    @property
    def hours_per_month(self) -> float:
        """How long it serves in a month."""


@dataclass(frozen=True)
class WorstCaseCost:
    """US dollars, and in words how they come about. `is_paid` is False for work on this machine."""

    usd: float
    explanation: str
    is_paid: bool


def training_worst_case(price_table: PriceTable, job: ComputeLike, today: date, times: int = 1) -> WorstCaseCost:
    """Return what `times` such trainings cost at worst; see `job_worst_case`."""
    return job_worst_case(price_table, "training", job, today, times)


def job_worst_case(
    price_table: PriceTable, use: InstanceUse, job: ComputeLike, today: date, count: int = 1
) -> WorstCaseCost:
    """Return what `count` such jobs cost at worst: price x instances x (longest time + warm pool).

    Raises:
        Refusal: a type that may run it has no price, or its time, its instances or its warm pool are no limit.
    """
    if not job.instance_types:
        return WorstCaseCost(0.0, "0.00 USD: it is done on this machine", is_paid=False)
    _refuse_unlimited(job, count)
    price, most_expensive_type = max(
        (hourly_price(price_table, use, job.region, kind, today), kind) for kind in job.instance_types
    )
    seconds = job.max_seconds + job.keep_alive_seconds
    usd = price * job.instance_count * seconds / SECONDS_PER_HOUR * count
    warm = f" + {job.keep_alive_seconds} s of warm pool" if job.keep_alive_seconds else ""
    jobs = f"{count} jobs x " if count > 1 else ""
    words = f"{usd:,.2f} USD: {jobs}{job.instance_count} x {most_expensive_type} at {price:g} USD an hour for {job.max_seconds} s{warm}"
    return WorstCaseCost(usd, words, is_paid=True)


def serving_worst_case(price_table: PriceTable, served: EndpointComputeLike, today: date) -> WorstCaseCost:
    """Return what serving costs a month at worst. Raises Refusal as `training_worst_case`."""
    if not served.instance_type:
        return WorstCaseCost(0.0, "0.00 USD a month: it is served on this machine", is_paid=False)
    if served.instance_count < 1 or not (math.isfinite(served.hours_per_month) and served.hours_per_month > 0):
        value = f"{served.instance_count} instances, {served.hours_per_month} hours"
        raise Refusal("serving without a limit has no worst case", value=value, remedy="Mend the endpoint's settings.")
    price = hourly_price(price_table, "hosting", served.region, served.instance_type, today)
    usd = price * served.instance_count * served.hours_per_month
    how = f"{served.instance_count} x {served.instance_type} at {price:g} USD an hour for {served.hours_per_month:g} hours"
    return WorstCaseCost(usd, f"{usd:,.2f} USD a month: {how}", is_paid=True)


def _refuse_unlimited(job: ComputeLike, times: int) -> None:
    if job.max_seconds <= 0 or job.instance_count < 1 or job.keep_alive_seconds < 0 or times < 1:
        value = f"{times} jobs of {job.instance_count} instances, {job.max_seconds} s, {job.keep_alive_seconds} s of warm pool"
        raise Refusal("work without a limit has no worst case", value=value, remedy="Mend the trainer's settings.")
