"""Prefect tasks of monitoring: ingest the inference log, run monitoring, report, and emit alerts."""

from datetime import UTC, datetime, timedelta

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import open_environment
from tasks.monitoring.reporting import (
    create_monitoring_artifacts,
    emit_monitoring_alerts,
    log_monitoring_files,
    remove_logged_files,
    run_evidently,
)
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.runs import MonitoringScope, monitor_model, parse_end_time
from tasks.shared.models import load_model
from tasks.shared.monitoring_history import store_monitoring_run
from tasks.shared.records import MonitoringResult
from tasks.shared.retries import TASK_OPTIONS


@task(name="report monitoring", **TASK_OPTIONS)
def report_monitoring(result: MonitoringResult, environment: str) -> str:
    """Store and log the results of a monitoring run, create artifacts, and return the address of the tracked run."""
    has_samples = (result.folder / "scores.json").exists()
    evidently_succeeded = has_samples and run_evidently(result.folder)
    if has_samples and not evidently_succeeded:
        get_run_logger().warning("Evidently made no report; the monitoring report does not need it")
    env = open_environment(environment)
    store_monitoring_run(env, result, datetime.now(UTC))
    page = log_monitoring_files(env.tracking(), result)
    create_monitoring_artifacts(result, page, evidently_succeeded)
    remove_logged_files(result.folder)
    return page


@task(name="emit finding alerts", **TASK_OPTIONS)
def emit_finding_alerts(result: MonitoringResult, page: str, environment: str) -> int:
    """Emit an alert for each kind of finding, and the end of open alerts; return the number of signals."""
    return emit_monitoring_alerts(open_environment(environment), result, page, key=str(flow_run.id))


@task(name="run monitoring", **TASK_OPTIONS)
def run_monitoring(
    model: str,
    dataset: str,
    as_of: str,
    until: str,
    window_minutes: float,
    windows: int,
    min_breached_windows: int,
    environment: str,
) -> MonitoringResult:
    """Ingest the inference log, count it, and compare it with the reference. A failed step becomes a finding."""
    env, team_model = open_environment(environment), load_model(model)
    rules = MonitoringRules(
        windows=1 if dataset else windows, min_breached_windows=1 if dataset else min_breached_windows
    )
    scope = MonitoringScope(parse_end_time(until, datetime.now(UTC)), timedelta(minutes=window_minutes), dataset, as_of)
    folder = env.scratch / "monitoring" / model / "runs" / str(flow_run.id)
    result = monitor_model(env, team_model, rules, scope, folder)
    get_run_logger().info("%s: %s", result.outcome, result.summary)
    return result
