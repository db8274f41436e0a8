"""Score challenger and champion on the frozen holdout, each with its own preprocessing, and judge."""

import tempfile
from base64 import b64encode
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from prefect import get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from blocks.digests import folder_digest
from blocks.environment import open_environment
from blocks.tracking.base import Tracking, Version
from tasks.expect import to_frame
from tasks.logic.evaluation import Evaluation, count_leaked, evaluate, evaluation_json
from tasks.logic.evaluation_report import evaluation_markdown, evaluation_plot
from tasks.logic.history import champion
from tasks.logic.refusal import Refusal
from tasks.models import Model, load_model
from tasks.records import Judged, TierData, Trained
from tasks.retries import STAGE


@task(name="evaluate", **STAGE)
def judge(model: str, data: TierData, trained: Trained, environment: str) -> Judged:
    """Judge a challenger by floors, slices, and against the champion on the same holdout rows."""
    world, brought = open_environment(environment), load_model(model)
    tracking, ledger = world.tracking(), world.ledger()
    serving = champion(ledger.deployments(model, environment))
    evaluation = measure(tracking, brought, data, trained, serving, world.scratch)
    keep(tracking, evaluation, brought, trained, serving)
    get_run_logger().info("verdict: %s. %s", evaluation.verdict.outcome, " ".join(evaluation.verdict.reasons))
    return Judged(
        outcome=evaluation.verdict.outcome,
        reasons=evaluation.verdict.reasons,
        metrics=evaluation.metrics,
        champion=serving,
        champion_metrics=evaluation.champion_metrics or {},
    )


def measure(
    tracking: Tracking, model: Model, data: TierData, trained: Trained, serving: str, scratch: Path
) -> Evaluation:
    """Predict the holdout with both models and evaluate.

    Raises:
        Refusal: the challenger's artifact is not the one that was trained, or the champion was trained under
            another holdout rule, so that the rows which decide may have taught it.
    """
    data_spec = model.spec.data
    rows = to_frame(pq.read_table(data.holdout / "rows.parquet"))
    features = rows[list(data_spec.features)]
    if folder_digest(trained.artifact) != trained.model_digest:
        raise Refusal(
            "the model is not the one that was trained",
            where=f"version {trained.version}",
            remedy="Train again.",
        )
    champion_says: np.ndarray | None = None
    if serving:
        champion_says = tracking.predict(champion_artifact(tracking, model, serving, scratch), features)
    train_keys = pq.read_table(data.train / "rows.parquet", columns=[data_spec.entity])[data_spec.entity]
    return evaluate(
        task=model.spec.task,
        classes=data_spec.classes,
        spec=model.spec.evaluation,
        truth=rows[data_spec.target],
        slice_columns=features[[rule.column for rule in model.spec.evaluation.slices]],
        challenger=tracking.predict(trained.artifact, features),
        champion=champion_says,
        champion_version=serving,
        leaked=count_leaked(train_keys, rows[data_spec.entity]),
        seed=trained.seed,
    )


def champion_artifact(tracking: Tracking, model: Model, serving: str, scratch: Path) -> Path:
    """Return the champion's artifact. Raises Refusal when it is gone or had another holdout."""
    found: Version | None = tracking.version(model.spec.name, serving)
    if found is None:
        raise Refusal(
            "the version that serves is not in the registry",
            value=serving,
            remedy="Restore it, or roll back.",
        )
    if found.tags.get("ratchet.holdout") != str(model.spec.holdout):
        raise Refusal(
            "the champion was trained under another holdout rule, so it may have learnt from rows that decide now",
            where=f"version {serving}",
            value=found.tags.get("ratchet.holdout"),
            remedy=f"Set holdout (now {model.spec.holdout}) back, or retrain the champion under it first.",
        )
    return tracking.fetch(model.spec.name, serving, scratch / "models" / model.spec.name / serving)


def keep(tracking: Tracking, evaluation: Evaluation, model: Model, trained: Trained, serving: str) -> None:
    """Store verdict, metrics, report and plot with the run and version, and as artifacts of the flow run."""
    name = model.spec.name
    report = evaluation_markdown(evaluation, model=name, version=trained.version, champion_version=serving)
    plot = evaluation_plot(evaluation)
    finite = {f"holdout_{key}": value for key, value in evaluation.metrics.items() if np.isfinite(value)}
    tracking.log(trained.run_id, metrics=finite, tags={"ratchet.verdict": evaluation.verdict.outcome})
    tracking.tag_version(name, trained.version, {"ratchet.verdict": evaluation.verdict.outcome})
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "evaluation.md").write_text(report)
        (Path(folder) / "evaluation.png").write_bytes(plot)
        (Path(folder) / "evaluation.json").write_text(evaluation_json(evaluation))
        tracking.log_files(trained.run_id, Path(folder), under="evaluation")
    create_markdown_artifact(key="evaluation", markdown=report, description=f"{name} version {trained.version}")
    image = "data:image/png;base64," + b64encode(plot).decode()
    create_image_artifact(key="evaluation-plot", image_url=image, description="Challenger against champion")
