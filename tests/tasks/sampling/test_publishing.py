"""Publishing: one model's rows become a data set for others, each row once, as it was first computed."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from tasks.sampling.tasks import publish_rows
from tasks.shared.records import PublishResult, TierData
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise
from tests.fixtures.join_cases import JOINED, at, table
from tests.fixtures.joined_tiers import filled, land

NAMED = JOINED.replace("  target: late\n", "  target: late\n  publish: late-features\n")
MAKER = parse_spec(NAMED, "model.yaml")
USER_TEXT = """\
name: rainy
description: Whether a late parcel was late for the rain.
owner: other@example.com
task: binary
data:
  dataset: late-features
  entity: customer
  time: asked_at
  target: late
  classes: ["No", "Yes"]
  features: {rain: number, balance: number}
training: {seed: 7, max_minutes: 10, max_memory_mb: 1024}
evaluation:
  minimum_rows: 1
  floors:
    - {metric: auc, at_least: 0.4}
  comparison: {metric: auc, rule: superior, margin: 0.01, confidence: 0.95}
"""
USER = parse_spec(USER_TEXT, "model.yaml")
ENGINE = DuckDBEngine()
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def read(lake: FakeLake, scratch: Path, spec: ModelSpec = MAKER, as_of: str = "") -> TierData:
    return materialise(lake, ENGINE, resolve_reads(lake, spec.data, as_of), spec, "full", scratch)


def publish(lake: FakeLake, scratch: Path, spec: ModelSpec = MAKER) -> PublishResult:
    return publish_rows(lake, ENGINE, spec, read(lake, scratch, spec), at=NOW)


def rows_of(data: TierData) -> pa.Table:
    rows = pa.concat_tables(pq.read_table(part) for part in (data.train, data.holdout))
    return rows.sort_by([("customer", "ascending"), ("asked_at", "ascending")])


def test_another_model_reads_the_rows_that_the_first_one_published(tmp_path: Path) -> None:
    lake = filled()
    done = publish(lake, tmp_path)
    assert (done.dataset, done.rows, done.new) == ("late-features", 600, True)
    made, used = rows_of(read(lake, tmp_path)), rows_of(read(lake, tmp_path, USER))
    assert used.equals(made.select(["customer", "asked_at", "rain", "balance", "late"]))


def test_the_same_rows_decide_in_both_models(tmp_path: Path) -> None:
    lake = filled()
    publish(lake, tmp_path)
    made, used = read(lake, tmp_path), read(lake, tmp_path, USER)
    assert set(pq.read_table(made.holdout)["customer"].to_pylist()) == set(
        pq.read_table(used.holdout)["customer"].to_pylist()
    )


def test_published_rows_are_laid_out_by_the_entity(tmp_path: Path) -> None:
    lake = filled()
    publish(lake, tmp_path)
    there = lake.read(lake.as_of("late-features"))
    assert there["_bucket"].to_pylist() == tier_buckets(there["customer"]).tolist()
    assert there.schema.field("_bucket").type == pa.int32()


def test_publishing_again_adds_nothing(tmp_path: Path) -> None:
    lake = filled()
    first = publish(lake, tmp_path)
    assert publish(lake, tmp_path) == first.model_copy(update={"new": False})
    assert len(lake.as_of("late-features").snapshots) == 1


def test_only_new_rows_are_added_and_published_ones_stay_as_they_were(tmp_path: Path) -> None:
    lake = filled()
    publish(lake, tmp_path)
    before = lake.read(lake.as_of("late-features"))
    land(lake, "weather", table("weather", [("north", at(3), 77.0)]), key="late news", hours=1)
    assert publish(lake, tmp_path).rows == 0
    land(
        lake, "", table("", [("c1", at(11), "north", 1.0, "No"), ("new", at(3), "north", 1.0, "Yes")]), key="2", hours=2
    )
    assert publish(lake, tmp_path).rows == 2
    read = lake.as_of("late-features")
    assert len(read.snapshots) == 2
    assert lake.read(lake.as_of("late-features", read.snapshots[0].id)).equals(before)
    new = {row["customer"]: row["rain"] for row in lake.read(read).slice(before.num_rows).to_pylist()}
    assert new == {"c1": 5.0, "new": 77.0}


def test_other_rules_need_another_name(tmp_path: Path) -> None:
    lake = filled()
    publish(lake, tmp_path)
    changed = parse_spec(
        NAMED.replace("      time: seen_at\n", "").replace("{depot: place}", "{customer: place}"), "model.yaml"
    )
    data = read(lake, tmp_path)
    with pytest.raises(
        Refusal, match=r"data set late-features: the rows there were published by other rules.*data\.publish"
    ):
        publish_rows(lake, ENGINE, changed, data.model_copy(update={"digest": "x" * 64}), at=NOW)


def test_a_data_set_of_another_making_is_not_added_to(tmp_path: Path) -> None:
    lake = filled()
    lake.append("late-features", pa.table({"a": [1]}), source="a person", key="k", at=NOW)
    with pytest.raises(Refusal, match="late-features: the rows there were published by something that is no model"):
        publish(lake, tmp_path)
    other = parse_spec(
        NAMED.replace("name: late\n", "name: later\n").replace("late-features", "features"), "model.yaml"
    )
    publish(lake, tmp_path, other)
    with pytest.raises(Refusal, match=r"features: the rows there were published by later \(value: 'late'\)"):
        publish(lake, tmp_path, parse_spec(NAMED.replace("late-features", "features"), "model.yaml"))


def test_the_rows_published_say_what_they_were_made_from(tmp_path: Path) -> None:
    lake = filled()
    publish(lake, tmp_path)
    snapshot, data = lake.as_of("late-features").snapshots[0], read(lake, tmp_path)
    assert snapshot.key == snapshot.notes["tier"] == data.digest
    assert (snapshot.notes["model"], snapshot.source) == ("late", f"late, full tier as of {data.as_of}")
