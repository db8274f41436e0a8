"""Garbage collection: remove unreferenced runs, models and files, and stop idle cloud resources.

It is a dry run by default.
"""

from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.authorization import authorize_run
from flows.exclusive import one_at_a_time
from flows.options import FLOW_OPTIONS
from flows.outcomes import end_run
from flows.parameters import EnvironmentName, OrderId
from tasks.cleanup.rules.garbage import bytes_text
from tasks.cleanup.tasks import plan_garbage_collection, run_garbage_collection
from tasks.shared.rules.run_outcomes import run_name

GraceDays = Annotated[float, Field(ge=1, le=3650)]
IdleHours = Annotated[float, Field(ge=1, le=10_000)]
IdleEndpointAction = Literal["report", "scale_down", "delete"]


@flow(name="collect_garbage", flow_run_name="{environment}", **FLOW_OPTIONS)
def collect_garbage(
    environment: EnvironmentName = "local",
    grace_days: GraceDays = 30,
    dry_run: bool = True,
    idle_hours: IdleHours = 24,
    idle_endpoints: IdleEndpointAction = "report",
    order: OrderId = "",
) -> State:
    """Remove runs, models, attempts, tiers, releases and results without references.

    References are those of promoted versions, open approval requests and running jobs.

    Args:
        environment: The set of adapters to run on: a file in deployments/environments/.
        grace_days: Keep everything used within this many days, with its dependencies. At least 1.
        dry_run: Only report what would be removed, and its size. Clear the box to remove it.
        idle_hours: A cloud endpoint without requests for this many hours is idle.
        idle_endpoints: What to do with idle endpoints: report, scale_down (to one instance), or delete (the configuration is kept, so that they can be recreated).
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved a name.
    """  # noqa: E501  (the form takes one line a parameter)
    if not dry_run:
        authorize_run("collect_garbage", "", environment, order)
    with one_at_a_time(f"collect-garbage-{environment}"):
        plan = plan_garbage_collection(environment, grace_days, idle_hours, idle_endpoints)
        count, size = len(plan.remove), bytes_text(plan.bytes)
        planned_text = f"{count} things, {size}; {len(plan.cloud_actions)} in the cloud account"
        if dry_run:
            message = f"would remove {planned_text}. The artifact `garbage-collection` lists them."
            return end_run("planned", message, run_name(environment, f"{count} planned", size))
        result = run_garbage_collection(plan, environment, grace_days)
        removed, freed = result.removed, bytes_text(result.bytes)
        message = f"{removed} things, {freed}, of {planned_text}."
        return end_run("removed", message, run_name(environment, f"{removed} removed", freed))
