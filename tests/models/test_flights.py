"""The flights model, trained on several real tables: flights, the weather known before departure, and their planes."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from tasks.shared.records import TierData
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise
from tasks.validation.rules.expectations import parse_suite
from tests.fixtures.flights import flights, planes, weather

FOLDER = Path(__file__).parents[1] / "data" / "flights"
SPEC = parse_spec((FOLDER / "model.yaml").read_bytes(), "model.yaml")
TABLES = {"": flights, "weather": weather, "planes": planes}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lake() -> FakeLake:
    filled = FakeLake()
    for name, frame in TABLES.items():
        landing = SPEC.data.ingest_schema(name)
        rows = pa.Table.from_pandas(frame(), preserve_index=False).select(list(landing.column_kinds))
        buckets = pa.array(tier_buckets(rows[landing.entity]), pa.int32())
        at = datetime(2026, 11, 21, tzinfo=UTC)
        filled.append(landing.dataset, rows.append_column("_bucket", buckets), source="nycflights13", key="1", at=at)
    return filled


def tier(lake: FakeLake, scratch: Path, name: str) -> TierData:
    return materialise(lake, DuckDBEngine(), resolve_reads(lake, SPEC.data, ""), SPEC, name, scratch)


def rows_of(data: TierData) -> pd.DataFrame:
    return pd.concat([pq.read_table(part).to_pandas() for part in data.all_parts])


def test_each_flight_takes_the_weather_that_pandas_finds_as_of_its_departure(lake: FakeLake, tmp_path: Path) -> None:
    found = rows_of(tier(lake, tmp_path, "full")).sort_values(["tailnum", "scheduled_at"], ignore_index=True)
    expected = pd.merge_asof(
        flights().sort_values("scheduled_at"), weather().sort_values("observed_at"),
        left_on="scheduled_at", right_on="observed_at", left_by="origin", right_by="airport",
    ).merge(planes(), on="tailnum", how="left").sort_values(["tailnum", "scheduled_at"], ignore_index=True)  # fmt: skip
    assert len(found) == len(expected) > 20_000
    pairs = {
        "temperature": "temp",
        "wind_speed": "wind_speed",
        "visibility": "visib",
        "seats": "seats",
        "built": "year",
    }
    for ours, theirs in pairs.items():
        pd.testing.assert_series_equal(found[ours], expected[theirs], check_names=False, check_dtype=False)


def test_a_small_tier_joins_as_the_whole_does(lake: FakeLake, tmp_path: Path) -> None:
    some, whole = (rows_of(tier(lake, tmp_path, name)) for name in ("development", "full"))
    assert 0.05 < len(some) / len(whole) < 0.15
    kept = whole[whole["tailnum"].isin(some["tailnum"])]
    order = ["tailnum", "scheduled_at"]
    pd.testing.assert_frame_equal(
        some.sort_values(order, ignore_index=True), kept.sort_values(order, ignore_index=True)
    )


def test_the_model_trains_on_a_tier_of_three_tables(lake: FakeLake, tmp_path: Path) -> None:
    data = tier(lake, tmp_path, "staging")
    channels = {f"SM_CHANNEL_{name.upper()}": str(part) for name, part in data.training_parts.items()}
    channels["SM_MODEL_DIR"] = str(tmp_path / "out")
    chosen = {**SPEC.training.parameters, "seed": SPEC.training.seed}
    environment = {
        **os.environ,
        **channels,
        "SM_HPS": json.dumps(chosen),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
    }
    done = subprocess.run(
        [sys.executable, str(FOLDER / "train.py")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "model" / "MLmodel").exists()


def test_the_model_brings_expectations_of_its_own_columns() -> None:
    assert parse_suite((FOLDER / "expectations.yaml").read_text(), "expectations.yaml")
