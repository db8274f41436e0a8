"""Predict batches of rows with one verified model: in this process, or in those of a cluster."""

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
from tasks.shared.rules.model.spec import DataSpec
from tasks.validation.rules.parquet_rows import to_frame

VERSION_COLUMN = "model_version"

_model_cache: dict[tuple[Path, str], PredictFunction] = {}


@dataclass(frozen=True)
class Predictor:
    """What an engine calls with batches of entity, features and bucket; it may travel to another process.

    A process loads the model once, whichever and however many batches it is given, and only files whose digest
    is the one that was approved.
    """

    tracking: Tracking
    model_path: Path
    model_digest: str
    data: DataSpec
    version: str

    @property
    def schema(self) -> pa.Schema:
        """The columns that come out: entity, a probability per class (or the value), model version, bucket."""
        numbers = [pa.field(name, pa.float64()) for name in batch_prediction_columns(self.data)]
        keys = [pa.field(self.data.entity, pa.string()), *numbers, pa.field(VERSION_COLUMN, pa.string())]
        return pa.schema([*keys, pa.field(BUCKET_COLUMN, pa.int32())])

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield a row of predictions for each row.

        Raises:
            Corrupt: the model's files are not those that were approved.
            Rejected: the model does not load, or refuses the columns.
            Refusal: what it answers is no prediction of the task.
        """
        for batch in batches:
            if batch.num_rows:
                said = self._model()(to_frame(pa.Table.from_batches([batch.select(list(self.data.features))])))
                keys, buckets = batch.column(self.data.entity), batch.column(BUCKET_COLUMN)
                table = predictions_table(self.data, keys, buckets, said, self.version)
                yield from table.cast(self.schema).combine_chunks().to_batches()

    def _model(self) -> PredictFunction:
        at = (self.model_path, self.model_digest)
        if at not in _model_cache:
            if (found := folder_digest(self.model_path)) != self.model_digest:
                problem = f"the files of {self.model_path} have the digest {found}, not {self.model_digest}, which was approved"
                raise Corrupt(f"{problem}. Remove the folder, so that it is fetched again.")
            _model_cache.clear()  # of several models one after the other, the last
            _model_cache[at] = self.tracking.load_model(self.model_path)
        return _model_cache[at]


def batch_prediction_columns(data: DataSpec) -> list[str]:
    """Return the names of the columns of numbers that a model of this data answers with."""
    return [f"probability_{name}" for name in data.classes] or ["prediction"]


def predictions_table(
    data: DataSpec, keys: pa.Array, buckets: pa.Array, predictions: np.ndarray, version: str
) -> pa.Table:
    """Return one row a prediction: entity, a probability per class (or the value), model version, bucket."""
    task: TaskType = "multiclass" if data.classes else "regression"
    values = check_predictions(task, data.classes, len(keys), predictions).reshape(len(keys), -1)
    columns = {name: pa.array(values[:, place]) for place, name in enumerate(batch_prediction_columns(data))}
    stamp = pa.array([version] * len(keys))
    return pa.table({data.entity: keys, **columns, VERSION_COLUMN: stamp, BUCKET_COLUMN: buckets})
