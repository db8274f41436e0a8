"""Retrainings on SageMaker whose flow, worker or both are killed: `python -m tests.benchmarks.sagemaker_kills`.

The benchmark has its own stack and local SageMaker. Several models are retrained in parallel, again and again, each
time with other parameters. A seeded random number selects the moment of a kill and its target. After it the benchmark
does what a person or Prefect does: it restarts the worker and retries the run. Each retraining must end with one
completed training job and never two at once, and each model with one endpoint. (A run that crashed stops its job, so
that nobody pays for an unused job; when it is retried after that, the job is started anew.) Prints the counts; the
exit code says whether these conditions hold.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import pairwise
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun

from blocks.environment import open_environment
from deployments.flow_runs import SUSPENDED, is_ended, outcome_of_run, start_run, wait_for_run
from local.stack import use_running_stack
from local.supervisor import down
from services.decisions import record_decision
from tests.checkout import copy_checkout, start_stack
from tests.fixtures.aws_story import register_aws
from tests.fixtures.local_aws import SageMakerLab, local_aws
from tests.fixtures.support import SMALL, customers, kill, outcome, request_of, retry, run
from tests.fixtures.workers import RestartableWorker
from tests.waiting import wait_for

LONGEST_SECONDS = 25.0
"""Upper bound of the time from start to kill: one of these retrainings takes about as long."""

STRUCK = ("flow", "flow", "flow", "worker", "both")
"""The targets, drawn at random. The death of a worker delays the runs of all models."""

DEAD_OR_ALIVE = ("Pending", "Submitting", "Running", "Retrying", "Resuming")
"""State names of a run of which Prefect does not know yet that it is dead."""

SEEN_SECONDS = 240.0
"""Time limit until a dead run is detected: its worker detects it at once, the next worker in its second check."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sagemaker_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--models", type=int, default=4, help="how many are retrained side by side")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the started programs are stopped then, too
    names = [f"killed{number}" for number in range(asked.models)]
    with tempfile.TemporaryDirectory(prefix="bench-kills-") as made:
        folder = Path(made)
        (folder / "checkout").mkdir()
        checkout = copy_checkout(folder / "checkout", like_churn=names)
        with local_aws(folder / "aws") as server:
            desk = SageMakerLab(server)
            try:
                start_stack(checkout, folder / "state")
                stack = use_running_stack(folder / "state")
                register_aws(stack, server.url, desk.bucket)
                workers = RestartableWorker(stack, checkout)
                try:
                    return measure(workers, desk, names, asked.kills, asked.seed, folder)
                finally:
                    workers.stop()
            finally:
                down(folder / "state")


