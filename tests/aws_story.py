"""The same story in an environment that is named: land, retrain, approve, ask. Nothing else changes."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State, StateType

from blocks.environment import open_environment
from deployments.register import register
from deployments.runs import begin, ended, follow
from local.sagemaker.faults import Fault
from local.sagemaker.settings import ROLE
from local.stack import Stack
from services.decisions import settle
from tests.local_aws import Desk, clients
from tests.support import SMALL, customers, request_of

REGION = "us-east-1"
LOG_GROUP = "/ratchet/staging"


@dataclass(frozen=True)
class Told:
    """How the story went: the endpoint's answer, and seconds by step."""

    run_id: UUID
    version: str
    predictions: list[Any]
    seconds: Mapping[str, float]


def staging(stack: Stack, url: str, bucket: str) -> None:
    """Register `staging` as the checkout has it, on the local SageMaker at `url`, with a log group for its runs."""
    logs = clients(url)["logs"]
    with suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=LOG_GROUP)
    variables = {
        **stack.environment(),
        "RATCHET_AWS_URL": url,
        "RATCHET_BUCKET": bucket,
        "RATCHET_JOB_ROLE": ROLE,
        "RATCHET_IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/ratchet:test",
        "RATCHET_LOG_GROUP": LOG_GROUP,
        "RATCHET_LEDGER_URL": f"sqlite:///{stack.state}/ledger.db",
        "AWS_DEFAULT_REGION": REGION,
    }
    register("staging", variables)


def tell(model: str, environment: str, folder: Path, rows: int = 2000) -> Told:
    """Land customers, retrain on all of them, approve, and ask the endpoint, all in one environment."""
    table, seconds = customers()[:rows], {}
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "rows.csv", index=False)
    _run("ingest/ingest", "Completed", model=model, source=str(folder / "rows.csv"), environment=environment)
    started = time.monotonic()
    waiting = _run("retrain/retrain", "Suspended", model=model, parameters=SMALL, requested_by="dana@example.com",
                   environment=environment)  # fmt: skip
    seconds["until it waits for approval"] = time.monotonic() - started
    world = open_environment(environment)
    settle(world, request_of(waiting), approved=True, by="second@example.com", reason="convincing")
    done = follow(waiting.id, until=ended, seconds=300)
    assert done.state is not None
    assert done.state.name == "Deployed", done.state.message
    seconds |= _tasks(waiting.id)
    answer = world.endpoint().invoke(model, _request(table))
    assert answer.status == 200, answer.body
    return Told(waiting.id, answer.version, json.loads(answer.body)["predictions"], seconds)


def cancel_while_it_trains(model: str, environment: str, desk: Desk) -> str:
    """Cancel a retrain whose training job hangs, as a person does on the UI, and return the job's status then."""

    def cancel(run_id: UUID) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run_id, State(type=StateType.CANCELLING))

    return ended_while_it_trains(model, environment, desk, cancel)


def ended_while_it_trains(model: str, environment: str, desk: Desk, end: Callable[[UUID], None]) -> str:
    """Begin a retrain whose training job hangs, end the flow run, and return the job's status then."""
    desk.server.faults.add(Fault("stuck", match=f"^{model}-"))
    run_id = begin("retrain/retrain", {"model": model, "parameters": SMALL, "requested_by": "dana@example.com",
                                       "environment": environment})  # fmt: skip
    listed = desk.until(lambda: desk.sagemaker.list_training_jobs(NameContains=f"{model}-", StatusEquals="InProgress"),
                        lambda found: found["TrainingJobSummaries"], 120)  # fmt: skip
    end(run_id)
    follow(run_id, until=ended, seconds=120)
    return str(desk.trained(listed["TrainingJobSummaries"][0]["TrainingJobName"], 90)["TrainingJobStatus"])


def _run(deployment: str, expected: str, **parameters: Any) -> Any:
    run = follow(begin(deployment, parameters), seconds=300)
    assert run.state is not None
    assert run.state.name == expected, f"{run.state.name}: {run.state.message}"
    return run


def _request(table: pd.DataFrame) -> bytes:
    features = table.drop(columns=["customer_id", "churn"]).head(2)
    return f'{{"dataframe_split": {features.to_json(orient="split", index=False)}}}'.encode()


def _tasks(run_id: Any) -> dict[str, float]:
    """Return the seconds of each task of a flow run."""
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    return {run.name.rpartition("-")[0] or run.name: run.total_run_time.total_seconds() for run in runs}
