"""What to end in a cloud account: jobs that nobody waits for, endpoints that nobody asks, checkpoints of the past."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

HourlyPriceLookup = Callable[[str, str], float | None]
"""US dollars an hour of one instance, by use ("training", "hosting", "transform") and type; None without a price."""
IdleEndpointAction = Literal["report", "scale_down", "delete"]
"""What is done with an endpoint that nobody asks."""


class PaidJobLike(Protocol):
    """A job that runs; `blocks.cloud_cleanup.base.PaidJob` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def flow_run_id(self) -> str:
        """The id of the flow run that submitted it, or ""."""

    @property
    def instance_type(self) -> str:
        """What it runs on."""

    @property
    def instance_count(self) -> int:
        """How many instances it runs on."""

    @property
    def started(self) -> datetime:
        """When it was created."""

    @property
    def max_seconds(self) -> int:
        """Its limit of run time."""


class PaidEndpointLike(Protocol):
    """An endpoint in service; `blocks.cloud_cleanup.base.PaidEndpoint` is one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def endpoint_config(self) -> str:
        """The configuration by which it can be made again."""

    @property
    def instance_type(self) -> str:
        """What it runs on."""

    @property
    def in_service_since(self) -> datetime:
        """When it was last changed."""

    @property
    def requests(self) -> float:
        """How many requests it got within the time that is asked for."""

    @property
    def instance_count(self) -> int:
        """How many instances it runs on."""

    @property
    def instances_by_variant(self) -> Collection[str]:
        """The names of its variants, each of which keeps an instance."""


class CheckpointsLike(Protocol):
    """The checkpoints of one job; `blocks.cloud_cleanup.base.Checkpoints` is one."""

    @property
    def job(self) -> str:
        """Which job left them."""

    @property
    def size_bytes(self) -> int:
        """How large they are."""

    @property
    def last_modified(self) -> datetime:
        """When the newest was written."""


@dataclass(frozen=True)
class CloudAction:
    """One thing to do, for which reason, and what it saves at most: US dollars in all for a job, a day for others.

    `saving_usd` is None when there is no price, and when nothing is saved but bytes.
    """

    action: Literal[
        "stop job", "stop transform", "scale down endpoint", "delete endpoint", "report endpoint", "remove checkpoints"
    ]
    name: str
    reason: str
    saving_usd: float | None = None
    freed_bytes: int = 0


def orphaned_job_actions(
    jobs: Iterable[PaidJobLike],
    flow_run_has_ended: Callable[[str], bool],
    price: HourlyPriceLookup,
    now: datetime,
    use: Literal["training", "transform"] = "training",
) -> list[CloudAction]:
    """Return what to do with jobs of one `use` whose flow run has ended: nobody will use what they make.

    A job that names no flow run is no orphan: it is not known who waits for it.
    """
    found = []
    for job in jobs:
        if job.flow_run_id and flow_run_has_ended(job.flow_run_id):
            hourly = price(use, job.instance_type)
            hours_left = max(0.0, job.max_seconds - (now - job.started).total_seconds()) / 3600
            usd = None if hourly is None else hourly * job.instance_count * hours_left
            found.append(
                CloudAction(
                    "stop job" if use == "training" else "stop transform",
                    job.name,
                    f"its flow run {job.flow_run_id} has ended",
                    usd,
                )
            )
    return found


def idle_endpoint_actions(
    endpoints: Iterable[PaidEndpointLike],
    hours: float,
    idle_action: IdleEndpointAction,
    price: HourlyPriceLookup,
    now: datetime,
) -> list[CloudAction]:
    """Return what to do with endpoints that had no request for `hours` and were not changed within them."""
    found = []
    for endpoint in endpoints:
        if endpoint.requests == 0 and now - endpoint.in_service_since >= timedelta(hours=hours):
            spare = endpoint.instance_count - len(endpoint.instances_by_variant)
            if idle_action == "scale_down" and spare <= 0:
                continue
            hourly, instances = (
                price("hosting", endpoint.instance_type),
                spare if idle_action == "scale_down" else endpoint.instance_count,
            )
            usd = None if hourly is None else hourly * instances * 24
            do: dict[IdleEndpointAction, Literal["scale down endpoint", "delete endpoint", "report endpoint"]] = {
                "report": "report endpoint", "scale_down": "scale down endpoint", "delete": "delete endpoint"
            }  # fmt: skip
            reason = f"no request for {hours:g} hours; its configuration {endpoint.endpoint_config} stays"
            found.append(CloudAction(do[idle_action], endpoint.name, reason, usd))
    return found


def expired_checkpoint_actions(
    left: Iterable[CheckpointsLike], running: Collection[str], days: float, now: datetime
) -> list[CloudAction]:
    """Return what to do with checkpoints older than `days` of jobs that do not run."""
    return [
        CloudAction(
            "remove checkpoints", each.job, f"the newest is older than {days:g} days", freed_bytes=each.size_bytes
        )
        for each in left
        if not any(name == each.job or name.startswith(f"{each.job}-") for name in running)  # -2: its second attempt
        and now - each.last_modified >= timedelta(days=days)
    ]
