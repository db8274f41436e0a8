"""What to end in a cloud account: jobs that nobody waits for, endpoints that nobody asks, checkpoints of the past."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

Price = Callable[[str, str], float | None]
"""US dollars an hour of one instance, by use ("training", "hosting", "transform") and type; None without a price."""
Idle = Literal["report", "scale_down", "delete"]
"""What is done with an endpoint that nobody asks."""


class Job(Protocol):
    """A job that runs; `blocks.cloud.base.PaidJob` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def flow_run(self) -> str:
        """The id of the flow run that submitted it, or ""."""

    @property
    def instance_type(self) -> str:
        """What it runs on."""

    @property
    def count(self) -> int:
        """How many instances it runs on."""

    @property
    def started(self) -> datetime:
        """When it was created."""

    @property
    def max_seconds(self) -> int:
        """Its limit of run time."""


class Endpoint(Protocol):
    """An endpoint in service; `blocks.cloud.base.PaidEndpoint` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def config(self) -> str:
        """The configuration by which it can be made again."""

    @property
    def instance_type(self) -> str:
        """What it runs on."""

    @property
    def since(self) -> datetime:
        """When it was last changed."""

    @property
    def requests(self) -> float:
        """How many requests it got within the time that is asked for."""

    @property
    def count(self) -> int:
        """How many instances it runs on."""

    @property
    def variants(self) -> Collection[str]:
        """The names of its variants, each of which keeps an instance."""


class Left(Protocol):
    """The checkpoints of one job; `blocks.cloud.base.Checkpoints` is one."""

    @property
    def job(self) -> str:
        """Which job left them."""

    @property
    def bytes(self) -> int:
        """How large they are."""

    @property
    def newest(self) -> datetime:
        """When the newest was written."""


@dataclass(frozen=True)
class Action:
    """One thing to do, for which reason, and what it saves at most: US dollars in all for a job, a day for others.

    `usd` is None when there is no price, and when nothing is saved but bytes.
    """

    do: Literal[
        "stop job", "stop transform", "scale down endpoint", "delete endpoint", "report endpoint", "remove checkpoints"
    ]
    name: str
    reason: str
    usd: float | None = None
    bytes: int = 0


def orphans(
    jobs: Iterable[Job],
    ended: Callable[[str], bool],
    price: Price,
    now: datetime,
    use: Literal["training", "transform"] = "training",
) -> list[Action]:
    """Return what to do with jobs of one `use` whose flow run has ended: nobody will use what they make.

    A job that names no flow run is no orphan: it is not known who waits for it.
    """
    found = []
    for job in jobs:
        if job.flow_run and ended(job.flow_run):
            hourly = price(use, job.instance_type)
            left = max(0.0, job.max_seconds - (now - job.started).total_seconds()) / 3600
            usd = None if hourly is None else hourly * job.count * left
            found.append(
                Action(
                    "stop job" if use == "training" else "stop transform",
                    job.name,
                    f"its flow run {job.flow_run} has ended",
                    usd,
                )
            )
    return found


def idle(endpoints: Iterable[Endpoint], hours: float, what: Idle, price: Price, now: datetime) -> list[Action]:
    """Return what to do with endpoints that had no request for `hours` and were not changed within them."""
    found = []
    for endpoint in endpoints:
        if endpoint.requests == 0 and now - endpoint.since >= timedelta(hours=hours):
            spare = endpoint.count - len(endpoint.variants)
            if what == "scale_down" and spare <= 0:
                continue
            hourly, instances = (
                price("hosting", endpoint.instance_type),
                spare if what == "scale_down" else endpoint.count,
            )
            usd = None if hourly is None else hourly * instances * 24
            do: dict[Idle, Literal["scale down endpoint", "delete endpoint", "report endpoint"]] = {
                "report": "report endpoint", "scale_down": "scale down endpoint", "delete": "delete endpoint"
            }  # fmt: skip
            reason = f"no request for {hours:g} hours; its configuration {endpoint.config} stays"
            found.append(Action(do[what], endpoint.name, reason, usd))
    return found


def expired(left: Iterable[Left], running: Collection[str], days: float, now: datetime) -> list[Action]:
    """Return what to do with checkpoints older than `days` of jobs that do not run."""
    return [
        Action("remove checkpoints", each.job, f"the newest is older than {days:g} days", bytes=each.bytes)
        for each in left
        if not any(name == each.job or name.startswith(f"{each.job}-") for name in running)  # -2: its second attempt
        and now - each.newest >= timedelta(days=days)
    ]
