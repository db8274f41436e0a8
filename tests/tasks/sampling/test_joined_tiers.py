"""Tiers of several tables: drawn by the same entity in each, joined as of each row's time, and repeatable."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Corrupt, NotFound
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from tasks.shared.records import TierData
from tasks.shared.rules.model.holdout import HoldoutSpec
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise
from tests.fixtures.join_cases import SCHEMAS, at, comparable, slowly, table
from tests.fixtures.joined_tiers import CUSTOMERS, DATA, ROWS, SPEC, filled, land

ENGINE = DuckDBEngine()


def tier(lake: FakeLake, scratch: Path, name: str = "full", spec: ModelSpec = SPEC, as_of: str = "") -> TierData:
    return materialise(lake, ENGINE, resolve_reads(lake, spec.data, as_of), spec, name, scratch)


def rows_of(data: TierData) -> list[list[Any]]:
    """Return the rows of a tier, train and holdout, in order."""
    both = pa.concat_tables(pq.read_table(part) for part in (data.train, data.holdout))
    return sorted(([row[column] for column in DATA.row_columns] for row in both.to_pylist()), key=comparable)


def test_the_rows_of_a_tier_are_the_joined_rows(tmp_path: Path) -> None:
    expected = sorted(slowly(DATA, {name: table(name, rows) for name, rows in ROWS.items()}), key=comparable)
    data = tier(filled(), tmp_path)
    assert rows_of(data) == expected
    assert data.train_rows + data.holdout_rows == 600
    assert pq.read_schema(data.train / "rows.parquet").names == list(DATA.row_columns)


@pytest.mark.parametrize("name", ["development", "staging"])
def test_joins_survive_sampling(name: str, tmp_path: Path) -> None:
    lake = filled()
    some, whole = rows_of(tier(lake, tmp_path, name)), rows_of(tier(lake, tmp_path))
    entities = {row[0] for row in some}
    assert 0 < len(entities) < 150
    assert some == [row for row in whole if row[0] in entities], "the same values as on all the data"
    assert any(row[4] is not None for row in some)


def test_whole_entities_train_or_decide(tmp_path: Path) -> None:
    data = tier(filled(), tmp_path, spec=SPEC.model_copy(update={"holdout": HoldoutSpec(by="entity", share=0.3)}))
    trains, decides = (set(pq.read_table(part)["customer"].to_pylist()) for part in (data.train, data.holdout))
    assert not trains & decides
    assert trains | decides == set(CUSTOMERS)


def test_a_small_tier_reads_only_its_own_files_of_each_table_with_the_entity(tmp_path: Path) -> None:
    many = [f"c{number}" for number in range(120_000)]
    people = pa.table({"who": many, "country": ["FR"] * len(many)})
    lake = filled(people=people)
    snapshot = lake.as_of("people").snapshots[0]
    assert len(snapshot.files) > 5
    lake.corrupt_file(snapshot, snapshot.files[-1].name, 100)
    assert tier(lake, tmp_path, "development").train_rows > 0
    with pytest.raises(Corrupt):
        tier(lake, tmp_path)


def test_the_snapshot_of_each_table_is_recorded_and_counts(tmp_path: Path) -> None:
    lake = filled()
    before = tier(lake, tmp_path)
    assert before.tables == {name: lake.as_of(DATA.tables[name].dataset).id for name in DATA.tables}
    land(lake, "weather", table("weather", [("south", at(1), 1.0)]), key="second", hours=1)
    after = tier(lake, tmp_path)
    assert (after.as_of, after.tables["accounts"]) == (before.as_of, before.tables["accounts"])
    assert after.tables["weather"] != before.tables["weather"]
    assert after.data_digest != before.data_digest
    assert after.folder != before.folder


def test_a_time_or_a_snapshot_gives_the_tables_of_then(tmp_path: Path) -> None:
    lake = filled()
    then = tier(lake, tmp_path)
    land(lake, "weather", table("weather", [("north", at(3), 77.0)]), key="second", hours=1)
    land(lake, "", table("", [("new", at(3), "north", 1.0, "No")]), key="second", hours=2)
    assert tier(lake, tmp_path, as_of=then.reread_as_of) == then
    assert tier(lake, tmp_path, as_of=then.as_of) == then
    assert tier(lake, tmp_path) != then


def test_a_table_that_landed_after_the_main_snapshot_is_not_there_yet(tmp_path: Path) -> None:
    lake = FakeLake()
    for hours, (name, rows) in enumerate(ROWS.items()):
        land(lake, name, table(name, rows), hours=hours)
    with pytest.raises(NotFound, match="accounts"):
        tier(lake, tmp_path, as_of=lake.as_of("parcels").id)
    assert tier(lake, tmp_path).train_rows > 0


def test_repeated_keys_without_a_time_are_refused_with_examples(tmp_path: Path) -> None:
    lake = filled(people=[("c1", "FR"), ("c1", "DE"), ("c2", "FR"), ("c2", "DE"), ("c2", "IT"), ("c3", "FR")])
    with pytest.raises(
        Refusal, match=r"data set people, column 'who': key not unique: c2 \(3 rows\), c1 \(2 rows\)\. Keep one"
    ):
        tier(lake, tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_null_keys_are_no_repeated_keys(tmp_path: Path) -> None:
    rows = rows_of(tier(filled(people=[(None, "FR"), (None, "DE")]), tmp_path))
    assert len(rows) == 600
    assert all(row[-2] is None for row in rows)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (pa.timestamp("us"), r"parcels\.asked_at is a time with a zone, accounts\.valid_from is a time without a zone"),
        (pa.date32(), r"accounts\.valid_from is a date"),
        (pa.string(), r"accounts\.valid_from: the column holds no times \(value: 'string'\).*with a zone"),
        (pa.timestamp("ns", tz="UTC"), r"accounts\.valid_from: nanoseconds"),
    ],
    ids=str,
)
def test_times_that_cannot_be_compared_are_refused_by_name(kind: pa.DataType, says: str, tmp_path: Path) -> None:
    accounts = table("accounts", ROWS["accounts"])
    text = ["2026-01-01"] * accounts.num_rows
    times = pa.array(text) if pa.types.is_string(kind) else accounts["valid_from"].cast(kind, safe=False)
    with pytest.raises(Refusal, match=says):
        tier(filled(accounts=accounts.set_column(1, "valid_from", times)), tmp_path)


def test_times_of_different_zones_are_compared_as_instants(tmp_path: Path) -> None:
    accounts = table("accounts", ROWS["accounts"])
    there = accounts.set_column(1, "valid_from", accounts["valid_from"].cast(pa.timestamp("ms", tz="Asia/Tokyo")))
    assert rows_of(tier(filled(accounts=there), tmp_path)) == rows_of(tier(filled(), tmp_path / "utc"))


def test_a_row_without_a_time_is_refused(tmp_path: Path) -> None:
    main = [*ROWS[""], ("c7", None, "north", 1.0, "No")]
    with pytest.raises(Refusal, match=r"parcels, column 'asked_at': rows without a time.*'c7'"):
        tier(filled(main=main), tmp_path)


def test_a_key_that_is_a_decimal_is_refused(tmp_path: Path) -> None:
    people = pa.table({"who": [1.0], "country": ["FR"], "text": ["c1"]})
    with pytest.raises(Refusal, match=r"data set people, column 'who': a key has to be an integer or text.*'double'"):
        tier(filled(people=people, by="text"), tmp_path)


def test_a_table_laid_out_by_another_key_is_refused(tmp_path: Path) -> None:
    people = [(who, f"country {who}") for who in CUSTOMERS]
    with pytest.raises(Refusal, match=r"data set people: the rows are not laid out by 'who'.*'c0'"):
        tier(filled(people=people, by="country"), tmp_path, "development")
    assert tier(filled(people=people, by="country"), tmp_path).train_rows > 0, "the whole needs no buckets"


def test_a_column_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    people = table("people", ROWS["people"]).rename_columns(["who", "cuntry"])
    with pytest.raises(Refusal, match=r"data set people: a column.*'country'\)\. Did you mean `cuntry`\?"):
        tier(filled(people=people), tmp_path)


def test_the_schemas_of_these_tests_are_those_of_the_model() -> None:
    assert all(SCHEMAS[name].names == list(DATA.ingest_schema(name).column_kinds) for name in ("", *DATA.tables))
