"""What a flow leaves behind when it is cancelled or crashes: no job that goes on and is paid for."""

from threading import Thread
from typing import Any

from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.logging.loggers import flow_run_logger

from blocks.environment import open_environment
from tasks.training.stopping import is_given_up, stop_jobs, stop_transforms


def stop_training(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Stop the training jobs of the flow run: a hook for `on_cancellation` and `on_crashed`.

    The process that waited for a job stops it as well, where it has the time. This runs in the worker (or in what
    runs the flow on ECS), so it does its work when that process was killed. Prefect hands over its arguments by name.
    """
    log = flow_run_logger(flow_run, flow).warning
    given = flow_run.parameters

    def stop() -> None:
        world = open_environment(given.get("environment", "local"))
        stop_jobs(world, given["model"], str(flow_run.id), lambda: is_given_up(flow_run.id), log)

    # Not in the worker's own turn: it would begin no other run meanwhile. Its process waits for the thread at its end.
    Thread(target=stop, name=f"stop the jobs of {flow_run.name}").start()


def stop_scoring(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Stop the transform job of the flow run: a hook for `on_cancellation`.

    Not for a crash: the rows of such a job are limited, and the run that is retried attaches to it.
    """
    log = flow_run_logger(flow_run, flow).warning
    given = flow_run.parameters
    world = open_environment(given.get("environment", "local"))
    stop_transforms(world, given["model"], str(flow_run.id), lambda: is_given_up(flow_run.id), log)
