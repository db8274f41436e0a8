"""Retrainings that are killed at any stage and retried: nothing happens twice, nothing is partial or lost."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from blocks.environment import open_environment
from deployments.flow_runs import SUSPENDED, is_ended, start_run, wait_for_run
from local.stack import Stack
from services.decisions import record_decision
from tests.fixtures.support import (
    SMALL,
    approvals,
    customers,
    deployments_of,
    ingest_frame,
    kill,
    outcome,
    request_of,
    retry,
)
from tests.waiting import wait_for

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.heavy, pytest.mark.timeout(900)]
STAGES = {
    "sampled": "sample",
    "checked": "validate",
    "trained": "train",
    "judged": "evaluate",
    "asked": "request approval",
    "deployed": "deploy",
}
"""The task at which each model's run is killed."""


@pytest.fixture(scope="module")
def survivors(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FlowRun]:
    """Kill one retraining at each stage, retry each as a user does, approve, and return the ended runs."""

    def survive(model: str, stage: str) -> FlowRun:
        ingest_frame(model, customers()[:2000], tmp_path_factory.mktemp(model))
        return killed_and_retried(model, stage)

    with ThreadPoolExecutor(len(STAGES)) as side_by_side:  # each waits a minute until the dead run's lease expires
        return dict(zip(STAGES, side_by_side.map(survive, STAGES, STAGES.values()), strict=True))


def killed_and_retried(model: str, stage: str) -> FlowRun:
    """Run a retraining, kill it while `stage` runs, retry it, and follow it through the approval to its end."""
    run_id = start_run("retrain/retrain", {"model": model, "parameters": SMALL, "requested_by": "dana@example.com"})
    if stage != "deploy":
        wait_for(lambda: running(run_id, stage), seconds=240, what=f"task {stage} of {model}")
        kill_and_retry(run_id)
    waiting = wait_for_run(run_id, seconds=400)
    assert outcome(waiting) == SUSPENDED
    record_decision(
        open_environment("local"), request_of(waiting), approved=True, by="max@example.com", reason="it survived"
    )
    if stage == "deploy":
        wait_for(lambda: running(run_id, stage), seconds=240, what=f"task {stage} of {model}")
        kill_and_retry(run_id)
    return wait_for_run(run_id, until=is_ended, seconds=400)


def kill_and_retry(run_id: Any) -> None:
    """Kill the run's processes, wait until Prefect has detected it, and retry at once."""
    kill(run_id)
    crashed = wait_for_run(run_id, until=is_ended, seconds=120)
    assert outcome(crashed) == "Crashed"
    retry(run_id)


def running(run_id: Any, task: str) -> bool:
    """Return whether a task of that name has begun in the flow run; the shortest take a tenth of a second."""
    only = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=only)
    return any(run.name.startswith(task) and run.state_name in ("Running", "Completed") for run in runs)


@pytest.mark.parametrize("model", STAGES)
def test_a_killed_run_that_is_retried_ends_deployed_and_nothing_happened_twice(
    survivors: dict[str, FlowRun], model: str
) -> None:
    assert outcome(survivors[model]) == "deployed"
    env = open_environment("local")
    assert len(env.lake().as_of(model).snapshots) == 1
    assert [(line.action, line.status, line.by) for line in deployments_of(model)] == [
        ("deploy", "serving", "max@example.com")
    ]
    assert env.tracking().version(model, "2") is None
    serving = env.endpoint().live_version(model)
    assert serving is not None
    assert serving.version == "1"
    assert approvals().open_requests(model) == ()


@pytest.mark.parametrize("model", STAGES)
def test_no_tracked_run_is_left_open(survivors: dict[str, FlowRun], model: str) -> None:
    client = mlflow.MlflowClient(open_environment("local").tracking().tracking_uri)  # type: ignore[attr-defined]
    experiment = client.get_experiment_by_name(model)
    states = Counter(run.info.status for run in client.search_runs([experiment.experiment_id]))
    assert states == {"FINISHED": 1}
