"""Score challenger and champion on the frozen holdout, each with its own preprocessing, and judge."""

import tempfile
from base64 import b64encode
from pathlib import Path

import numpy as np
import pandas as pd
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from blocks.environment import Environment
from blocks.tracking.base import Tracking
from runtime.digests import folder_digest
from tasks.evaluation.rules.evaluation import Evaluation, evaluation_json, finite_metrics
from tasks.evaluation.rules.report import evaluation_markdown, evaluation_plot
from tasks.shared.champion import check_holdout_rule, verified_champion_files
from tasks.shared.models import TeamModel
from tasks.shared.records import TrainingResult
from tasks.shared.rules.refusal import Refusal

GOLDEN_ROWS = 3


def predict_challenger(tracking: Tracking, training_result: TrainingResult, features: pd.DataFrame) -> np.ndarray:
    """Return the challenger's predictions. Raises Refusal when its files are not those that were trained."""
    if folder_digest(training_result.model_path) != training_result.model_digest:
        where = f"version {training_result.version}"
        raise Refusal("the model is not the one that was trained", where=where, remedy="Train again.")
    return tracking.predict(training_result.model_path, features)


def predict_champion(env: Environment, model: TeamModel, version: str, features: pd.DataFrame) -> np.ndarray:
    """Return the champion's predictions.

    Raises:
        Refusal: its files are not those that were approved, or another holdout rule let it train on these rows.
    """
    check_holdout_rule(env, model.spec, version)
    return env.tracking().predict(verified_champion_files(env, model.spec.name, version), features)


def store_evaluation(
    tracking: Tracking,
    evaluation: Evaluation,
    model: TeamModel,
    training_result: TrainingResult,
    serving: str,
    predictions_digest: str = "",
) -> None:
    """Store verdict, metrics, report and plot with the run and version, and as artifacts of the flow run."""
    name, outcome = model.spec.name, evaluation.verdict.outcome
    report = evaluation_markdown(evaluation, model=name, version=training_result.version, champion_version=serving)
    plot = evaluation_plot(evaluation)
    tags = {"ratchet.verdict": outcome, **({"ratchet.predictions": predictions_digest} if predictions_digest else {})}
    metrics = {f"holdout_{key}": value for key, value in finite_metrics(evaluation.metrics).items()}
    tracking.log(training_result.run_id, metrics=metrics, tags=tags)
    tracking.tag_version(name, training_result.version, {"ratchet.verdict": outcome})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "evaluation.md").write_text(report)
        (Path(folder) / "evaluation.png").write_bytes(plot)
        (Path(folder) / "evaluation.json").write_text(evaluation_json(evaluation))
        tracking.log_files(training_result.run_id, Path(folder), artifact_folder="evaluation")
    create_markdown_artifact(key="evaluation", markdown=report, description=f"{name} version {training_result.version}")
    image = "data:image/png;base64," + b64encode(plot).decode()
    create_image_artifact(key="evaluation-plot", image_url=image, description="Challenger against champion")