def measure(
    workers: RestartableWorker, desk: SageMakerLab, names: list[str], kills: int, seed: int, folder: Path
) -> int:
    """Distribute the kills over the models, and compare the outcomes with the expected ones."""
    for name in names:
        customers()[:2000].to_csv(folder / f"{name}.csv", index=False)
        landed = run("ingest/ingest", model=name, source=str(folder / f"{name}.csv"), environment="aws")
        assert outcome(landed) == "Completed", outcome(landed)
    each = [kills // len(names) + (place < kills % len(names)) for place in range(len(names))]
    begun = time.monotonic()
    side_by_side = ThreadPoolExecutor(len(names))
    try:
        shares = enumerate(zip(names, each, strict=True))
        begun_all = [side_by_side.submit(suffer, workers, name, share, seed + place) for place, (name, share) in shares]
        told = [one.result() for one in as_completed(begun_all)]
    finally:
        side_by_side.shutdown(wait=False, cancel_futures=True)  # the first failure ends all: the stack is stopped
    jobs = [job for name in names for job in jobs_of(desk, name)]
    twice = [
        key
        for key, done in Counter(run for run, job in jobs if job["TrainingJobStatus"] == "Completed").items()
        if done > 1
    ]
    at_once = [one["TrainingJobName"] for (run, one), (other, next_one) in pairwise(sorted(jobs, key=_by_run_and_time))
               if run == other and next_one["CreationTime"] < one["TrainingEndTime"]]  # fmt: skip
    states = Counter(job["TrainingJobStatus"] for _, job in jobs)
    endpoints = [summary["EndpointName"] for summary in desk.sagemaker.list_endpoints(MaxResults=100)["Endpoints"]]
    happened, retrainings = sum((one[0] for one in told), Counter[str]()), sum(one[1] for one in told)
    print(
        f"{sum(happened.values())} kills ({', '.join(f'{count} of {what}' for what, count in sorted(happened.items()))}) "
        f"over {retrainings} retrainings in {time.monotonic() - begun:.0f} s: training jobs: {dict(states)}; "
        f"trained twice: {len(twice)}; two jobs at once: {len(at_once)}; endpoints of {len(names)} models: {len(endpoints)}"
    )
    right = states["Completed"] == retrainings and not twice and not at_once and sorted(endpoints) == sorted(names)
    return 0 if right else 1


def jobs_of(desk: SageMakerLab, model: str) -> list[tuple[str, dict[str, Any]]]:
    """Return each training job of a model, with the tracked run that it trains for."""
    listed = desk.sagemaker.list_training_jobs(NameContains=f"{model}-", MaxResults=100)["TrainingJobSummaries"]
    tagged = ((desk.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"], dict(job)) for job in listed)
    return [(next(tag["Value"] for tag in tags if tag["Key"] == "ratchet:run"), job) for tags, job in tagged]


def _by_run_and_time(job: tuple[str, dict[str, Any]]) -> tuple[str, Any]:
    return job[0], job[1]["CreationTime"]


def suffer(workers: RestartableWorker, model: str, kills: int, seed: int) -> tuple[Counter[str], int]:
    """Retrain one model until it was killed this often; return the targets, and how many retrainings succeeded."""
    chance, happened, number = random.Random(seed), Counter[str](), 0
    while sum(happened.values()) < kills:
        wanted = {"model": model, "environment": "aws", "requested_by": "dana@example.com",
                  "parameters": {**SMALL, "n_estimators": 6 + number}}  # fmt: skip
        run_id = start_run("retrain/retrain", wanted)
        for _ in range(min(chance.choice((1, 1, 2)), kills - sum(happened.values()))):
            if (what := strike(workers, run_id, chance)) is not None:
                happened[what] += 1
        decide(run_id, first=number == 0)
        number += 1
        print(f"{model}: retraining {number} ended after {sum(happened.values())} kills", file=sys.stderr, flush=True)
    return happened, number


def strike(workers: RestartableWorker, run_id: Any, chance: random.Random) -> str | None:
    """Wait for a moment, kill, and retry the run; None when the run ended before, or waits for a slot.

    A kill counts when it ended a process. A run that has no process yet cannot be killed.
    """
    what, deadline = chance.choice(STRUCK), time.monotonic() + chance.uniform(1.0, LONGEST_SECONDS)
    while time.monotonic() < deadline:
        if state_of(run_id) in (SUSPENDED, "Completed"):
            return None
        time.sleep(0.3)
    if what != "worker" and not kill(run_id):
        return None
    if what != "flow":
        workers.replace()
    if what != "worker":
        try:
            wait_for(lambda: state_of(run_id) not in DEAD_OR_ALIVE, SEEN_SECONDS, f"Prefect sees that {run_id} is dead")
        except AssertionError as late:
            raise AssertionError(f"{late}; struck was {what}; its states: {states_of(run_id)}") from None
        if state_of(run_id) == "Crashed":  # otherwise the run had ended when the kill came
            retry(run_id)
    return what


def state_of(run_id: Any) -> str:
    """Return the name of the run's state."""
    with get_client(sync_client=True) as client:
        return str(client.read_flow_run(run_id).state_name)


def states_of(run_id: Any) -> str:
    """Return every state that the run was in, with its time."""
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(run_id)
    return "; ".join(f"{state.timestamp:%H:%M:%S} {state.name} {state.message or ''}" for state in states)


def survived(run_id: Any, until: Callable[[FlowRun], bool] | None = None) -> FlowRun:
    """Follow the run and retry it whenever it crashed: killing the worker for another model may kill this run, too."""
    while True:
        rested = wait_for_run(run_id, until=until, seconds=600)
        if rested.state is None or rested.state.name != "Crashed":
            return rested
        retry(run_id)


def decide(run_id: Any, *, first: bool) -> None:
    """Follow the run to its approval; deploy the first version of a model, and reject later ones."""
    rested = survived(run_id)
    name = rested.state.name if rested.state else ""
    if name == SUSPENDED:
        request = request_of(rested)
        record_decision(open_environment("aws"), request, approved=first, by="max@example.com", reason="it survived")
        rested = survived(run_id, until=is_ended)
    assert rested.state is not None
    if outcome_of_run(rested) not in ("deployed", "rejected", "held", "inconclusive"):
        raise AssertionError(f"{run_id} ended as {rested.state.name}; its states: {states_of(run_id)}")


if __name__ == "__main__":
    sys.exit(main())
