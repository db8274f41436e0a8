"""Row order of a tier: the same rows in the same order from the same read, after any compaction and from any engine."""

import importlib.util
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from tasks.shared.records import TierData
from tasks.shared.rules.model.data import TierSpec
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tasks.shared.rules.rows.buckets import tier_buckets
from tasks.shared.tables import TableReads, resolve_reads
from tasks.shared.tiers import materialise, parquet_files
from tests.fixtures.join_cases import at, joined_spec, table
from tests.fixtures.spec_cases import GOOD

HOUSES = parse_spec(GOOD, "model.yaml").model_copy(update={"tiers": TierSpec(development=0.2, staging=0.5)})
PARCELS = joined_spec().model_copy(update={"tiers": TierSpec(development=0.2, staging=0.5), "holdout": 0.3})
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DUCKDB = DuckDBEngine()
MISSING = [word for word in ("pyspark", "sqlglot") if importlib.util.find_spec(word) is None]
MISSING += [] if shutil.which("java") else ["java"]


@pytest.fixture(autouse=True)
def cut_by_stripe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a compaction of few rows be written like one of many: by stripe of buckets, and not by snapshot."""
    monkeypatch.setattr("blocks.lake.maintenance.ONE_FILE_ROWS", 50)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    from blocks.engines.spark import SparkEngine

    started = SparkEngine(spill=tmp_path_factory.mktemp("spill"), memory_mb=800)
    yield started
    started.stop()


def some(chance: random.Random, count: int, *, repeated: bool) -> pa.Table:
    """Return this many houses; `repeated` draws from few keys, so that one house has many rows, some of them equal."""
    named = [f"h{chance.randrange(8 if repeated else 10**9)}" for _ in range(count)]
    numbers = np.random.default_rng(chance.randrange(10**6))
    rooms = numbers.choice([1.0, 2.0, -0.5], count) if repeated else numbers.normal(size=count)
    columns = {
        "house_id": pa.array(named),
        "rooms": pa.array(rooms, mask=numbers.random(count) < 0.2),
        "street": pa.array(numbers.choice(["Elm", "Åsgatan", "élan", None], count).tolist(), pa.string()),
        "garden": pa.array(numbers.integers(0, 2, count).astype(np.int8)),
        "price": pa.array(numbers.integers(0, 3, count).astype(float)),
        "_bucket": pa.array(tier_buckets(pa.array(named)), pa.int32()),
    }
    return pa.table(columns)


def parcels(chance: random.Random, count: int) -> dict[str, pa.Table]:
    """Return rows of each table of a model with joins, as they would be appended in one night."""
    who = [f"c{chance.randrange(30)}" for _ in range(count)]
    hour, place = (lambda: at(chance.randrange(40))), (lambda: chance.choice(["north", "south", None]))
    rows = {
        "": [(name, hour(), place(), float(chance.randrange(3)), "No") for name in who],
        "accounts": [(name, hour(), float(chance.randrange(3)), chance.choice(["x", None])) for name in who],
        "weather": [(place(), hour(), float(chance.randrange(9))) for _ in range(9)],
    }
    return {name: table(name, found) for name, found in rows.items()}


def grown(spec: ModelSpec, chance: random.Random, *, repeated: bool = False) -> tuple[FakeLake, list[TableReads]]:
    """Return a lake after random appends and compactions, and reads that were fixed at random moments meanwhile."""
    lake, reads = FakeLake(), []
    if spec is PARCELS:
        people = table("people", [(f"c{number}", chance.choice(["FR", None])) for number in range(30)])
        land(lake, spec, "people", people, 0)
    for number in range(1, 21):
        count = chance.choice([3, 20, 60])
        landing = parcels(chance, count) if spec is PARCELS else {"": some(chance, count, repeated=repeated)}
        for name, rows in landing.items():
            land(lake, spec, name, rows, number)
        if number < 11 and chance.random() < 0.15:
            compact(lake)
        if number % 10 == 0:
            reads.append(resolve_reads(lake, spec.data, ""))
    return lake, reads


def land(lake: FakeLake, spec: ModelSpec, name: str, rows: pa.Table, number: int) -> None:
    data = spec.data.ingest_schema(name)
    if "_bucket" not in rows.column_names:
        buckets = tier_buckets(rows[data.entity].fill_null(""))
        rows = rows.append_column("_bucket", pa.array(buckets, pa.int32()))
    lake.append(data.dataset, rows, source="test", key=f"{number}", at=NOON + timedelta(hours=number))


def compact(lake: FakeLake) -> None:
    for dataset in lake.datasets():
        lake.compact(dataset)


def rows_of(data: TierData) -> list[pa.Table]:
    """Return the rows of train and holdout, in the order in which a training program reads them."""
    parts = [pa.concat_tables(map(pq.read_table, parquet_files(part))) for part in (data.train, data.holdout)]
    # Spark marks some columns as not nullable: a difference of the files, not of the rows.
    return [part.cast(pa.schema([pa.field(each.name, each.type) for each in part.schema])) for part in parts]


def assert_same(one: TierData, other: TierData) -> None:
    assert one.folder != other.folder
    assert one.model_copy(update={"folder": other.folder}) == other, "counts and digests, that of the tier itself too"
    for ours, theirs in zip(rows_of(one), rows_of(other), strict=True):
        assert ours.equals(theirs)


CASES = {"one row an entity": (HOUSES, False), "many rows an entity": (HOUSES, True), "joined": (PARCELS, False)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES)
def test_a_compaction_changes_no_tier(case: str, seed: int, tmp_path: Path) -> None:
    spec, repeated = CASES[case]
    lake, reads = grown(spec, random.Random(f"{case} {seed}"), repeated=repeated)
    files = lake.files(reads[-1].main)
    before = [materialise(lake, DUCKDB, read, spec, "staging", tmp_path / "before") for read in reads]
    compact(lake)
    assert lake.files(reads[-1].main) != files
    after = [materialise(lake, DUCKDB, read, spec, "staging", tmp_path / "after") for read in reads]
    for one, other in zip(before, after, strict=True):
        assert_same(one, other)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed here: {', '.join(MISSING)}")
@pytest.mark.parametrize("case", ["many rows an entity", "joined"])
def test_each_engine_lays_down_the_same_tier(case: str, spark: Engine, tmp_path: Path) -> None:
    spec, repeated = CASES[case]
    lake, reads = grown(spec, random.Random(case), repeated=repeated)
    by_duckdb = materialise(lake, DUCKDB, reads[-1], spec, "staging", tmp_path / "duckdb")
    compact(lake)
    assert_same(by_duckdb, materialise(lake, spark, reads[-1], spec, "staging", tmp_path / "spark"))
