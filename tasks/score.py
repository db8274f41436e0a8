"""Batch predictions with the champion, kept as a new snapshot of `<dataset>-predictions`."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task

from blocks.environment import open_environment
from blocks.lake.base import Lake, Snapshot
from blocks.temporary import swept_folder
from tasks.champion import approved_digest, champion_files, champion_version
from tasks.expect import settle
from tasks.logic.expect.expectations import check
from tasks.logic.expect.parquet_rows import ParquetRows
from tasks.logic.refusal import Refusal
from tasks.models import load_model
from tasks.predict import Predictor
from tasks.records import Scored
from tasks.retries import STAGE
from tasks.score_input import Input, open_input
from tasks.score_transform import choose, predict_by_transform


@task(name="score", **STAGE)
def score_rows(model: str, source: str, query: str, environment: str, as_of: str = "") -> Scored:
    """Check the rows, predict them with the champion, and append the predictions to the lake.

    However many rows there are, they are read, checked and predicted in bounded memory.

    Raises:
        Refusal: the model serves nothing yet, its files are not those that were approved, or the rows do not
            meet the model's expectations (all but those of the target).
    """
    world, brought = open_environment(environment), load_model(model)
    data = brought.spec.data
    version = champion_version(world, model)
    if not version:
        raise Refusal("the model serves nothing yet", where=model, remedy="Retrain and approve a first version.")
    artifact = champion_files(world, model, version)
    predictor = Predictor(world.tracking(), artifact, approved_digest(world, model, version), data, version)

    def hold(rows: ParquetRows) -> None:
        suite = brought.suite().without(data.target).for_rows(1)
        settle(check(rows, suite, key=data.entity), where=f"{model}, {source}")

    def predict(rows: Input, asked: str, to: Path) -> None:
        place, worst = choose(world, brought, rows.rows)
        get_run_logger().info("predicted by %s, because %s", place.where, place.reason)
        if place.where == "flow":
            in_flow(rows, asked, predictor, to)
        else:
            predict_by_transform(world, model, rows, asked, predictor, place, worst, to)

    with swept_folder(world.scratch / "score", "score-") as folder:
        rows = open_input(world, data, source, query, as_of, folder)
        dataset = brought.spec.own_dataset("predictions")
        kept = add_predictions(world.lake(), rows, predictor, hold, folder, predict, dataset=dataset)
    get_run_logger().info("%d predictions of version %s in snapshot %s", kept.rows, version, kept.id)
    return Scored(dataset=kept.dataset, snapshot=kept.id, rows=kept.rows, version=version)


def add_predictions(
    lake: Lake,
    rows: Input,
    predictor: Predictor,
    hold: Callable[[ParquetRows], None],
    folder: Path,
    predict: Callable[[Input, str, Path], None] | None = None,
    *,
    dataset: str = "",
) -> Snapshot:
    """Append the predictions as one snapshot, whole or not at all, and return it.

    The same rows with the same version a second time add nothing: what is there is returned.

    Args:
        lake: where they are kept.
        rows: what is to be predicted.
        predictor: the model.
        hold: refuses rows that are not right.
        folder: holds the predictions until they are in the lake.
        predict: writes the predictions of the rows that some SQL gives below a new folder; in this flow run if None.
        dataset: the data set that takes them; by default `<dataset>-predictions`.
    """
    dataset = dataset or f"{predictor.data.dataset}-predictions"
    key = rows.key(predictor.version)
    if known := lake.find(dataset, key):
        return known
    hold(rows.to_check())
    rows.refuse_nameless(predictor.data.entity)
    asked = rows.with_buckets(predictor.data.entity)
    if predict is None:
        in_flow(rows, asked, predictor, folder / "predictions")
    else:
        predict(rows, asked, folder / "predictions")
    found = _read(folder / "predictions", predictor.schema)
    return lake.append(dataset, found, source=rows.description, key=key, at=datetime.now(UTC))


def in_flow(rows: Input, asked: str, predictor: Predictor, to: Path) -> None:
    """Predict the rows by the environment's engine, and write the predictions below `to`."""
    rows.engine.map_batches(predictor, asked, rows.tables, predictor.schema, to)


def _read(folder: Path, schema: pa.Schema) -> pa.RecordBatchReader:
    """Return the predictions in the types that their data set has had since its first snapshot."""
    kept = schema.set(0, schema.field(0).with_type(pa.large_string()))  # the key, as it came from pandas

    def batches() -> Iterator[pa.RecordBatch]:
        for path in sorted(folder.iterdir()):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    yield batch.cast(kept)

    return pa.RecordBatchReader.from_batches(kept, batches())
