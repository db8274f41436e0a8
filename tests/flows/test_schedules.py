"""Schedules of `prefect.yaml`: the server plans the nightly runs at their hour, in their time zone."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName, FlowRunFilter, FlowRunFilterState
from prefect.client.schemas.filters import FlowRunFilterStateName as StateName

from local.stack import Stack
from tasks.dashboard.rules.facts import ScheduledRun
from tasks.dashboard.schedule import scheduled_runs
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def planned(deployment: str) -> list[datetime]:
    """Return when the server will start runs of the deployment."""
    named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    waiting = FlowRunFilter(state=FlowRunFilterState(name=StateName(any_=["Scheduled"])))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=named, flow_run_filter=waiting)
    return sorted(run.expected_start_time for run in runs if run.expected_start_time)


def test_the_dashboard_knows_what_of_a_model_is_planned(stack: Stack) -> None:
    wanted = {"retrain/churn-nightly", "monitor/churn-monitor-nightly", "reproduce/reproduce-nightly"}

    def all_planned() -> dict[str, ScheduledRun]:
        found = {run.deployment: run for run in scheduled_runs("churn")}
        return found if all(run.at for name, run in found.items() if name in wanted) else {}

    found = wait_for(all_planned, what="the plan of the model's nights")
    assert wanted <= set(found) and not any(run.paused for run in found.values())
    assert "ingest/ingest" not in found, "nothing starts it by itself"
    berlin = found["retrain/churn-nightly"].at.astimezone(ZoneInfo("Europe/Berlin"))
    assert (berlin.hour, berlin.minute) == (2, 0)


def test_the_nightly_retraining_is_planned_for_the_next_nights(stack: Stack) -> None:
    nights = wait_for(lambda: planned("churn-nightly"), what="the plan of the nightly retraining")
    berlin = [night.astimezone(ZoneInfo("Europe/Berlin")) for night in nights]
    assert {(night.hour, night.minute) for night in berlin} == {(2, 0)}
    assert len({night.date() for night in berlin}) == len(berlin) >= 3
