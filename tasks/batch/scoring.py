"""Batch predictions with the champion, kept as a new snapshot of `<dataset>-predictions`."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.lake.base import Lake, Snapshot
from tasks.batch.input import Input
from tasks.batch.predictor import Predictor
from tasks.validation.rules.parquet_rows import ParquetRows


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
