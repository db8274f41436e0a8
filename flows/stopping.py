"""Stop the paid jobs of a flow run that was cancelled or crashed: its process may have ended before them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger

from blocks.batch_inference.base import BatchInference
from blocks.common.errors import NotFound, PortError
from blocks.environment import Environment, trusted_environment
from blocks.records.tracking import TrackingRun
from blocks.tracking.base import Tracking
from blocks.trainers.base import Trainer, TrainingJob
from tasks.batch.rules.transform import BATCH_JOB_TAG
from tasks.shared.cost import log_job_cost
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import training_job_name

Log = Callable[[str], None]


def stop_training_jobs(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Stop the training jobs of the flow run: a hook for `on_cancellation` and `on_crashed`.

    The process that waits for a job also stops it, if it has the time. This hook runs in the worker (or in the process
    that runs the flow on ECS), so it also works after that process was killed. Prefect passes its arguments by name.
    """
    log = flow_run_logger(flow_run, flow).warning
    parameters = flow_run.parameters

    def stop() -> None:
        env = trusted_environment(parameters.get("environment", "local"))
        stop_training_jobs_of(
            env, parameters["model"], str(flow_run.id), lambda: has_ended_or_cancelling(flow_run.id), log
        )

    # In a thread: the worker must stay free to start other runs. Its process joins the thread before it exits.
    Thread(target=stop, name=f"stop the jobs of {flow_run.name}").start()


def stop_batch_inference_jobs(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Stop the transform job of the flow run: a hook for `on_cancellation`.

    It is not a hook for crashes: the job has a limited number of rows, and a retried run attaches to it.
    """
    log = flow_run_logger(flow_run, flow).warning
    given = flow_run.parameters
    env = trusted_environment(given.get("environment", "local"))
    stop_batch_jobs_of(env, given["model"], str(flow_run.id), lambda: has_ended_or_cancelling(flow_run.id), log)


def stop_training_jobs_of(
    env: Environment, model: str, flow_run: str, flow_run_is_over: Callable[[], bool], log: Log
) -> list[str]:
    """Stop the training jobs that a flow run of the model has submitted, and return their names. It may be repeated.

    A job is named after its tracked run, which carries the id of the flow run. A tracked run that is still open is
    closed, and its cost is logged; the cost of a closed one is logged already.

    Args:
        env: where the jobs were submitted.
        model: the model's name. Its folder is not read: the worker's checkout may be at another commit.
        flow_run: the id of the flow run.
        flow_run_is_over: called before each job, because a person may press *Retry* in the meantime.
        log: takes a line about each job, and about each error.
    """
    tracking, stopped = env.tracking(), list[str]()
    trainers = [env.trainer(), *([env.trainer_for(small=True)] if env.has_small_trainer else [])]
    for run in _runs_of_flow_run(tracking, model, flow_run, flow_run_is_over):
        name = training_job_name(model, run.id)
        for trainer in trainers:
            if _stop_job(trainer, name, log):
                stopped.append(name)
                if run.status == "RUNNING":
                    _log_cost(tracking, run.id, trainer, name, log)
        if run.status == "RUNNING":
            tracking.close_run(run.id, "FAILED")
    return stopped


def stop_batch_jobs_of(
    env: Environment, model: str, flow_run: str, flow_run_is_over: Callable[[], bool], log: Log
) -> list[str]:
    """Stop the batch inference jobs of a flow run, and return their names; see `stop_training_jobs_of`.

    The next run over the same rows logs the cost of a stopped job; until then it counts with its worst case.
    """
    if not env.has_batch_inference:
        return []
    tracking, stopped = env.tracking(), list[str]()
    for run in _runs_of_flow_run(tracking, model, flow_run, flow_run_is_over):
        name = run.tags.get(BATCH_JOB_TAG, "")
        if name and _stop_job(env.batch_inference(), name, log):
            stopped.append(name)
            if run.status == "RUNNING":
                tracking.close_run(run.id, "FAILED")
    return stopped


def has_ended_or_cancelling(flow_run: UUID) -> bool:
    """Return whether the flow run has ended or is being cancelled; False when this Prefect server does not know it."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run).state
    except ObjectNotFound:
        return False
    return state is not None and (state.is_final() or state.is_cancelling())


def _runs_of_flow_run(
    tracking: Tracking, model: str, flow_run: str, flow_run_is_over: Callable[[], bool]
) -> Iterator[TrackingRun]:
    for run in tracking.runs(model):
        if run.tags.get("ratchet.flow_run") == flow_run and flow_run_is_over():
            yield run


def _stop_job(runner: Trainer | BatchInference, name: str, log: Log) -> bool:
    """Stop a job, and return whether it exists. An error is logged, so that the other jobs are stopped, too."""
    try:
        runner.stop(name)
    except NotFound:
        return False
    except PortError as problem:
        log(f"job {name} could not be stopped, and may run until its own limit: {problem}")
        return False
    log(f"job {name} does not run any more")
    return True


def _log_cost(tracking: Tracking, run_id: str, trainer: Trainer, name: str, log: Log) -> None:
    try:  # the cost of an ended job depends neither on its files nor on its limit
        log_job_cost(tracking, run_id, trainer, TrainingJob(name, Path(), {}))
    except (PortError, Refusal) as problem:
        log(f"the cost of run {run_id} is unknown, so its worst case counts against the budget: {problem}")
