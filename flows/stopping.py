"""Hooks that stop a flow run's paid jobs when it is cancelled or crashes."""

from threading import Thread
from typing import Any

from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.logging.loggers import flow_run_logger

from blocks.environment import open_environment
from tasks.training.stopping import has_ended_or_cancelling, stop_batch_jobs_of, stop_training_jobs_of


def stop_training_jobs(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Stop the training jobs of the flow run: a hook for `on_cancellation` and `on_crashed`.

    The process that waits for a job also stops it, if it has the time. This hook runs in the worker (or in the process
    that runs the flow on ECS), so it also works after that process was killed. Prefect passes its arguments by name.
    """
    log = flow_run_logger(flow_run, flow).warning
    parameters = flow_run.parameters

    def stop() -> None:
        env = open_environment(parameters.get("environment", "local"))
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
    env = open_environment(given.get("environment", "local"))
    stop_batch_jobs_of(env, given["model"], str(flow_run.id), lambda: has_ended_or_cancelling(flow_run.id), log)
