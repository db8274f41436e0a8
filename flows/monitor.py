"""Monitor a deployed model: compare inference requests and predictions with the reference data, and raise alerts."""

from contextlib import suppress

from prefect import flow
from prefect.client.schemas.objects import State

from blocks.common.errors import PortError
from blocks.environment import trusted_environment
from flows.authorization import authorize_run
from flows.exclusive import one_at_a_time
from flows.options import FLOW_OPTIONS
from flows.outcomes import end_run, report_problem
from flows.parameters import AsOf, DatasetName, EnvironmentName, Minutes, ModelName, OrderId, Windows
from tasks.dashboard.tasks import update_dashboard
from tasks.monitoring.reporting import alert_monitoring_failure
from tasks.monitoring.tasks import emit_finding_alerts, report_monitoring, run_monitoring
from tasks.shared.rules.run_outcomes import outcome_words, run_name


@flow(name="monitor", flow_run_name="{model}", **FLOW_OPTIONS)
def monitor(
    model: ModelName,
    window_minutes: Minutes = 1440,
    windows: Windows = 3,
    min_breached_windows: Windows = 2,
    until: AsOf = "",
    dataset: DatasetName = "",
    as_of: AsOf = "",
    environment: EnvironmentName = "local",
    order: OrderId = "",
) -> State:
    """Compare recent inference requests with the reference data of the deployed version, report, and raise alerts.

    Args:
        model: The model's name: a folder below models/.
        window_minutes: Length of one window of the inference log in minutes. 1440 is a day.
        windows: How many of the newest windows are compared.
        min_breached_windows: An alert is raised when the same finding occurs in at least this many of those windows.
        until: Where the newest window ends: a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        dataset: Monitor this data set of the lake, as one window, instead of the inference log. Empty for the log.
        as_of: For a data set, a snapshot's id or a time with its zone. Empty is now.
        environment: The set of adapters to run on: a file in deployments/environments/.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved
            a name.
    """
    authorize_run("monitor", model, environment, order)
    try:
        with one_at_a_time(f"monitor-{model}"):
            result = run_monitoring(
                model, dataset, as_of, until, window_minutes, windows, min_breached_windows, environment
            )
            reported = report_monitoring(result, environment, return_state=True)
            run_url = reported.result() if reported.is_completed() else ""
            emit_finding_alerts(result, run_url, environment)
            update_dashboard(model, environment)
    except Exception as problem:
        with suppress(PortError):  # where the alert fails too, the state of the run tells
            alert_monitoring_failure(trusted_environment(environment), model, problem)
        update_dashboard(model, environment)
        raise
    summary = result.summary + report_problem(reported, "The report in MLflow")
    return end_run(result.outcome, summary, run_name(model, outcome_words(result.outcome)))
