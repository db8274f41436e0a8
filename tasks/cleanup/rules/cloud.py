"""Rules of the cloud cleanup: orphaned jobs, idle endpoints and old checkpoints."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from blocks.records.cloud import Checkpoints, PaidEndpoint, PaidJob

HourlyPriceLookup = Callable[[str, str], float | None]
"""Returns US dollars per hour of one instance, by use ("training", "hosting", "transform") and type, or None."""
IdleEndpointAction = Literal["report", "scale_down", "delete"]
"""What to do with an idle endpoint."""

_IDLE_ACTION_NAMES: dict[IdleEndpointAction, Literal["scale down endpoint", "delete endpoint", "report endpoint"]] = {
    "report": "report endpoint",
    "scale_down": "scale down endpoint",
    "delete": "delete endpoint",
}


@dataclass(frozen=True)
class CloudAction:
    """One action, its reason, and the largest saving in US dollars: in total for a job, per day for an endpoint.

    `saving_usd` is None without a price, and for checkpoints, which only free bytes.
    """

    action: Literal[
        "stop job", "stop transform", "scale down endpoint", "delete endpoint", "report endpoint", "remove checkpoints"
    ]
    name: str
    reason: str
    saving_usd: float | None = None
    freed_bytes: int = 0


def orphaned_job_actions(
    jobs: Iterable[PaidJob],
    flow_run_has_ended: Callable[[str], bool],
    price: HourlyPriceLookup,
    now: datetime,
    use: Literal["training", "transform"] = "training",
) -> list[CloudAction]:
    """Return the actions that stop jobs of one `use` whose flow run has ended: nobody will use their results.

    A job without a flow run is not an orphan, because its waiting run is unknown.
    """
    actions = []
    for job in jobs:
        if job.flow_run_id and flow_run_has_ended(job.flow_run_id):
            hourly = price(use, job.instance_type)
            hours_left = max(0.0, job.max_seconds - (now - job.started).total_seconds()) / 3600
            usd = None if hourly is None else hourly * job.instance_count * hours_left
            actions.append(
                CloudAction(
                    "stop job" if use == "training" else "stop transform",
                    job.name,
                    f"its flow run {job.flow_run_id} has ended",
                    usd,
                )
            )
    return actions


def idle_endpoint_actions(
    endpoints: Iterable[PaidEndpoint],
    hours: float,
    idle_action: IdleEndpointAction,
    price: HourlyPriceLookup,
    now: datetime,
) -> list[CloudAction]:
    """Return the actions on endpoints without requests for `hours` that were not changed in that time."""
    actions = []
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
            reason = f"no request for {hours:g} hours; its configuration {endpoint.endpoint_config} is kept"
            actions.append(CloudAction(_IDLE_ACTION_NAMES[idle_action], endpoint.name, reason, usd))
    return actions


def expired_checkpoint_actions(
    checkpoints: Iterable[Checkpoints], running: Collection[str], days: float, now: datetime
) -> list[CloudAction]:
    """Return the actions that remove checkpoints older than `days` of jobs that do not run."""
    return [
        CloudAction(
            "remove checkpoints", each.job, f"the newest is older than {days:g} days", freed_bytes=each.size_bytes
        )
        for each in checkpoints
        if not any(
            name == each.job or name.startswith(f"{each.job}-") for name in running
        )  # "-2" is the second attempt
        and now - each.last_modified >= timedelta(days=days)
    ]
