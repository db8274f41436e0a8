"""Remove what nobody needs any more, and end what nobody uses: a dry run unless told otherwise."""

from typing import Annotated, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import Field

from flows.exclusive import one_at_a_time
from flows.parameters import EnvironmentName
from flows.run_log import send_run_log
from tasks.cleanup.rules.garbage.report import bytes_text
from tasks.cleanup.tasks import plan_garbage_collection, run_garbage_collection

GraceDays = Annotated[float, Field(ge=1, le=3650)]
IdleHours = Annotated[float, Field(ge=1, le=10_000)]
IdleEndpointAction = Literal["report", "scale_down", "delete"]


@flow(
    name="collect_garbage",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{environment}",
    on_running=[send_run_log],
)
def collect_garbage(
    environment: EnvironmentName = "local",
    grace_days: GraceDays = 30,
    dry_run: bool = True,
    idle_hours: IdleHours = 24,
    idle_endpoints: IdleEndpointAction = "report",
) -> State:
    """Remove runs, models, attempts, tiers, releases and results that nothing promoted, asked for or running needs.

    Args:
        environment: The set of adapters to run on: a file in deployments/environments/.
        grace_days: What was used within so many days stays, with all that it needs. At least 1.
        dry_run: Only show what would be done, with its bytes. Take the tick off to do it.
        idle_hours: An endpoint in the cloud account that got no request for so many hours is idle.
        idle_endpoints: What is done with idle endpoints: named in the report, left with one instance, or deleted (their configuration stays, so that they can be made again).
    """  # noqa: E501  (the form takes one line a parameter)
    with one_at_a_time(f"sweep-{environment}"):
        plan = plan_garbage_collection(environment, grace_days, idle_hours, idle_endpoints)
        planned_text = (
            f"{len(plan.remove)} things, {bytes_text(plan.bytes)}; {len(plan.cloud_actions)} in the cloud account"
        )
        if dry_run:
            return Completed(name="Planned", message=f"Would remove {planned_text}. The artifact `sweep` lists them.")
        result = run_garbage_collection(plan, environment, grace_days)
        return Completed(
            name="Swept", message=f"Removed {result.removed} things, {bytes_text(result.bytes)}, of {planned_text}."
        )
