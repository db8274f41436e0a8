"""Prefect task of automatic retraining."""

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.environment import open_environment
from tasks.retraining.auto_retrain import decide_on_alert
from tasks.shared.models import load_model
from tasks.shared.records import AutoRetrainDecision
from tasks.shared.retries import TASK_OPTIONS


@task(name="decide auto-retrain", **TASK_OPTIONS)
def decide_auto_retrain(model: str, event: str, key: str, environment: str) -> AutoRetrainDecision:
    """Decide once whether an alert's signal (the newest if `key` is empty) starts a retraining; show the guards."""
    env = open_environment(environment)
    decision, guards_page = decide_on_alert(env, load_model(model), event, key, datetime.now(UTC))
    if guards_page:
        create_markdown_artifact(key="auto-retrain-guards", markdown=guards_page, description=decision.summary[:200])
    get_run_logger().info("%s: %s", decision.outcome, decision.summary)
    return decision
