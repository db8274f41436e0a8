"""Batch predictions with the champion, kept as a new snapshot of `<dataset>-predictions`."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
from prefect import get_run_logger, task

from blocks.environment import open_environment
from blocks.sources import BrokenRow, read_source
from tasks.champion import champion_files, champion_version
from tasks.expect import settle, to_frame
from tasks.ingest import column_kinds, history
from tasks.logic.evaluate.predictions import Task, check_predictions
from tasks.logic.expect.expectations import check
from tasks.logic.ingest.ingestion import content_key
from tasks.logic.model.spec import DataSpec
from tasks.logic.refusal import Refusal
from tasks.logic.sample.buckets import tier_buckets
from tasks.models import load_model
from tasks.records import Scored
from tasks.retries import STAGE


@task(name="score", **STAGE)
def score_rows(model: str, source: str, query: str, environment: str) -> Scored:
    """Check the rows, predict them with the champion, and append the predictions to the lake.

    Raises:
        Refusal: the model serves nothing yet, its files are not those that were approved, or the rows do not
            meet the model's expectations (all but those of the target).
    """
    world, brought = open_environment(environment), load_model(model)
    data, lake = brought.spec.data, world.lake()
    version = champion_version(world, model)
    if not version:
        raise Refusal("the model serves nothing yet", where=model, remedy="Retrain and approve a first version.")
    artifact = champion_files(world, model, version)
    kinds = {name: kind for name, kind in column_kinds(data).items() if name != data.target}
    rows = read_source(source, query=query, kinds=kinds)
    refuse_broken(rows.broken, source)
    key = hashlib.sha256(f"{content_key(rows.table)} {version}".encode()).hexdigest()
    dataset = f"{data.dataset}-predictions"
    known = next((snapshot for snapshot in history(lake, dataset) if snapshot.key == key), None)
    if known is None:
        frame = to_frame(rows.table)
        settle(
            check(frame, brought.suite().without(data.target).for_rows(1), key=data.entity), where=f"{model}, {source}"
        )
        said = world.tracking().predict(artifact, frame[list(data.features)])
        table = predictions_table(data, pa.array(frame[data.entity]), said, version)
        known = lake.append(dataset, table, source=rows.description, key=key, at=datetime.now(UTC))
    get_run_logger().info("%d predictions of version %s in snapshot %s", known.rows, version, known.id)
    return Scored(dataset=dataset, snapshot=known.id, rows=known.rows, version=version)


def refuse_broken(broken: Sequence[BrokenRow], source: str) -> None:
    """Refuse a source with rows that cannot be read: every row that was asked for gets an answer or a reason."""
    if broken:
        first = broken[0]
        raise Refusal(
            f"{len(broken)} rows cannot be read, the first because {first.reason}",
            where=f"{source}, {first.position}",
            value=first.text,
            remedy="Mend the rows; nothing was scored.",
        )


def predictions_table(data: DataSpec, keys: pa.Array, said: np.ndarray, version: str) -> pa.Table:
    """Return one row a prediction: entity, a probability per class (or the value), model version, bucket."""
    task: Task = "multiclass" if data.classes else "regression"
    values = check_predictions(task, data.classes, len(keys), said).reshape(len(keys), -1)
    names = [f"probability_{name}" for name in data.classes] or ["prediction"]
    columns = {name: pa.array(values[:, place]) for place, name in enumerate(names)}
    stamp = pa.array([version] * len(keys))
    bucket = pa.array(tier_buckets(keys), pa.int32())
    return pa.table({data.entity: keys, **columns, "model_version": stamp, "_bucket": bucket})
