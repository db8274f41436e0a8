"""Batch predictions with the champion, kept as a new snapshot of `<dataset>-predictions`."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake.base import Lake, Snapshot
from tasks.batch.input import InferenceInput
from tasks.batch.predictor import Predictor
from tasks.validation.rules.parquet_rows import ParquetRows


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
    """Append the predictions as one snapshot, whole or not at all, and return it.

    The same rows with the same version a second time add nothing: what is there is returned.

    Args:
        lake: where they are kept.
        rows: what is to be predicted.
        predictor: the model.
        validate_rows: refuses rows that are not right.
        folder: holds the predictions until they are in the lake.
        predict: writes the predictions of the rows that some SQL gives below a new folder; in this flow run if None.
        dataset: the data set that takes them; by default `<dataset>-predictions`.
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
    found = _read_predictions(folder / "predictions", predictor.schema)
    return lake.append(dataset, found, source=rows.description, key=key, at=datetime.now(UTC))


def predict_in_flow(rows: InferenceInput, asked: str, predictor: Predictor, to: Path) -> None:
    """Predict the rows by the environment's engine, and write the predictions below `to`."""
    rows.engine.map_batches(predictor, asked, rows.tables, predictor.schema, to)


def _read_predictions(folder: Path, schema: pa.Schema) -> pa.RecordBatchReader:
    """Return the predictions in the types that their data set has had since its first snapshot."""
    kept = schema.set(0, schema.field(0).with_type(pa.large_string()))  # the key, as it came from pandas

    def batches() -> Iterator[pa.RecordBatch]:
        for path in sorted(folder.iterdir()):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches():
                    yield batch.cast(kept)

    return pa.RecordBatchReader.from_batches(kept, batches())
