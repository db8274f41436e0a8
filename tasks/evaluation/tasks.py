"""Prefect task of evaluation: challenger against champion on the frozen holdout."""

import json

import pyarrow.parquet as pq
from prefect import get_run_logger, task

from blocks.environment import open_environment
from tasks.evaluation.evaluating import GOLDEN_ROWS, challenger_says, champion_says, keep
from tasks.evaluation.rules.evaluation import finite
from tasks.evaluation.rules.predictions import predictions_digest
from tasks.shared.champion import champion_version
from tasks.shared.evaluation import measure
from tasks.shared.models import load_model
from tasks.shared.records import Judged, TierData, Trained
from tasks.shared.retries import STAGE
from tasks.validation.rules.parquet_rows import to_frame


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
