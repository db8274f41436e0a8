"""Stop the paid jobs of a flow run that was cancelled or crashed: whoever waited for them may be gone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from blocks.batch_inference.base import BatchInference
from blocks.common.errors import NotFound, PortError
from blocks.environment import Environment
from blocks.tracking.base import Tracking, TrackingRun
from blocks.trainers.base import Trainer, TrainingJob
from tasks.batch.rules.place import BATCH_JOB_TAG
from tasks.shared.cost import log_job_cost
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import training_job_name

Log = Callable[[str], None]


def stop_training_jobs_of(
    env: Environment, model: str, flow_run: str, flow_run_is_over: Callable[[], bool], log: Log
) -> list[str]:
    """Stop the jobs that a flow run of the model has submitted, and return their names. Repeating it is no error.

    A job is named after the tracked run that it trains for, which knows its flow run. A tracked run that nobody
    closed any more is settled and closed; of one that was closed the cost is known already.

    Args:
        env: where the jobs were submitted.
        model: the name of what they train. Its folder is not read: the worker's checkout may be of another commit.
        flow_run: the id of the flow run.
        flow_run_is_over: whether the flow run is still over; asked before each job, since a person may press *Retry* meanwhile.
        log: told of each job, and of what went wrong.
    """
    tracking, stopped = env.tracking(), list[str]()
    for run in _runs_of_flow_run(tracking, model, flow_run, flow_run_is_over):
        name = training_job_name(model, run.id)
        for trainer in _trainers(env):
            if _stop_job(trainer, name, log):
                stopped.append(name)
                if run.status == "RUNNING":
                    _log_cost(tracking, run.id, trainer, name, log)
        if run.status == "RUNNING":
            tracking.close_run(run.id, "FAILED")
    return stopped


def stop_batch_jobs_of(
    env: Environment, model: str, flow_run: str, given_up: Callable[[], bool], log: Log
) -> list[str]:
    """Stop the transform jobs of a flow run of the model, and return their names; see `stop_training_jobs_of`.

    What a job cost is logged by who scores the same rows again; until then it counts with its worst case.
    """
    if not env.has_batch_inference:
        return []
    tracking, stopped = env.tracking(), list[str]()
    for run in _runs_of_flow_run(tracking, model, flow_run, given_up):
        name = run.tags.get(BATCH_JOB_TAG, "")
        if name and _stop_job(env.batch_inference(), name, log):
            stopped.append(name)
            if run.status == "RUNNING":
                tracking.close_run(run.id, "FAILED")
    return stopped


def has_ended_or_cancelling(flow_run: UUID) -> bool:
    """Whether the flow run has ended, or is being cancelled; not one that this Prefect server does not know."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run).state
    except ObjectNotFound:
        return False
    return state is not None and (state.is_final() or state.is_cancelling())


def _runs_of_flow_run(
    tracking: Tracking, model: str, flow_run: str, given_up: Callable[[], bool]
) -> Iterator[TrackingRun]:
    for run in tracking.runs(model):
        if run.tags.get("ratchet.flow_run") == flow_run and given_up():
            yield run


def _trainers(env: Environment) -> list[Trainer]:
    small = [env.trainer_for(small=True)] if env.has_small_trainer else []
    return [env.trainer(), *small]


def _stop_job(runner: Trainer | BatchInference, name: str, log: Log) -> bool:
    """Ask for the end of a job; return whether there is one. One that cannot be asked is said, and others go on."""
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
    try:  # what a job did cost does not depend on its files or its limit
        log_job_cost(tracking, run_id, trainer, TrainingJob(name, Path(), {}))
    except (PortError, Refusal) as problem:
        log(f"what run {run_id} cost is not known, so it counts with its worst case: {problem}")
