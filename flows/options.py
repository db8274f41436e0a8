"""The options of all flows: results are stored as JSON, log lines go to the environment's log store.

Each run compares the registered blocks with the trust file first: a changed block is an alert.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run as current_run

from blocks.common.aws.cloudwatch_logs import OWN, attach
from blocks.common.errors import NotFound
from blocks.environment import trusted_environment
from blocks.sources.secret_addresses import masked
from runtime.foreign_text import log_visible_text
from tasks.shared.alerts import report_registered_settings


def begin_run(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Make log lines visible text, forward them where the environment has `[logs]`, and report changed blocks.

    It is a hook for `on_running`.

    It runs in the flow run's process, which sends the remaining lines before it exits. Prefect logs a failed hook; the
    run goes on, and its first task refuses an environment whose blocks were changed.
    """
    log_visible_text()
    with suppress(NotFound):  # the flow itself reports a missing environment
        env = trusted_environment(flow_run.parameters.get("environment", "local"))
        if env.logs is not None:
            own: dict[str, Any] = {OWN: True}
            warn = flow_run_logger(flow_run, flow, **own).warning
            attach(env.logs.send, f"{flow.name}/{flow_run.id}", str(flow_run.id), warn)
        report_registered_settings(env, f"flow run {flow_run.id}")


def named_for_source(word: str) -> Callable[[], str]:
    """Return the function that names a run for its model and its source: "churn from rows.csv".

    A password in the source is masked. It is refused, but only after Prefect has shown the name.
    """
    return lambda: f"{current_run.parameters['model']} {word} {masked(str(current_run.parameters['source']))}"


FLOW_OPTIONS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "on_running": [begin_run],
}
"""Options of every flow that stores its result."""
