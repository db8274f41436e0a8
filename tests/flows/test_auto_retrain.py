"""Auto-retrain: drift starts one guarded retraining, and a person still decides (flow, event, automation, flows)."""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

from blocks.environment import open_environment
from deployments.flow_runs import is_ended, wait_for_run
from local.stack import Stack
from tests.fixtures.support import SMALL, approve, customers, ingest_frame, outcome, request_of, run
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(600)]
EVENT = "model.drift.detected"


def runs_of(deployment: str) -> list[FlowRun]:
    """Return the runs of a deployment for this model, oldest first."""
    named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(deployment_filter=named)
    mine = [each for each in found if each.parameters.get("model") == "renewed"]
    return sorted(mine, key=lambda each: str(each.created))


def answered(number: int) -> FlowRun:
    """Wait for this many runs of auto-retrain, and return the last when it has ended."""
    runs = wait_for(lambda: runs_of("auto-retrain")[number - 1 :], what=f"auto-retrain run {number}")
    return wait_for_run(runs[0].id, until=is_ended, seconds=120)


def test_a_drift_is_answered_by_one_retraining_that_waits_for_a_person(stack: Stack, tmp_path: Path) -> None:
    first, rest = customers()[:2000], customers()[2000:]
    ingest_frame("renewed", first, tmp_path)
    waiting = run("retrain/retrain", model="renewed", parameters=SMALL, requested_by="dana@example.com")
    assert outcome(approve(waiting)) == "deployed"

    look: dict[str, Any] = {"model": "renewed", "dataset": "renewed"}
    assert outcome(run("monitor/monitor", **look)) == "no_drift"
    ingest_frame("renewed", rest.assign(paperless_billing=1), tmp_path, "more.csv")
    assert outcome(run("monitor/monitor", **look)) == "drift"

    answer = answered(1)
    assert outcome(answer) == "started", answer.state and answer.state.message
    assert answer.parameters["alert_record_key"].startswith(f"{EVENT}:")
    _, automatic = runs_of("retrain")
    assert "auto-retrain" in automatic.tags
    automatic = wait_for_run(automatic.id, seconds=240)
    assert outcome(automatic) == "Suspended"

    asked = request_of(automatic)
    because = json.loads(asked.evidence)["trigger_reason"]
    assert asked.requested_by == f"automation: {EVENT}"
    assert because.startswith("drift of 20") and "paperless_billing" in because
    assert because == automatic.parameters["trigger_reason"]

    assert outcome(run("monitor/monitor", **look)) == "drift"
    refused = answered(2)
    assert outcome(refused) == "refused"
    assert refused.state and f"pending approval: {asked.id} pending" in str(refused.state.message)
    (written,) = open_environment("local").outbox().signals("renewed/local/retraining.refused")
    assert refused.state.message == f"Refused: {written.summary}"

    again = run("auto_retrain/auto-retrain", model="renewed", alert_record_key=answer.parameters["alert_record_key"])
    assert outcome(again) == "started"
    assert len(runs_of("retrain")) == 2, "one finding starts one run, however often it is answered"
    assert outcome(approve(automatic)) == "deployed"
