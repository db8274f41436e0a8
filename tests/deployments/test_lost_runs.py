"""Which flow runs nobody runs any more, by what is the case on this machine."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.states import Paused, Pending, Running

from deployments.lost_runs import UNBEGUN, why_lost

NOW = datetime(2026, 11, 26, 3, 0, tzinfo=UTC)


def flow_run(state: State, seconds: float, pid: str | None = None) -> FlowRun:
    since = NOW - timedelta(seconds=seconds)
    return FlowRun(
        flow_id=uuid4(), name="r", state=state.model_copy(update={"timestamp": since}), infrastructure_pid=pid
    )


@pytest.mark.parametrize(
    ("run", "why"),
    [
        (flow_run(Pending(), UNBEGUN.seconds + 1), "Nothing began it for 120 s"),
        (flow_run(Pending(), UNBEGUN.seconds - 1), ""),
        (flow_run(Running(), 9_000, "here:7"), "Its process 7 is gone"),
        (flow_run(Running(), 9_000, "here:1"), ""),
        (flow_run(Running(), 9_000, "elsewhere:7"), ""),
        (flow_run(Running(), 9_000, "arn:aws:ecs:eu-west-1:1:task/here:7x"), ""),
        (flow_run(Running(), 9_000), ""),
        (flow_run(Paused(), 900_000, "here:7"), ""),
    ],
    ids=["claimed long ago", "claimed just now", "its process is gone", "its process is there", "on another machine",
         "on no machine", "not known where", "waits for a person"],
)  # fmt: skip
def test_a_run_is_lost_when_nothing_can_end_it_any_more(run: FlowRun, why: str) -> None:
    assert why_lost(run, NOW, "here", alive=lambda pid: pid == 1).startswith(why)
    assert bool(why_lost(run, NOW, "here", alive=lambda pid: pid == 1)) == bool(why)
