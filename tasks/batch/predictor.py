"""Predict batches of rows with one verified model, in this process or in the processes of a cluster."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from blocks.common.errors import Corrupt
from blocks.lake.base import BUCKET_COLUMN
from blocks.tracking.base import PredictFunction, Tracking
from runtime.digests import folder_digest
from tasks.evaluation.rules.predictions import TaskType, check_predictions
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.parquet_rows import to_frame

VERSION_COLUMN = "model_version"
SOURCE_FILE_COLUMN, SOURCE_ROW_COLUMN = "_source_file", "_source_row"
"""The position of a predicted row in its input: its file, and its line or row number there."""

_model_cache: dict[tuple[Path, str], PredictFunction] = {}


@dataclass(frozen=True)
class Predictor:
    """A picklable callable that an engine calls with batches of entity, time, features, position and bucket.

    Each process loads the model once, and only from files with the approved digest.
    """

    tracking: Tracking
    model_path: Path
    model_digest: str
    data: DataSpec
    version: str

    @property
    def schema(self) -> pa.Schema:
        """The schema of the predictions: those of `predictions_table`, with the file's index instead of its name.

        Raises:
            Refusal: a column of the model is called like one of these.
        """
        numbers = [pa.field(name, pa.float64()) for name in batch_prediction_columns(self.data)]
        fields = [*passthrough_schema(self.data), *numbers, pa.field(VERSION_COLUMN, pa.string())]
        names = [field.name for field in fields]
        own = (SOURCE_FILE_COLUMN, SOURCE_ROW_COLUMN, BUCKET_COLUMN)  # beside the features, too
        used = [*names, *(name for name in self.data.features if name in own)]
        if twice := next((name for name in names if used.count(name) > 1), ""):
            remedy = "Rename the column in the data and in model.yaml."
            raise Refusal(
                "the predictions have a column of this name already", where="data", value=twice, remedy=remedy
            )
        bucket = names.index(BUCKET_COLUMN)
        return pa.schema([*fields[:bucket], *fields[bucket + 1 :], fields[bucket]])

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield one row of predictions for each input row.

        Raises:
            Corrupt: the model's files are not the approved ones.
            Rejected: the model cannot be loaded, or refuses the columns.
            Refusal: the model's output is no valid prediction of the task.
        """
        for batch in batches:
            if batch.num_rows:
                predictions = self._model()(to_frame(pa.Table.from_batches([batch.select(list(self.data.features))])))
                table = predictions_table(self.data, pa.Table.from_batches([batch]), predictions, self.version)
                yield from table.cast(self.schema).combine_chunks().to_batches()

    def _model(self) -> PredictFunction:
        key = (self.model_path, self.model_digest)
        if key not in _model_cache:
            if (digest := folder_digest(self.model_path)) != self.model_digest:
                problem = (
                    f"the files of {self.model_path} have the digest {digest}, but {self.model_digest} was approved"
                )
                raise Corrupt(f"{problem}. Remove the folder, so that it is fetched again.")
            _model_cache.clear()  # keep one model in memory
            _model_cache[key] = self.tracking.load_model(self.model_path)
        return _model_cache[key]


def batch_prediction_columns(data: DataSpec) -> list[str]:
    """Return the names of the prediction columns."""
    return [f"probability_{name}" for name in data.classes] or ["prediction"]


def passthrough_schema(data: DataSpec) -> pa.Schema:
    """Return the columns of a row that its prediction keeps: entity, time if declared, position, bucket."""
    time = [pa.field(data.time, pa.timestamp("us", "UTC"))] if data.time else []
    position = [pa.field(SOURCE_FILE_COLUMN, pa.int32()), pa.field(SOURCE_ROW_COLUMN, pa.int64())]
    return pa.schema([pa.field(data.entity, pa.string()), *time, *position, pa.field(BUCKET_COLUMN, pa.int32())])


def predictions_table(data: DataSpec, rows: pa.Table, predictions: np.ndarray, version: str) -> pa.Table:
    """Return one row per prediction: entity, time, position, a probability per class (or the value), version, bucket.

    Of `rows` those columns are kept that predictions have; a missing one (the time of rows that have none) is null.
    """
    task: TaskType = "multiclass" if data.classes else "regression"
    values = check_predictions(task, data.classes, len(rows), predictions).reshape(len(rows), -1)
    own = {
        field.name: rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in passthrough_schema(data)
    }
    bucket = own.pop(BUCKET_COLUMN)
    columns = {name: pa.array(values[:, place]) for place, name in enumerate(batch_prediction_columns(data))}
    return pa.table({**own, **columns, VERSION_COLUMN: pa.array([version] * len(rows)), BUCKET_COLUMN: bucket})
