"""Score challenger and champion on the frozen holdout, each with its own preprocessing, and judge."""

import json
import math
import tempfile
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from blocks.digests import folder_digest
from blocks.environment import Environment, open_environment
from blocks.tracking.base import Tracking
from tasks.champion import champion_files, champion_version, check_same_holdout
from tasks.expect import to_frame
from tasks.logic.evaluate.evaluation import Evaluation, count_leaked, evaluate, evaluation_json
from tasks.logic.evaluate.report import evaluation_markdown, evaluation_plot
from tasks.logic.refusal import Refusal
from tasks.models import Model, load_model
from tasks.records import Judged, TierData, Trained
from tasks.retries import STAGE

GOLDEN_ROWS = 3


@task(name="evaluate", **STAGE)
def judge(model: str, data: TierData, trained: Trained, environment: str) -> Judged:
    """Judge a challenger by floors, slices, and against the champion on the same holdout rows."""
    world, brought = open_environment(environment), load_model(model)
    serving = champion_version(world, model)
    rows = to_frame(pq.read_table(data.holdout))
    features = rows[list(brought.spec.data.features)]
    said = challenger_says(world.tracking(), trained, features)
    champion_said = champion_says(world, brought, serving, features) if serving else None
    evaluation = measure(brought, data, rows, said, champion_said, serving, trained.seed)
    digest = predictions_digest(said)
    keep(world.tracking(), evaluation, brought, trained, serving, digest)
    get_run_logger().info("verdict: %s. %s", evaluation.verdict.outcome, " ".join(evaluation.verdict.reasons))
    golden = features[:GOLDEN_ROWS]
    return Judged(
        outcome=evaluation.verdict.outcome,
        reasons=evaluation.verdict.reasons,
        metrics=finite(evaluation.metrics),
        champion=serving,
        champion_metrics=finite(evaluation.champion_metrics or {}),
        golden_request=json.dumps({"dataframe_split": json.loads(golden.to_json(orient="split", index=False))}),
        golden_predictions=json.dumps(said[:GOLDEN_ROWS].tolist()),
        gates=evaluation.verdict.gates,
        predictions_digest=digest,
    )


def predictions_digest(said: np.ndarray) -> str:
    """Return the SHA-256 over predictions, bit by bit: shape, then the numbers as little-endian doubles."""
    return sha256(f"{said.shape}".encode() + np.ascontiguousarray(said, dtype="<f8").tobytes()).hexdigest()


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


def measure(
    model: Model,
    data: TierData,
    rows: pd.DataFrame,
    challenger: np.ndarray,
    champion: np.ndarray | None,
    serving: str,
    seed: int,
) -> Evaluation:
    """Evaluate both models' predictions of the holdout rows, and look for rows that were trained on."""
    spec = model.spec
    keys = pq.read_table(data.train, columns=[spec.data.entity])[spec.data.entity]
    return evaluate(
        task=spec.task,
        classes=spec.data.classes,
        spec=spec.evaluation,
        truth=rows[spec.data.target],
        slice_columns=rows[[rule.column for rule in spec.evaluation.slices]],
        challenger=challenger,
        champion=champion,
        champion_version=serving,
        leaked=count_leaked(keys, rows[spec.data.entity]),
        seed=seed,
    )


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


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that are numbers; the verdict says of the others that they are not."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
