"""The scheduled Prefect deployments of a model, and their next runs."""

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
    """Return the scheduled deployments of a model, the next run first.

    Errors of Prefect's client are passed on when the server does not answer.
    """
    with get_client(sync_client=True) as client:
        deployments = [each for each in _deployments(client) if is_scheduled(each) and concerns_model(each, model)]
        runs = [
            ScheduledRun(
                f"{client.read_flow(each.flow_id).name}/{each.name}",
                next_start(_scheduled_flow_runs(client, each)),
                is_paused(each),
            )
            for each in deployments
        ]
    return tuple(sorted(runs, key=lambda run: (run.at is None, run.at and run.at.timestamp(), run.deployment)))


def is_scheduled(deployment: DeploymentResponse) -> bool:
    """Return whether the deployment has a schedule."""
    return bool(deployment.schedules)


def is_paused(deployment: DeploymentResponse) -> bool:
    """Return whether the deployment is paused, or none of its schedules is active."""
    return deployment.paused or not any(schedule.active for schedule in deployment.schedules)


def concerns_model(deployment: DeploymentResponse, model: str) -> bool:
    """Return whether the deployment runs for the model, or for every model (the parameter is "")."""
    described = (deployment.parameter_openapi_schema or {}).get("properties", {})
    if "model" not in described:
        return False
    return deployment.parameters.get("model", described["model"].get("default")) in (model, "")


def next_start(runs: Sequence[FlowRun]) -> datetime | None:
    """Return the start of the first scheduled run. Retries, and runs that a person started, are ignored."""
    starts = [run.next_scheduled_start_time or run.expected_start_time for run in runs if run.auto_scheduled]
    return min((start for start in starts if start), default=None)


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    deployments: list[DeploymentResponse] = []
    while page := client.read_deployments(limit=_PAGE, offset=len(deployments)):
        deployments += page
    return deployments


def _scheduled_flow_runs(client: SyncPrefectClient, deployment: DeploymentResponse) -> list[FlowRun]:
    planned = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=planned),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=10,
    )
