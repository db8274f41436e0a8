"""A schedule in `prefect.yaml` makes runs by itself: the server plans each night at its hour, in its time zone."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateName as StateName

from deployments.stack import Stack
from tests.support import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def planned(deployment: str) -> list[datetime]:
    """Return when the server will start runs of the deployment."""
    named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    waiting = FlowRunFilter(state=FlowRunFilterState(name=StateName(any_=["Scheduled"])))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=named, flow_run_filter=waiting)
    return sorted(run.expected_start_time for run in runs if run.expected_start_time)


def test_the_nightly_retraining_is_planned_for_the_next_nights(stack: Stack) -> None:
    nights = wait_for(lambda: planned("churn-nightly"), 90, "the plan of the nightly retraining")
    berlin = [night.astimezone(ZoneInfo("Europe/Berlin")) for night in nights]
    assert {(night.hour, night.minute) for night in berlin} == {(2, 0)}
    assert len({night.date() for night in berlin}) == len(berlin) >= 3
