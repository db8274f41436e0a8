"""A flow run that its worker claimed and never began does not stay pending, nor take a place of the pool, for ever."""

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Pending, Scheduled

from deployments import automations
from deployments.stack import Stack
from tests.support import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow]


def test_a_run_that_nobody_begins_has_crashed_and_says_so(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)  # so that the worker, which lives here, leaves it alone
    with monkeypatch.context() as patch, get_client(sync_client=True) as client:
        patch.setattr(automations, "UNBEGUN", timedelta(seconds=10))
        automations.save_automations()
        notify = client.read_deployment_by_name("notify/notify").id
        claimed = client.create_flow_run_from_deployment(notify, state=Scheduled(scheduled_time=tomorrow))
        client.set_flow_run_state(claimed.id, Pending(), force=True)
        lost = wait_for(lambda: found if (found := client.read_flow_run(claimed.id)).state_name == "Crashed" else None,
                        90, "it crashes")  # fmt: skip
        assert "Nothing began it for 10 s" in str(lost.state and lost.state.message)
    automations.save_automations()
