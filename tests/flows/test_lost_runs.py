"""A flow run that its worker claimed and never began does not stay pending, nor take a place of the pool, for ever."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.events.schemas.events import ResourceSpecification
from prefect.states import Pending, Scheduled

from deployments.automations import automations
from deployments.stack import Stack
from tests.support import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_a_run_that_nobody_begins_has_crashed_and_says_so(stack: Stack) -> None:
    """By the automation as it is saved, only that it looks at one run, and sooner."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)  # so that the worker, which lives here, leaves it alone
    saved = next(automation for automation in automations() if "never began" in automation.name)
    with get_client(sync_client=True) as client:
        notify = client.read_deployment_by_name("notify/notify").id
        claimed = client.create_flow_run_from_deployment(notify, state=Scheduled(scheduled_time=tomorrow))
        this = ResourceSpecification({"prefect.resource.id": f"prefect.flow-run.{claimed.id}"})
        trigger = saved.trigger.model_copy(update={"match": this, "within": timedelta(seconds=10)})
        sooner = client.create_automation(saved.model_copy(update={"name": "sooner", "trigger": trigger}))
        try:
            client.set_flow_run_state(claimed.id, Pending(), force=True)
            lost = wait_for(
                lambda: found if (found := client.read_flow_run(claimed.id)).state_name == "Crashed" else None,
                90,
                "it crashes",
            )
        finally:
            client.delete_automation(sooner)
    assert "Nothing began it for 120 s" in str(lost.state and lost.state.message)
