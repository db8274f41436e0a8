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
from tasks.evaluation.rules.evaluation import Evaluation, evaluation_json, finite
from tasks.evaluation.rules.report import evaluation_markdown, evaluation_plot
from tasks.shared.champion import champion_files, check_same_holdout
from tasks.shared.models import Model
from tasks.shared.records import Trained
from tasks.shared.rules.refusal import Refusal

GOLDEN_ROWS = 3


def challenger_says(tracking: Tracking, trained: Trained, features: pd.DataFrame) -> np.ndarray:
    """Return the challenger's predictions. Raises Refusal when its files are not those that were trained."""
    if folder_digest(trained.artifact) != trained.model_digest:
        where = f"version {trained.version}"
        raise Refusal("the model is not the one that was trained", where=where, remedy="Train again.")
    return tracking.predict(trained.artifact, features)


def champion_says(world: Environment, model: Model, version: str, features: pd.DataFrame) -> np.ndarray:
    """Return the champion's predictions.

    Raises:
        Refusal: its files are not those that were approved, or another holdout rule let it train on these rows.
    """
    check_same_holdout(world, model.spec, version)
    return world.tracking().predict(champion_files(world, model.spec.name, version), features)


def keep(
    tracking: Tracking, evaluation: Evaluation, model: Model, trained: Trained, serving: str, predictions: str = ""
) -> None:
    """Store verdict, metrics, report and plot with the run and version, and as artifacts of the flow run."""
    name, outcome = model.spec.name, evaluation.verdict.outcome
    report = evaluation_markdown(evaluation, model=name, version=trained.version, champion_version=serving)
    plot = evaluation_plot(evaluation)
    tags = {"ratchet.verdict": outcome, **({"ratchet.predictions": predictions} if predictions else {})}
    metrics = {f"holdout_{key}": value for key, value in finite(evaluation.metrics).items()}
    tracking.log(trained.run_id, metrics=metrics, tags=tags)
    tracking.tag_version(name, trained.version, {"ratchet.verdict": outcome})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "evaluation.md").write_text(report)
        (Path(folder) / "evaluation.png").write_bytes(plot)
        (Path(folder) / "evaluation.json").write_text(evaluation_json(evaluation))
        tracking.log_files(trained.run_id, Path(folder), under="evaluation")
    create_markdown_artifact(key="evaluation", markdown=report, description=f"{name} version {trained.version}")
    image = "data:image/png;base64," + b64encode(plot).decode()
    create_image_artifact(key="evaluation-plot", image_url=image, description="Challenger against champion")
