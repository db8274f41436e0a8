"""The hook by which every flow sends its log lines where the environment keeps them."""

from contextlib import suppress
from typing import Any

from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.logging.loggers import flow_run_logger

from blocks.common.aws.cloudwatch_logs import OWN, attach
from blocks.common.errors import NotFound
from blocks.environment import open_environment


def send_run_log(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Begin to send, where the environment has `[logs]`: a hook for `on_running`, so in the flow run's own process.

    It ends with the process, which sends what is left. A hook that fails is logged by Prefect and fails no run.
    """
    with suppress(NotFound):  # the flow itself says that its environment is not there
        env = open_environment(flow_run.parameters.get("environment", "local"))
        if env.logs is None:
            return
        own: dict[str, Any] = {OWN: True}
        warn = flow_run_logger(flow_run, flow, **own).warning
        attach(env.logs.send, f"{flow.name}/{flow_run.id}", str(flow_run.id), warn)
