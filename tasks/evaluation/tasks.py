"""Prefect task of evaluation: challenger against champion on the frozen holdout."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from prefect import get_run_logger, task

from blocks.environment import Environment, open_environment
from blocks.tracking.base import Tracking
from runtime.digests import folder_digest
from tasks.evaluation.rules.evaluation import Evaluation, finite_metrics, record_json
from tasks.evaluation.rules.predictions import check_class_order, digest_predictions
from tasks.evaluation.rules.report import evaluation_markdown, evaluation_plot
from tasks.evaluation.rules.spending import SpentLevel, plan_comparison, spent_level
from tasks.shared.champion import champion_version, comparable_since, verified_champion_files
from tasks.shared.evaluation import comparable_rows, evaluate_on_holdout
from tasks.shared.models import TeamModel, load_model
from tasks.shared.records import EvaluationResult, TierData, TrainingResult
from tasks.shared.reports import create_image_artifact, create_markdown_artifact
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.figures import png_url
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.promotion import is_promotable_tier
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.parquet_rows import to_frame

GOLDEN_ROWS = 3
"""How many holdout rows become the golden request, which a server of this model must answer."""


@task(name="evaluate", **TASK_OPTIONS)
def evaluate(model: str, data: TierData, training_result: TrainingResult, environment: str) -> EvaluationResult:
    """Evaluate a challenger against floors and slices, and against the champion on the same holdout rows."""
    env, team_model = open_environment(environment), load_model(model)
    result = evaluate_challenger(env, team_model, data, training_result)
    get_run_logger().info("verdict: %s. %s", result.verdict, " ".join(result.reasons))
    return result


def evaluate_challenger(
    env: Environment, team_model: TeamModel, data: TierData, training_result: TrainingResult
) -> EvaluationResult:
    """Score challenger and champion on the holdout, decide the verdict, and store the evaluation.

    Raises:
        Refusal: a model's files are not those that were trained or approved, the champion may know the holdout, or
            the challenger's probabilities are in another order than `data.classes`.
    """
    serving = champion_version(env, team_model.spec.name)
    holdout_rows = to_frame(pq.read_table(data.holdout))
    features = holdout_rows[list(team_model.spec.data.features)]
    predictions = predict_challenger(env.tracking(), training_result, features)
    check_class_order(team_model.spec.data.classes, env.tracking().model_classes(training_result.model_path))
    rule = data.holdout_rule or team_model.spec.holdout_rule.text
    since = comparable_since(env, team_model.spec, serving, rule) if serving else None
    champion_predictions = predict_champion(env, team_model, serving, features) if serving else None
    digest = digest_predictions(predictions)
    spent = None  # identical predictions cannot be found better, and a sample's model cannot be promoted
    differ = champion_predictions is not None and not np.array_equal(predictions, champion_predictions)
    comparable = comparable_rows(team_model.spec, data, holdout_rows, since)
    enough = comparable is None or comparable.suffices(team_model.spec.evaluation)
    if differ and enough and is_promotable_tier(data.tier):
        spent = spend_level(env, team_model.spec, data, training_result, serving, digest, datetime.now(UTC))
    evaluation = evaluate_on_holdout(
        team_model, data, holdout_rows, predictions, champion_predictions, serving, training_result.seed,
        comparable=comparable, spent_level=spent,
    )  # fmt: skip
    store_evaluation(env.tracking(), evaluation, team_model, training_result, digest)
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
        deciding_metric=team_model.spec.evaluation.comparison.metric,
        spent_level=spent,
        compared_since=evaluation.compared_since,
    )


def spend_level(
    env: Environment, spec: ModelSpec, data: TierData, training_result: TrainingResult, champion: str,
    predictions_digest: str, now: datetime,
) -> SpentLevel:  # fmt: skip
    """Record the comparison in the ledger before it is made, and return the level that it may spend.

    A comparison that was recorded before, by a task that is retried for example, spends nothing again. Of two processes
    that want the same number the second plans again, over a history that holds the first.
    """
    effects, terms = env.effects(), spec.evaluation.comparison
    while True:
        history = effects.comparisons(spec.name, env.name)
        planned = plan_comparison(
            history, terms, model=spec.name, environment=env.name, champion=champion, version=training_result.version,
            holdout_digest=data.holdout_digest, predictions_digest=predictions_digest, at=now,
        )  # fmt: skip
        if planned in history or effects.record_comparison(planned) == planned:
            return spent_level(history, planned, terms)


def predict_challenger(tracking: Tracking, training_result: TrainingResult, features: pd.DataFrame) -> np.ndarray:
    """Return the challenger's predictions. Raises Refusal when its files changed since training."""
    if folder_digest(training_result.model_path) != training_result.model_digest:
        where = f"version {training_result.version}"
        raise Refusal("the model is not the one that was trained", where=where, remedy="Train again.")
    return tracking.predict(training_result.model_path, features)


def predict_champion(env: Environment, model: TeamModel, version: str, features: pd.DataFrame) -> np.ndarray:
    """Return the champion's predictions.

    Raises:
        Refusal: its files are not the approved ones.
    """
    return env.tracking().predict(verified_champion_files(env, model.spec.name, version), features)


def store_evaluation(
    tracking: Tracking,
    evaluation: Evaluation,
    model: TeamModel,
    training_result: TrainingResult,
    predictions_digest: str,
) -> None:
    """Store verdict, metrics, report and plot with the run and version, and as artifacts of the flow run."""
    name, outcome = model.spec.name, evaluation.verdict.outcome
    report = evaluation_markdown(evaluation, model=name, version=training_result.version)
    plot = evaluation_plot(evaluation)
    tags = {"ratchet.verdict": outcome, "ratchet.predictions_digest": predictions_digest}
    metrics = {f"holdout_{key}": value for key, value in finite_metrics(evaluation.metrics).items()}
    tracking.log(training_result.run_id, metrics=metrics, tags=tags)
    tracking.tag_version(name, training_result.version, {"ratchet.verdict": outcome})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "evaluation.md").write_text(report)
        (Path(folder) / "evaluation.png").write_bytes(plot)
        (Path(folder) / "evaluation.json").write_text(record_json(evaluation))
        tracking.log_files(training_result.run_id, Path(folder), artifact_folder="evaluation")
    create_markdown_artifact(key="evaluation", markdown=report, description=f"{name} version {training_result.version}")
    create_image_artifact(key="evaluation-plot", image_url=png_url(plot), description="Challenger against champion")
