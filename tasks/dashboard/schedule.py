"""What Prefect will start of a model by itself, and when."""

from collections.abc import Sequence
from datetime import datetime

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort

from tasks.dashboard.rules.facts import ScheduledRun

_PAGE = 100


def scheduled_runs(model: str) -> tuple[ScheduledRun, ...]:
    """Return the deployments of a model that a schedule starts, the next first.

    Raises whatever Prefect's client does when the server does not answer.
    """
    with get_client(sync_client=True) as client:
        found = [each for each in _deployments(client) if is_scheduled(each) and concerns_model(each, model)]
        runs = [
            ScheduledRun(
                f"{client.read_flow(each.flow_id).name}/{each.name}",
                next_start(_scheduled_flow_runs(client, each)),
                is_paused(each),
            )
            for each in found
        ]
    return tuple(sorted(runs, key=lambda run: (run.at is None, run.at and run.at.timestamp(), run.deployment)))


def is_scheduled(deployment: DeploymentResponse) -> bool:
    """Whether the deployment has a schedule at all."""
    return bool(deployment.schedules)


def is_paused(deployment: DeploymentResponse) -> bool:
    """Whether no schedule of the deployment starts anything now."""
    return deployment.paused or not any(schedule.active for schedule in deployment.schedules)


def concerns_model(deployment: DeploymentResponse, model: str) -> bool:
    """Whether a run of the deployment is about the model: by name, or about every model, which "" stands for."""
    described = (deployment.parameter_openapi_schema or {}).get("properties", {})
    if "model" not in described:
        return False
    return deployment.parameters.get("model", described["model"].get("default")) in (model, "")


def next_start(runs: Sequence[FlowRun]) -> datetime | None:
    """Return when the first of the planned runs is to start; a retry, or one that a person started, is none."""
    starts = [run.next_scheduled_start_time or run.expected_start_time for run in runs if run.auto_scheduled]
    return min((start for start in starts if start), default=None)


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(limit=_PAGE, offset=len(found)):
        found += page
    return found


def _scheduled_flow_runs(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    planned = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=planned),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=10,
    )
