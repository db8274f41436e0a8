"""The schedule of a model: its next runs, from the deployments and planned runs of a Prefect server."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule, FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule

from tasks.dashboard.schedule import concerns_model, is_paused, is_scheduled, next_start

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
NIGHTLY = CronSchedule(cron="0 2 * * *")


def deployment(active: bool | None = True, default: Any = ..., **more: Any) -> DeploymentResponse:
    """A deployment; `active` None has no schedule, `default` is the default of its flow's parameter `model`."""
    schedules = [] if active is None else [DeploymentSchedule(schedule=NIGHTLY, active=active)]
    properties = {} if default is ... else {"model": {"default": default}}
    return DeploymentResponse(
        id=uuid4(), name="nightly", flow_id=uuid4(), schedules=schedules,
        parameter_openapi_schema={"properties": properties}, **more,
    )  # fmt: skip


def test_only_what_has_a_schedule_is_on_schedule() -> None:
    assert is_scheduled(deployment()) and not is_scheduled(deployment(active=None))


def test_a_deployment_or_all_its_schedules_may_be_paused() -> None:
    assert not is_paused(deployment())
    assert is_paused(deployment(active=False)) and is_paused(deployment(paused=True))


CASES = {
    "the model by name": ({"model": "churn"}, None, True),
    "another model": ({"model": "price"}, None, False),
    "every model": ({"model": ""}, None, True),
    "every model, by the flow's default": ({}, "", True),
    "a model that must be given": ({}, None, False),
    "no model at all": ({}, ..., False),
}


@pytest.mark.parametrize(("parameters", "default", "expected"), CASES.values(), ids=CASES)
def test_a_deployment_is_about_a_model_by_its_parameters(parameters: Any, default: Any, expected: bool) -> None:
    assert concerns_model(deployment(default=default, parameters=parameters), "churn") is expected


def test_the_next_start_is_the_first_that_a_schedule_planned() -> None:
    def planned(hours: int, auto: bool = True) -> FlowRun:
        at = NOW + timedelta(hours=hours)
        return FlowRun(flow_id=uuid4(), next_scheduled_start_time=at, expected_start_time=at, auto_scheduled=auto)

    assert next_start([planned(26), planned(2), planned(1, auto=False)]) == NOW + timedelta(hours=2)
    assert next_start([]) is None and next_start([planned(1, auto=False)]) is None
