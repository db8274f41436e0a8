"""Prefect task of evaluation: challenger against champion on the frozen holdout."""

from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.evaluation.evaluating import evaluate_challenger
from tasks.shared.models import load_model
from tasks.shared.records import EvaluationResult, TierData, TrainingResult
from tasks.shared.retries import TASK_OPTIONS


@task(name="evaluate", **TASK_OPTIONS)
def evaluate(model: str, data: TierData, training_result: TrainingResult, environment: str) -> EvaluationResult:
    """Evaluate a challenger against floors and slices, and against the champion on the same holdout rows."""
    env, team_model = open_environment(environment), load_model(model)
    result = evaluate_challenger(env, team_model, data, training_result)
    get_run_logger().info("verdict: %s. %s", result.verdict, " ".join(result.reasons))
    return result
