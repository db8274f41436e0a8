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
from blocks.tracking.mlflow import MlflowTracking
from blocks.trainers.local import LocalTrainer
from tasks.evaluation.tasks import evaluate_challenger
from tasks.shared.models import TeamModel
from tasks.shared.records import CostEstimate, TierData
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise
from tasks.training.jobs import train_and_register
from tasks.training.tasks import run_backtests
from tasks.validation.rules.expectations import parse_suite
from tests.fakes.environment import World
from tests.fixtures.flights import flights, planes, weather

FOLDER = Path(__file__).parents[1] / "data" / "flights"
SPEC = parse_spec((FOLDER / "model.yaml").read_bytes(), "model.yaml")
pytestmark = pytest.mark.slow


def filled(main: pd.DataFrame) -> FakeLake:
    """Return a lake with these flights, the weather and the planes."""
    lake = FakeLake()
    for name, frame in {"": main, "weather": weather(), "planes": planes()}.items():
        landing = SPEC.data.ingest_schema(name)
        rows = pa.Table.from_pandas(frame, preserve_index=False).select(list(landing.column_kinds))
        buckets = pa.array(tier_buckets(rows[landing.entity]), pa.int32())
        at = datetime(2026, 11, 21, tzinfo=UTC)
        lake.append(landing.dataset, rows.append_column("_bucket", buckets), source="nycflights13", key="1", at=at)
    return lake


@pytest.fixture(scope="module")
def lake() -> FakeLake:
    return filled(flights())


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


HOLDOUTS = {
    "by entity": '{by: entity, share: 0.2, reason: "as it was before"}',
    "by time": '{by: time, since: "2013-11-01T00:00:00Z"}',
}


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_model_that_the_time_split_puts_below_its_floor_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the planes, August to December: days are in training and in a holdout by entity at once."""
    for name in ("create_markdown_artifact", "create_image_artifact"):
        monkeypatch.setattr(f"tasks.evaluation.tasks.{name}", lambda **_: None)
    monkeypatch.chdir(tmp_path)  # MLflow stores artifacts below the working directory
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address := f"sqlite:///{tmp_path}/mlflow.db")
    some = flights(months=(8, 9, 10, 11, 12))
    env = World.at(tmp_path)
    env._adapters |= {
        "lake": filled(some[some["tailnum"].isin(sorted(some["tailnum"].unique())[::2])]),
        "trainer": LocalTrainer(root=tmp_path / "jobs"),
        "tracking": MlflowTracking(tracking_uri=address, trusted_keys=[*env.signing.trusted_model_keys]),
        env.engine_adapter: DuckDBEngine(),
    }
    free = CostEstimate(
        use_local_trainer=False,
        is_paid=False,
        worst_case_usd=0.0,
        serving_usd_month=None,
        explanation="nothing is paid",
    )
    found = {}
    for kind, holdout in HOLDOUTS.items():
        text = (FOLDER / "model.yaml").read_text().replace("holdout: 0.20", f"holdout: {holdout}")
        model = TeamModel(FOLDER, parse_spec(text, "model.yaml"))
        reads = resolve_reads(env.lake(), model.spec.data, "")
        data = materialise(env.lake(), env.engine(), reads, model.spec, "full", env.scratch)
        chosen = {"max_iter": 250, "learning_rate": 0.2}
        trained = train_and_register(env, model, data, free, chosen, key=kind, log=lambda _: None)
        found[kind] = evaluate_challenger(env, model, data, trained)
    terms = model.spec.evaluation.model_copy(update={"backtests": 1})
    model = TeamModel(FOLDER, model.spec.model_copy(update={"evaluation": terms}))
    backtests = run_backtests(env, model, data, free, trained, found[kind], key="backtest", log=lambda _: None)
    assert found["by entity"].verdict == "pass"
    assert found["by entity"].metrics["auc"] > 0.68
    assert found["by time"].verdict == "hold"
    assert found["by time"].failed_gates == ("auc",)
    assert found["by time"].metrics["auc"] < 0.63
    assert [each.problem for each in backtests.figures] == ["", "", ""]
    assert backtests.by_hash.value is not None
    assert backtests.by_hash.value > 0.68
    assert "the model knows rows of the same time" in backtests.note
    assert len(env.tracking().versions("flights")) == 2, "a backtest is no version"
    version = env.tracking().version("flights", "2")
    assert version is not None
    assert version.tags["ratchet.cut_off"] == "2013-11-01T00:00:00+00:00"
    assert "2013-10-31" in version.tags["ratchet.trained_until"]
