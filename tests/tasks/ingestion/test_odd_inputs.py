"""Ingestion of inputs whose values, names or paths are easily taken for something else."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.base import Lake
from blocks.lake.local import LocalLake
from blocks.sources import FrameSource
from tasks.ingestion.datasets import quarantine_dataset
from tasks.ingestion.landing import ingest_rows
from tasks.ingestion.rules.lookalikes import LOOKALIKE_NOTE
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import DataSpec, IngestSchema
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import VALUES_NOTE, resolve_reads
from tests.fixtures.sources import open_source

PEOPLE = DataSpec(
    dataset="people", entity="id", target="left", classes=("No", "Yes"),
    features={"age": "number", "plan": "category", "vip": "flag"},
)  # fmt: skip
SCHEMA = PEOPLE.ingest_schema()
TIMED = IngestSchema("people", "id", {"id": "key", "at": "time", "age": "number"}, ("id", "at"), time="at")
ROWS = 40
NOW = datetime(2026, 11, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    shown: list[str] = []
    monkeypatch.setattr(
        "tasks.ingestion.landing.create_markdown_artifact", lambda **given: shown.append(given["markdown"])
    )
    return shown


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return LocalLake(root=tmp_path / "lake")


def people(**columns: object) -> pa.Table:
    """Return 40 rows; a column given as one value has it in every row."""
    names = [f"c{number:03}" for number in range(ROWS)]
    plain = {"id": names, "age": 20.0, "plan": "basic", "vip": 0, "left": ["Yes", "No"] * 20, **columns}
    return pa.table({name: v if isinstance(v, list | pa.Array) else [v] * ROWS for name, v in plain.items()})


def written(folder: Path, name: str, table: pa.Table) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = table.to_pandas()
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in table.to_pylist()))
    else:
        pq.write_table(table, path)
    return str(path)


def land(lake: Lake, source: str, schema: IngestSchema = SCHEMA, scratch: Path | None = None) -> IngestResult:
    rows = open_source(source, kinds=schema.column_kinds)
    try:
        return ingest_rows(lake, schema, rows, scratch=scratch)
    finally:
        rows.close()


def column(lake: Lake, name: str) -> list[object]:
    return list(lake.read(lake.as_of("people"))[name].to_pylist())


def reasons(lake: Lake) -> list[str]:
    return list(lake.read(lake.as_of(quarantine_dataset(SCHEMA)))["reason"].to_pylist())


def note(lake: Lake, name: str) -> str:
    return lake.as_of("people").snapshots[-1].notes.get(name, "")


@pytest.mark.parametrize("named", ["in", "in/plan=pro", "in/plan=pro/part-0.parquet"])
def test_a_folder_that_looks_like_a_partition_gives_no_value(lake: Lake, tmp_path: Path, named: str) -> None:
    written(tmp_path, "in/plan=pro/part-0.parquet", people())
    assert land(lake, str(tmp_path / named)).accepted == ROWS
    assert set(column(lake, "plan")) == {"basic"}


def test_a_key_in_a_folders_name_makes_no_duplicates(lake: Lake, tmp_path: Path) -> None:
    written(tmp_path, "id=0042/part-0.parquet", people())
    assert land(lake, str(tmp_path / "id=0042")).accepted == ROWS


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_lake_and_scratch_below_such_a_folder_change_nothing(tmp_path: Path, form: str) -> None:
    below = tmp_path / "plan=pro" / "id=1" / "_bucket=7"
    lake = LocalLake(root=below / "lake")
    assert land(lake, written(tmp_path, f"x.{form}", people()), scratch=below / "scratch").accepted == ROWS
    assert set(column(lake, "plan")) == {"basic"}
    files = lake.files(lake.as_of("people"))
    engine = DuckDBEngine()
    assert engine.query(
        "SELECT DISTINCT plan, count(DISTINCT id) AS n FROM rows GROUP BY plan", {"rows": files}
    ).to_pylist() == [{"plan": "basic", "n": ROWS}]
    engine.write("SELECT * FROM rows", {"rows": files}, below / "tier")
    assert set(pq.read_table(below / "tier")["plan"].to_pylist()) == {"basic"}
    assert set(pd.read_parquet(below / "tier")["id"]) == set(people()["id"].to_pylist())
    second = land(lake, written(tmp_path, "again.parquet", people(id=[f"d{n}" for n in range(ROWS)])), scratch=below)
    assert second.accepted == ROWS, "known keys are compared with the files' own"


@pytest.mark.parametrize(
    "name", ["a*.parquet", "a?.parquet", "a[b].parquet", "a{b,c}.parquet", "**.parquet", "a'b.parquet"]
)
def test_a_files_name_is_never_a_pattern(lake: Lake, tmp_path: Path, name: str) -> None:
    written(tmp_path, "in/ab.parquet", people(id=[f"other{n}" for n in range(ROWS)]))
    source = written(tmp_path, f"in/{name}", people())
    assert land(lake, source).accepted == ROWS
    assert sorted(column(lake, "id")) == people()["id"].to_pylist()
    engine = DuckDBEngine()
    assert engine.query("SELECT count(*) AS n FROM rows", {"rows": [source]})["n"][0].as_py() == ROWS


def test_a_folder_of_files_with_such_names_is_read_once(lake: Lake, tmp_path: Path) -> None:
    for place, name in enumerate(("a*.parquet", "ab.parquet", "[ab].parquet")):
        written(tmp_path, f"in/{name}", people(id=[f"{place}-{n}" for n in range(ROWS)]))
    assert land(lake, str(tmp_path / "in")).accepted == 3 * ROWS


@pytest.mark.parametrize("other", ["Age", "AGE", " age", "age "])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_a_column_is_read_by_its_exact_name_and_a_similar_one_is_reported(
    lake: Lake, tmp_path: Path, reports: list[str], form: str, other: str
) -> None:
    table = people().add_column(0, other, [[-999.0] * ROWS])
    land(lake, written(tmp_path, f"x.{form}", table))
    assert set(column(lake, "age")) == {20.0}
    assert f"name {other!r} beside the declared 'age'" in note(lake, LOOKALIKE_NOTE)
    assert f"{other!r}" in reports[-1]


def test_a_missing_column_is_not_made_up_by_one_in_capitals(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"'age' is missing \(did you mean 'Age'"):
        land(lake, written(tmp_path, "x.parquet", people().rename_columns(["id", "Age", "plan", "vip", "left"])))


def test_columns_that_differ_in_capitals_are_not_added_to_one_data_set(lake: Lake, tmp_path: Path) -> None:
    land(lake, written(tmp_path, "x.csv", people()))
    other = IngestSchema("people", "id", {"id": "key", "Age": "number", "left": "category"}, ("id",), "left")
    source = written(tmp_path, "y.csv", people(id=[f"d{n}" for n in range(ROWS)], Age=1.0))
    with pytest.raises(Exception, match="'Age' and 'age' differ in capitals alone"):
        land(lake, source, other)


@pytest.mark.parametrize(
    "names", [["file_row_number"], ["FILE_ROW_NUMBER", "filename"], ["file_index", "_bucket"], ["_ratchet_row"]]
)
def test_a_sources_own_column_does_not_hide_one_of_ours(lake: Lake, tmp_path: Path, names: list[str]) -> None:
    table = people(**dict.fromkeys(names, 7), vip=[0] * 39 + [9])
    land(lake, written(tmp_path, "x.parquet", table))
    assert sorted(column(lake, "id")) == people()["id"].to_pylist()[:39]
    assert lake.read(lake.as_of(quarantine_dataset(SCHEMA)))["position"].to_pylist() == ["row 40"]


@pytest.mark.parametrize(
    "name", ["_bucket", "_Bucket", "_ratchet_row", "_row", "_prediction_Yes", "_hashed_id", "_truth"]
)
def test_a_declared_column_may_not_have_the_name_of_one_of_ours(name: str) -> None:
    with pytest.raises(ValueError, match="Ratchet adds itself"):
        PEOPLE.model_validate(PEOPLE.model_dump() | {"features": {name: "number"}})


def test_a_leaf_of_a_struct_is_no_column(lake: Lake, tmp_path: Path) -> None:
    schema = IngestSchema("people", "id", {"id": "key", "vip.score": "flag", "left": "category"}, ("id",), "left")
    structs = pa.array([{"score": 0}] * ROWS)
    source = written(
        tmp_path, "x.parquet", people().append_column("vip.score", [[7] * ROWS]).set_column(3, "vip", structs)
    )
    with pytest.raises(Refusal, match="all 40 rows would be quarantined.*column 'vip.score' holds '7'"):
        land(lake, source, schema)
    with pytest.raises(Exception, match="'vip.score' is missing"):
        land(lake, written(tmp_path, "y.parquet", people(vip=structs)), schema)


@pytest.mark.parametrize("classes", [("False", "True"), ("false", "true"), ("TRUE", "FALSE")])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_true_and_false_are_one_text_and_match_the_classes_however_these_write_them(
    lake: Lake, tmp_path: Path, form: str, classes: tuple[str, str]
) -> None:
    schema = PEOPLE.model_copy(update={"classes": classes}).ingest_schema()
    table = people(plan=[True, False] * 20, left=[True, False] * 20)
    assert land(lake, written(tmp_path, f"x.{form}", table), schema).accepted == ROWS
    assert set(column(lake, "plan")) == {"True", "False"}
    assert set(column(lake, "left")) == set(classes)


def test_two_classes_that_are_one_value_are_refused() -> None:
    with pytest.raises(ValueError, match="is there twice"):
        PEOPLE.model_validate(PEOPLE.model_dump() | {"classes": ("true", "True")})


NUMBERS = range(1000, 1000 + ROWS)
KEYS = {
    "integer": pa.array(NUMBERS),
    "float": pa.array(map(float, NUMBERS)),
    "decimal": pa.array([Decimal(n) for n in NUMBERS], pa.decimal128(38, 10)),
    "text": pa.array(map(str, NUMBERS)),
    "text with a point": pa.array([f"{n}.0" for n in NUMBERS]),
}


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_one_entity_whatever_its_type(lake: Lake, tmp_path: Path, kind: str, form: str) -> None:
    land(lake, written(tmp_path, f"x.{form}", people(id=KEYS[kind])))
    assert sorted(column(lake, "id")) == [str(n) for n in NUMBERS]
    again = people(id=[str(n) for n in NUMBERS], age=21.0)
    with pytest.raises(Refusal, match="40 key already in the lake"):
        land(lake, written(tmp_path, "again.csv", again))


def test_a_uuid_is_its_text(lake: Lake, tmp_path: Path) -> None:
    uuids = [UUID(int=n) for n in range(ROWS)]
    land(lake, written(tmp_path, "x.parquet", people(id=pa.array([u.bytes for u in uuids], pa.uuid()))))
    assert sorted(column(lake, "id")) == [str(each) for each in uuids]
    with pytest.raises(Refusal, match="already in the lake"):
        ingest_rows(lake, SCHEMA, FrameSource(people().to_pandas().assign(id=uuids), SCHEMA.column_kinds))


def test_nan_in_json_is_no_category(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "y.jsonl"
    rows = people().to_pylist()
    rows[-1]["plan"] = float("nan")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert land(lake, str(path)).quarantined == 1
    assert reasons(lake) == ["not a text: column 'plan' holds 'NaN'"]


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_times_finer_than_microseconds_are_set_aside_by_name_and_nothing_is_cut(
    lake: Lake, tmp_path: Path, form: str
) -> None:
    first = int(NOW.timestamp()) * 10**9
    times = pa.array([first + n * 10**9 for n in range(ROWS)] + [first + 500], pa.timestamp("ns", "UTC"))
    ids = [f"c{n:03}" for n in range(ROWS)] + ["c000"]
    table = pa.table({"id": ids, "at": times, "age": [1.0] * (ROWS + 1)})
    if form != "parquet":
        text = times.cast(pa.string())  # all nine digits
        table = table.set_column(1, "at", text)
    landed = land(lake, written(tmp_path, f"x.{form}", table), TIMED)
    assert (landed.accepted, landed.quarantined) == (ROWS, 1)
    (reason,) = reasons(lake)
    assert "column 'at' holds" in reason
    assert "finer than a microsecond" in reason
    assert sorted(column(lake, "at"))[1] == NOW + timedelta(seconds=1)


@pytest.mark.parametrize(
    "odd", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00", "10000-01-01T00:00:00Z", "2026-02-30T00:00:00Z"]
)
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_time_that_python_cannot_hold_is_set_aside_and_the_others_land(
    lake: Lake, tmp_path: Path, form: str, odd: str
) -> None:
    table = pa.table(
        {"id": [f"c{n}" for n in range(ROWS)], "at": ["2026-02-01T00:00:00Z"] * 39 + [odd], "age": [1.0] * ROWS}
    )
    landed = land(lake, written(tmp_path, f"x.{form}", table), TIMED)
    assert (landed.accepted, landed.quarantined) == (39, 1)
    assert f"holds '{odd}'" in reasons(lake)[0]


def test_values_that_look_alike_stay_apart_and_are_reported(lake: Lake, tmp_path: Path, reports: list[str]) -> None:
    ids = ["Zo\u00eb", "Zoe\u0308", "ann", "Ann", "bob", "bob ", *(f"c{n}" for n in range(34))]
    assert land(lake, written(tmp_path, "x.csv", people(id=ids, plan=["pro", "Pro"] * 20))).accepted == ROWS
    said = note(lake, LOOKALIKE_NOTE)
    assert "column 'id': 3, such as 'Ann' and 'ann'" in said
    assert "column 'plan': 1, such as 'Pro' and 'pro'" in said
    assert said in reports[-1]


def test_rows_that_do_not_look_alike_leave_no_note(lake: Lake, tmp_path: Path) -> None:
    land(lake, written(tmp_path, "x.csv", people()))
    assert note(lake, LOOKALIKE_NOTE) == ""
    assert note(lake, VALUES_NOTE) == "2"
    assert resolve_reads(lake, PEOPLE, "").values_version == "2"


def older(lake: Lake, **columns: object) -> None:
    """Append rows as an earlier release stored them: without the note about the forms of values."""
    table = people(**columns).cast(pa.schema([*people().schema]))
    rows = table.append_column("_bucket", pa.array([0] * ROWS, pa.int32()))
    typed = rows.set_column(3, "vip", rows["vip"].cast(pa.int8()))
    lake.append("people", typed.to_reader(), source="earlier", key="earlier", at=NOW)


@pytest.mark.parametrize("new", ["1000", "1000.0"])
def test_a_key_that_the_lake_has_in_an_old_form_is_refused_with_the_remedy(
    lake: Lake, tmp_path: Path, new: str
) -> None:
    older(lake, id=[f"{n}.0" for n in NUMBERS])
    source = written(tmp_path, "x.csv", people(id=[new, *(f"d{n}" for n in range(39))]))
    with pytest.raises(Refusal, match=r"column 'id'.*'1000\.0'.*another data\.dataset"):
        land(lake, source)


def test_a_category_that_the_lake_has_in_an_old_form_is_refused_with_the_remedy(lake: Lake, tmp_path: Path) -> None:
    older(lake, plan="true")
    ids = [f"d{n}" for n in range(ROWS)]
    with pytest.raises(Refusal, match="column 'plan'.*'true'"):
        land(lake, written(tmp_path, "x.parquet", people(id=ids, plan=[True] * ROWS)))
    assert land(lake, written(tmp_path, "y.csv", people(id=ids, plan="pro"))).accepted == ROWS, "other values fit"


def test_a_read_of_older_rows_says_that_their_forms_are_not_known(lake: Lake, tmp_path: Path) -> None:
    older(lake)
    land(lake, written(tmp_path, "x.csv", people(id=[f"d{n}" for n in range(ROWS)])))
    assert resolve_reads(lake, PEOPLE, "").values_version == ""


def test_keys_of_an_earlier_release_keep_their_text_and_are_known(lake: Lake, tmp_path: Path) -> None:
    older(lake)
    with pytest.raises(Refusal, match="40 key already in the lake"):
        land(lake, written(tmp_path, "x.csv", people()))
