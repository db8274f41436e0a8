"""Prefect task of automatic retraining."""

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.environment import open_environment
from tasks.retraining.auto_retrain import answer_signal
from tasks.shared.models import load_model
from tasks.shared.records import Answered
from tasks.shared.retries import STAGE


@task(name="answer alert", **STAGE)
def answer_alert(model: str, event: str, key: str, environment: str) -> Answered:
    """Decide once over an alert's signal (the newest where `key` is ""), show what each guard says, and tell."""
    world = open_environment(environment)
    answered, page = answer_signal(world, load_model(model), event, key, datetime.now(UTC))
    if page:
        create_markdown_artifact(key="retrain-guard", markdown=page, description=answered.sentence[:200])
    get_run_logger().info("%s: %s", answered.outcome, answered.sentence)
    return answered
