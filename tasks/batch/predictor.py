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
from tasks.validation.rules.parquet_rows import to_frame

VERSION_COLUMN = "model_version"

_model_cache: dict[tuple[Path, str], PredictFunction] = {}


@dataclass(frozen=True)
class Predictor:
    """A picklable callable that an engine calls with batches of entity, features and bucket.

    Each process loads the model once, and only from files with the approved digest.
    """

    tracking: Tracking
    model_path: Path
    model_digest: str
    data: DataSpec
    version: str

    @property
    def schema(self) -> pa.Schema:
        """The schema of the predictions: entity, a probability per class (or the value), model version, bucket."""
        numbers = [pa.field(name, pa.float64()) for name in batch_prediction_columns(self.data)]
        keys = [pa.field(self.data.entity, pa.string()), *numbers, pa.field(VERSION_COLUMN, pa.string())]
        return pa.schema([*keys, pa.field(BUCKET_COLUMN, pa.int32())])

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
                keys, buckets = batch.column(self.data.entity), batch.column(BUCKET_COLUMN)
                table = predictions_table(self.data, keys, buckets, predictions, self.version)
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


def predictions_table(
    data: DataSpec, keys: pa.Array, buckets: pa.Array, predictions: np.ndarray, version: str
) -> pa.Table:
    """Return one row per prediction: entity, a probability per class (or the value), model version, bucket."""
    task: TaskType = "multiclass" if data.classes else "regression"
    values = check_predictions(task, data.classes, len(keys), predictions).reshape(len(keys), -1)
    columns = {name: pa.array(values[:, place]) for place, name in enumerate(batch_prediction_columns(data))}
    stamp = pa.array([version] * len(keys))
    return pa.table({data.entity: keys, **columns, VERSION_COLUMN: stamp, BUCKET_COLUMN: buckets})
