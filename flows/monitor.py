"""Look at what a model is asked and answers, and say whether it still does what it was promoted for."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.exclusive import one_at_a_time
from flows.parameters import AsOf, DatasetName, EnvironmentName, Minutes, ModelName, Windows
from flows.run_log import send_run_log
from tasks.dashboard.tasks import update_dashboard
from tasks.monitoring.reporting import alert_monitoring_failure
from tasks.monitoring.tasks import emit_finding_alerts, report_monitoring, run_monitoring
from tasks.shared.records import MonitoringResult


@flow(
    name="monitor",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{model}",
    on_running=[send_run_log],
)
def monitor(
    model: ModelName,
    window_minutes: Minutes = 1440,
    windows: Windows = 3,
    needed: Windows = 2,
    until: AsOf = "",
    dataset: DatasetName = "",
    as_of: AsOf = "",
    environment: EnvironmentName = "local",
) -> State:
    """Compare what is asked now with what the version that serves was promoted on; report, and tell.

    Args:
        model: The model's name: a folder below models/.
        window_minutes: How long a window of the inference log is, in minutes. 1440 is a day.
        windows: How many of the newest windows are looked at.
        needed: In how many of those windows the same must be found before it is told.
        until: Where the newest window ends: a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        dataset: Look at this data set of the lake instead of the inference log, as one window. Empty for the log.
        as_of: For a data set, a snapshot's id or a time with its zone. Empty is now.
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    try:
        with one_at_a_time(f"watch-{model}"):
            result = run_monitoring(model, dataset, as_of, until, window_minutes, windows, needed, environment)
            run_url = report_monitoring(result, environment)
            emit_finding_alerts(result, run_url, environment)
            update_dashboard(model, environment)
    except Exception as problem:
        alert_monitoring_failure(model, environment, problem)
        update_dashboard(model, environment)
        raise
    return end_state(result)


def end_state(result: MonitoringResult) -> State:
    """Return the end of the run, named for what was found; a check that was impossible is a failure."""
    if result.outcome == "CouldNotCheck":
        return Failed(name=result.outcome, message=result.summary)
    return Completed(name=result.outcome, message=result.summary)
