"""The options of all flows: results are stored as JSON, and log lines go to the environment's log store."""

from contextlib import suppress
from typing import Any

from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.logging.loggers import flow_run_logger

from blocks.common.aws.cloudwatch_logs import OWN, attach
from blocks.common.errors import NotFound
from blocks.environment import open_environment
from runtime.foreign_text import log_visible_text


def send_run_log(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Make log lines visible text, and forward them when the environment has `[logs]`: a hook for `on_running`.

    It runs in the flow run's process, which sends the remaining lines before it exits. Prefect logs a failed hook; the
    run goes on.
    """
    log_visible_text()
    with suppress(NotFound):  # the flow itself reports a missing environment
        env = open_environment(flow_run.parameters.get("environment", "local"))
        if env.logs is None:
            return
        own: dict[str, Any] = {OWN: True}
        warn = flow_run_logger(flow_run, flow, **own).warning
        attach(env.logs.send, f"{flow.name}/{flow_run.id}", str(flow_run.id), warn)


FLOW_OPTIONS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "on_running": [send_run_log],
}
"""Options of every flow that stores its result."""
