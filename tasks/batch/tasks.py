"""Batch inference: predict the input rows, and append the predictions as a snapshot of `<dataset>-predictions`."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import get_run_logger, task

from blocks.common.temporary_folders import temporary_folder
from blocks.environment import Environment, open_environment
from blocks.lake.base import Lake, Snapshot
from tasks.batch.input import InferenceInput, open_inference_input
from tasks.batch.predictor import SOURCE_FILE_COLUMN, Predictor
from tasks.batch.transform import choose_and_price_placement, predict_by_batch_job
from tasks.shared.champion import approved_digest, champion_version, refuse_changed_forms, verified_champion_files
from tasks.shared.checks import report_and_require_valid
from tasks.shared.models import TeamModel, load_model
from tasks.shared.records import BatchInferenceResult
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.parquet_rows import ParquetRows


@task(name="run batch inference", **TASK_OPTIONS)
def run_batch_inference(model: str, source: str, query: str, environment: str, as_of: str = "") -> BatchInferenceResult:
    """Validate the rows, predict them with the champion, and append the predictions to the lake.

    Reading, validation and prediction use bounded memory for any number of rows.

    Raises:
        Refusal: no version of the model is deployed, its files are not the approved ones, or the rows fail an
            expectation (other than those of the target).
    """
    env, team_model = open_environment(environment), load_model(model)
    result = predict_source(env, team_model, source, query, as_of, get_run_logger().info)
    get_run_logger().info("%d predictions of version %s in snapshot %s", result.rows, result.version, result.snapshot)
    return result


def predict_source(
    env: Environment, team_model: TeamModel, source: str, query: str, as_of: str, log: Callable[..., None]
) -> BatchInferenceResult:
    """Check the rows of a source, predict them with the champion where that is right for so many, and append all."""
    data, model = team_model.spec.data, team_model.spec.name
    predictor = champion_predictor(env, team_model)

    def validate_rows(rows: ParquetRows) -> None:
        suite = team_model.expectation_suite().without_column(data.target).for_batch(rows.row_count)
        report_and_require_valid(validate_table(rows, suite, key=data.entity), where=f"{model}, {source}")

    def predict(rows: InferenceInput, asked: str, to: Path) -> None:
        place, worst_case = choose_and_price_placement(env, team_model, rows.rows)
        log("predicted by %s, because %s", place.target, place.reason)
        if place.target == "flow":
            predict_in_flow(rows, asked, predictor, to)
        else:
            predict_by_batch_job(env, model, rows, asked, predictor, place, worst_case, to)

    with temporary_folder(env.scratch / "score", "score-") as folder:
        rows = open_inference_input(env, data, source, query, as_of, folder)
        refuse_changed_forms(env, model, predictor.version, rows.changed_columns & {*data.features})
        dataset = team_model.spec.own_dataset("predictions")
        kept = append_predictions(env.lake(), rows, predictor, validate_rows, folder, predict, dataset=dataset)
    return BatchInferenceResult(dataset=kept.dataset, snapshot=kept.id, rows=kept.rows, version=predictor.version)


def champion_predictor(env: Environment, team_model: TeamModel) -> Predictor:
    """Return what predicts with the version that serves."""
    model = team_model.spec.name
    version = champion_version(env, model)
    if not version:
        raise Refusal("the model serves nothing yet", where=model, remedy="Retrain and approve a first version.")
    artifact = verified_champion_files(env, model, version)
    return Predictor(env.tracking(), artifact, approved_digest(env, model, version), team_model.spec.data, version)


def append_predictions(
    lake: Lake,
    rows: InferenceInput,
    predictor: Predictor,
    validate_rows: Callable[[ParquetRows], None],
    folder: Path,
    predict: Callable[[InferenceInput, str, Path], None] | None = None,
    *,
    dataset: str = "",
) -> Snapshot:
    """Append the predictions as one snapshot, completely or not at all, and return the snapshot.

    A repeat with the same rows and version adds nothing, and returns the existing snapshot.

    Args:
        lake: the lake that stores the predictions.
        rows: the input rows.
        predictor: the model.
        validate_rows: raises a Refusal for invalid rows.
        folder: a folder for the predictions until they are in the lake.
        predict: writes the predictions of the rows that its SQL selects into a new folder; by default in this run.
        dataset: the data set of the predictions; by default `<dataset>-predictions`.
    """
    dataset = dataset or f"{predictor.data.dataset}-predictions"
    key = rows.predictions_key(predictor.version)
    if known := lake.find_by_key(dataset, key):
        return known
    validate_rows(rows.as_parquet_rows())
    rows.refuse_rows_without_entity(predictor.data.entity)
    rows_sql = rows.rows_with_buckets_sql(predictor.data.entity)
    if predict is None:
        predict_in_flow(rows, rows_sql, predictor, folder / "predictions")
    else:
        predict(rows, rows_sql, folder / "predictions")
    predictions = _read_predictions(folder / "predictions", predictor.schema, rows.files)
    return lake.append(dataset, predictions, source=rows.description, key=key, at=datetime.now(UTC))


def predict_in_flow(rows: InferenceInput, rows_sql: str, predictor: Predictor, to: Path) -> None:
    """Predict the rows with the engine of the input, and write the predictions below `to`."""
    rows.engine.map_batches(predictor, rows_sql, rows.tables, predictor.schema, to)


def _read_predictions(folder: Path, schema: pa.Schema, files: Sequence[str]) -> pa.RecordBatchReader:
    """Return the predictions in the types of their data set, with the files' names for their indexes."""
    file, names = schema.get_field_index(SOURCE_FILE_COLUMN), pa.array(files, pa.string())
    lake_schema = schema.set(0, schema.field(0).with_type(pa.large_string()))  # the key's type in pandas
    lake_schema = lake_schema.set(file, pa.field(SOURCE_FILE_COLUMN, pa.string()))

    def batches() -> Iterator[pa.RecordBatch]:
        for path in sorted(folder.iterdir()):
            with pq.ParquetFile(path) as stored:
                for batch in stored.iter_batches():
                    named = batch.set_column(file, SOURCE_FILE_COLUMN, names.take(batch.column(file)))
                    yield named.cast(lake_schema)

    return pa.RecordBatchReader.from_batches(lake_schema, batches())
