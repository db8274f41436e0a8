"""Prefect task that updates a model's dashboard."""

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import open_environment
from tasks.dashboard.drawing import create_dashboard_artifact, write_dashboard
from tasks.shared.records import DashboardResult
from tasks.shared.retries import TASK_OPTIONS


@task(name="update dashboard", **TASK_OPTIONS)
def update_dashboard(model: str, environment: str) -> DashboardResult | None:
    """Draw the model's dashboard again. A failure is logged only, because the dashboard shows recorded data."""
    try:
        drawn = write_dashboard(open_environment(environment), model, datetime.now(UTC))
        if flow_run.id:
            create_dashboard_artifact(drawn)
    except Exception as problem:
        get_run_logger().warning("the dashboard of %s was not drawn: %s: %s", model, type(problem).__name__, problem)
        return None
    get_run_logger().info("dashboard: %s", drawn.url or drawn.path)
    return drawn
