"""Prefect task of evaluation: challenger against champion on the frozen holdout."""

import json

import pyarrow.parquet as pq
from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.evaluation.evaluating import GOLDEN_ROWS, predict_challenger, predict_champion, store_evaluation
from tasks.evaluation.rules.evaluation import finite_metrics
from tasks.evaluation.rules.predictions import digest_predictions
from tasks.shared.champion import champion_version
from tasks.shared.evaluation import evaluate_on_holdout
from tasks.shared.models import load_model
from tasks.shared.records import EvaluationResult, TierData, TrainingResult
from tasks.shared.retries import TASK_OPTIONS
from tasks.validation.rules.parquet_rows import to_frame


@task(name="evaluate", **TASK_OPTIONS)
def evaluate(model: str, data: TierData, training_result: TrainingResult, environment: str) -> EvaluationResult:
    """Judge a challenger by floors, slices, and against the champion on the same holdout rows."""
    env, team_model = open_environment(environment), load_model(model)
    serving = champion_version(env, model)
    holdout_rows = to_frame(pq.read_table(data.holdout))
    features = holdout_rows[list(team_model.spec.data.features)]
    predictions = predict_challenger(env.tracking(), training_result, features)
    champion_predictions = predict_champion(env, team_model, serving, features) if serving else None
    evaluation = evaluate_on_holdout(
        team_model, data, holdout_rows, predictions, champion_predictions, serving, training_result.seed
    )
    digest = digest_predictions(predictions)
    store_evaluation(env.tracking(), evaluation, team_model, training_result, serving, digest)
    get_run_logger().info("verdict: %s. %s", evaluation.verdict.outcome, " ".join(evaluation.verdict.reasons))
    golden = features[:GOLDEN_ROWS]
    return EvaluationResult(
        verdict=evaluation.verdict.outcome,
        reasons=evaluation.verdict.reasons,
        metrics=finite_metrics(evaluation.metrics),
        champion_version=serving,
        champion_metrics=finite_metrics(evaluation.champion_metrics or {}),
        golden_request=json.dumps({"dataframe_split": json.loads(golden.to_json(orient="split", index=False))}),
        golden_predictions=json.dumps(predictions[:GOLDEN_ROWS].tolist()),
        failed_gates=evaluation.verdict.failed_gates,
        predictions_digest=digest,
    )
