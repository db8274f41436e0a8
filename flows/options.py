"""The options of all flows: results are stored as JSON, log lines go to the environment's log store.

Each run compares the registered blocks with the trust file first: a changed block is an alert. When it has ended, its
order is used up.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from prefect import Flow
from prefect.client.schemas import FlowRun
from prefect.client.schemas.objects import State
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run as current_run

from blocks.common.aws.cloudwatch_logs import OWN, attach
from blocks.environment import trusted_environment
from blocks.environment_settings import NoTrustFile
from blocks.sources.secret_addresses import masked
from runtime.foreign_text import log_visible_text
from tasks.approval.rules.actions import ORDER_PARAMETER
from tasks.shared.actions import finish_order, run_user
from tasks.shared.alerts import report_registered_settings


def begin_run(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Make log lines visible text, forward them where the environment has `[logs]`, and report changed blocks.

    It is a hook for `on_running`.

    It runs in the flow run's process, which sends the remaining lines before it exits. Prefect logs a failed hook; the
    run goes on, and its first task refuses an environment whose blocks were changed.
    """
    log_visible_text()
    with suppress(NoTrustFile):  # the flow itself reports it
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


def end_order(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:
    """Finish the order of a run that has ended, so that nobody who may retry the run acts by it: a hook for each end.

    The order of a run whose machine died with it stays, until `authorize` no longer lets a run go on by it.
    """
    if order := flow_run.parameters.get(ORDER_PARAMETER):
        env = trusted_environment(flow_run.parameters.get("environment", "local"))
        finish_order(env, str(order), run_user(flow_run.id), datetime.now(UTC))


FLOW_OPTIONS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "on_running": [begin_run],
    **{f"on_{end}": [end_order] for end in ("completion", "failure", "cancellation", "crashed")},
}
"""Options of every flow that stores its result."""
