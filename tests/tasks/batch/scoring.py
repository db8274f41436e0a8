"""Houses to be predicted, a small model for them, and what it has to say."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import PrivateAttr

from blocks.lake.base import Lake, Snapshot
from blocks.tracking.base import Predict
from blocks.tracking.fake import FakeTracking
from runtime.digests import folder_digest
from tasks.batch.input import Input
from tasks.batch.predictor import Predictor, predictions_table
from tasks.batch.scoring import add_predictions
from tasks.shared.rules.model.spec import DataSpec, parse_spec
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.validation.rules.parquet_rows import ParquetRows
from tests.tasks.shared.rules.model.spec_cases import BINARY

DATA = parse_spec(BINARY, "model.yaml").data
WEIGHTS = {"rooms": 0.3, "garden": -1.0}
HOUSES = pd.DataFrame(
    {
        "house_id": [f"h{number}" for number in range(500)],
        "rooms": [float(number % 9) for number in range(500)],
        "street": ["Elm", "Oak", None, "Zoë", "Elm"] * 100,
        "garden": [number % 2 for number in range(500)],
    }
)


class CountedTracking(FakeTracking):
    """Counts how often a model is loaded."""

    _block_type_slug = "ratchet-tracking-counted"

    _times: int = PrivateAttr(default=0)

    def loaded(self, artifact: Path) -> Predict:
        self._times += 1
        return super().loaded(artifact)


def made(folder: Path, data: DataSpec = DATA, version: str = "3") -> Predictor:
    tracking = CountedTracking(root=folder)
    run = tracking.open_run("price", key="k", name="train")
    tracking.log_model(run.id, WEIGHTS)
    artifact = folder / run.id / "model"
    return Predictor(tracking, artifact, folder_digest(artifact), data, version)


def folder_of(tmp_path: Path, name: str = "work") -> Path:
    folder = tmp_path / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def right(rows: ParquetRows) -> None:
    assert list(rows.kinds) == ["house_id", "rooms", "street", "garden"]


def score(lake: Lake, predictor: Predictor, rows: Input, folder: Path, hold: Any = right) -> Snapshot:
    return add_predictions(lake, rows, predictor, hold, folder)


def predictions(lake: Lake) -> pa.Table:
    return lake.read(lake.as_of("houses-predictions")).sort_by("house_id")


def expected(predictor: Predictor, frame: pd.DataFrame = HOUSES) -> pa.Table:
    said = predictor.tracking.predict(predictor.artifact, frame[list(DATA.features)])
    keys = pa.array(frame["house_id"])
    buckets = pa.array(tier_buckets(keys), pa.int32())
    return predictions_table(DATA, keys, buckets, said, "3").sort_by("house_id")


def landed(lake: Lake, frame: pd.DataFrame, dataset: str = "houses") -> Snapshot:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    keys = pa.array(frame["house_id"].astype(str))
    table = table.append_column("_bucket", pa.array(tier_buckets(keys), pa.int32()))
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return lake.append(dataset, table, source="test", key=str(frame["house_id"].iloc[0]), at=now)


def as_csv(tmp_path: Path) -> tuple[str, str]:
    HOUSES.to_csv(tmp_path / "houses.csv", index=False)
    return str(tmp_path / "houses.csv"), ""
