"""Batch inference over batches: rows of any source and size are predicted once, with the same result, or refused."""

import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.common.errors import Corrupt, PortError, Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import Environment
from blocks.lake.fake import FakeLake
from tasks.batch.input import open_inference_input
from tasks.batch.predictor import Predictor
from tasks.shared.rules.model.data import column_kinds
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.content import table_content_digest
from tasks.validation.rules.parquet_rows import ParquetRows
from tests.fixtures.batch_scoring import (
    DATA,
    HOUSES,
    CountedTracking,
    as_csv,
    expected,
    folder_of,
    made,
    positions,
    predictions,
    score,
)
from tests.fixtures.sources import ANYWHERE, input_from_source, open_source


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return made(tmp_path / "tracking")


def as_folder(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "in").mkdir()
    for place in range(3):
        HOUSES[place * 200 : (place + 1) * 200].to_parquet(tmp_path / "in" / f"part-{place}.parquet", index=False)
    return str(tmp_path / "in"), ""


def as_glob(tmp_path: Path) -> tuple[str, str]:
    folder, _ = as_folder(tmp_path)
    (tmp_path / "in" / "notes.txt").write_text("not a row")
    return f"{folder}/*.parquet", ""


def as_query(tmp_path: Path) -> tuple[str, str]:
    with sqlite3.connect(tmp_path / "houses.db") as database:
        HOUSES.to_sql("houses", database, index=False)
    database.close()
    return f"sqlite:///{tmp_path / 'houses.db'}", "SELECT * FROM houses ORDER BY rowid"


SOURCES = {"a CSV file": as_csv, "a folder": as_folder, "a glob": as_glob, "a query": as_query}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_rows_of_every_source_are_predicted_under_the_key_of_what_they_hold(
    source: Any, predictor: Predictor, tmp_path: Path
) -> None:
    lake, (place, query) = FakeLake(), source(tmp_path)
    kept = score(lake, predictor, input_from_source(DATA, place, query, folder_of(tmp_path)), tmp_path / "work")
    assert predictions(lake).equals(expected(predictor))
    assert kept.rows == 500
    kinds = {name: kind for name, kind in column_kinds(DATA).items() if name != DATA.target}
    whole = table_content_digest(open_source(place, query=query, kinds=kinds).read_table().table)
    assert input_from_source(DATA, place, query, folder_of(tmp_path)).digest == whole


def test_the_same_rows_from_elsewhere_add_nothing_and_are_not_checked_again(
    predictor: Predictor, tmp_path: Path
) -> None:
    lake, checks = FakeLake(), []
    kept = [
        score(
            lake,
            predictor,
            input_from_source(DATA, *source(tmp_path), folder_of(tmp_path)),
            tmp_path / "work",
            checks.append,
        )
        for source in (as_csv, as_folder)
    ]
    assert kept[0] == kept[1]
    assert len(checks) == 1
    assert lake.as_of("houses-predictions").rows == 500


def test_a_new_version_adds_a_snapshot_and_keeps_the_old(predictor: Predictor, tmp_path: Path) -> None:
    lake, source = FakeLake(), as_csv(tmp_path)
    for version in ("3", "4"):
        other = Predictor(predictor.tracking, predictor.model_path, predictor.model_digest, DATA, version)
        score(lake, other, input_from_source(DATA, *source, folder_of(tmp_path)), tmp_path / "work")
    assert lake.read(lake.as_of("houses-predictions"))["model_version"].value_counts().to_pylist() == [
        {"values": "3", "counts": 500},
        {"values": "4", "counts": 500},
    ]


@pytest.mark.parametrize("batch_rows", [64, 100_000])
def test_batches_of_any_size_give_the_same_and_the_model_is_loaded_once(
    batch_rows: int, predictor: Predictor, tmp_path: Path
) -> None:
    lake, found = FakeLake(), input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    score(lake, predictor, replace(found, engine=DuckDBEngine(batch_rows=batch_rows)), tmp_path / "work")
    assert isinstance(predictor.tracking, CountedTracking)
    assert predictor.tracking._times == 1
    assert predictions(lake).equals(expected(predictor))


def test_a_prediction_has_file_and_line_of_its_row(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    score(lake, predictor, input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path)), tmp_path / "work")
    assert positions(lake) == {f"h{number}": ("houses.csv", number + 2) for number in range(500)}


def test_in_a_folder_the_position_is_the_file_and_the_row_in_it(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    score(lake, predictor, input_from_source(DATA, *as_folder(tmp_path), folder_of(tmp_path)), tmp_path / "work")
    assert positions(lake) == {
        f"h{number}": (f"part-{number // 200}.parquet", number % 200 + 1) for number in range(500)
    }


def test_rows_of_a_query_are_counted(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    score(lake, predictor, input_from_source(DATA, *as_query(tmp_path), folder_of(tmp_path)), tmp_path / "work")
    assert [row for _, row in positions(lake).values()] != []
    assert {key: row for key, (_, row) in positions(lake).items()} == {
        f"h{number}": number + 1 for number in range(500)
    }


def repeated(tmp_path: Path) -> str:
    """Write rows of few entities: several for each, with other values."""
    rows = HOUSES.assign(house_id=[f"h{number % 7}" for number in range(500)])
    rows.to_csv(tmp_path / "repeated.csv", index=False)
    return str(tmp_path / "repeated.csv")


@pytest.mark.parametrize("batch_rows", [64, 100_000])
def test_the_rows_of_one_entity_are_told_apart_by_their_position(
    batch_rows: int, predictor: Predictor, tmp_path: Path
) -> None:
    lake, rows = FakeLake(), input_from_source(DATA, repeated(tmp_path), "", folder_of(tmp_path))
    score(lake, predictor, replace(rows, engine=DuckDBEngine(batch_rows=batch_rows)), tmp_path / "work")
    found = lake.read(lake.as_of("houses-predictions")).sort_by("_source_row").to_pylist()
    said = predictor.tracking.predict(predictor.model_path, HOUSES[list(DATA.features)])
    assert [row["_source_row"] for row in found] == list(range(2, 502))
    assert [row["house_id"] for row in found] == [f"h{number % 7}" for number in range(500)]
    assert [row["probability_Yes"] for row in found] == said[:, 1].tolist()


TIMED = DATA.model_copy(update={"time": "asked_at"})


def test_a_model_with_a_time_keeps_the_time_of_each_row_in_utc(tmp_path: Path) -> None:
    begin = datetime(2026, 11, 21, tzinfo=UTC)
    times = [begin + timedelta(hours=number) for number in range(500)]
    written = [time.astimezone(timezone(timedelta(hours=2))).isoformat() for time in times]
    HOUSES.assign(house_id="h1", asked_at=written).to_csv(tmp_path / "timed.csv", index=False)
    lake, timed = FakeLake(), made(tmp_path / "tracking", TIMED)
    rows = input_from_source(TIMED, str(tmp_path / "timed.csv"), "", folder_of(tmp_path))
    assert "asked_at" in rows.as_parquet_rows().kinds, "an expectation may use it"
    score(lake, timed, rows, tmp_path / "work", lambda _rows: None)
    found = lake.read(lake.as_of("houses-predictions")).sort_by("_source_row")
    assert found["asked_at"].to_pylist() == times
    assert found.schema.field("asked_at").type == pa.timestamp("us", "UTC")


def as_lines(tmp_path: Path) -> tuple[str, str]:
    HOUSES.to_json(tmp_path / "lines.jsonl", orient="records", lines=True)
    return str(tmp_path / "lines.jsonl"), ""


@pytest.mark.parametrize("source", [as_csv, as_folder, as_query, as_lines])
def test_rows_without_the_column_of_the_time_are_predicted_without_one(source: Any, tmp_path: Path) -> None:
    lake, timed = FakeLake(), made(tmp_path / "tracking", TIMED)
    place, query = source(tmp_path)
    rows = input_from_source(TIMED, place, query, folder_of(tmp_path))
    assert rows.digest == input_from_source(DATA, place, query, folder_of(tmp_path, "other")).digest
    score(lake, timed, rows, tmp_path / "work", lambda _rows: None)
    found = lake.read(lake.as_of("houses-predictions"))
    assert (found.num_rows, found["asked_at"].null_count) == (500, 500)


def test_a_folder_of_which_a_part_has_the_time_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    HOUSES[:9].assign(asked_at="2026-11-21T08:00:00Z").to_csv(tmp_path / "part" / "a.csv", index=False)
    HOUSES[9:].to_csv(tmp_path / "part" / "b.csv", index=False)
    with pytest.raises(Rejected, match=r"b\.csv.*column 'asked_at' is missing"):
        input_from_source(TIMED, str(tmp_path / "part"), "", folder_of(tmp_path))


def test_a_source_without_the_time_and_a_feature_is_refused(tmp_path: Path) -> None:
    HOUSES.drop(columns="rooms").to_csv(tmp_path / "less.csv", index=False)
    with pytest.raises(Rejected, match="column 'rooms' is missing"):
        input_from_source(TIMED, str(tmp_path / "less.csv"), "", folder_of(tmp_path))


class World(Environment):
    """An environment whose engine reports that it belongs to the environment."""

    _block_type_slug = "ratchet-environment-here"

    def engine(self) -> Engine:
        return DuckDBEngine(batch_rows=77)

    def allowed_sources(self) -> SourceSettings:
        return ANYWHERE


@pytest.mark.parametrize(("small", "taken"), [(500, DuckDBEngine().batch_rows), (499, 77)])
def test_a_small_source_is_predicted_here_and_a_large_one_by_the_environment_s_engine(
    small: int, taken: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.batch.input.LOCAL_ENGINE_ROWS", small)
    ports = dict.fromkeys(("lake", "trainer", "endpoint", "tracking", "ledger"), "blocks.none")
    env = World(name="w", scratch=tmp_path, **{f"{port}_adapter": kind for port, kind in ports.items()})
    rows = open_inference_input(env, DATA, *as_csv(tmp_path), "", folder_of(tmp_path))
    assert isinstance(rows.engine, DuckDBEngine)
    assert rows.engine.batch_rows == taken


# what is refused


def test_rows_that_cannot_be_read_are_refused_with_the_first_and_their_number(
    predictor: Predictor, tmp_path: Path
) -> None:
    HOUSES.astype({"rooms": object}).assign(rooms=["x", *range(498), "y"]).to_csv(tmp_path / "h.csv", index=False)
    with pytest.raises(Refusal) as refused:
        input_from_source(DATA, str(tmp_path / "h.csv"), "", folder_of(tmp_path))
    told = str(refused.value)
    assert all(part in told for part in ("2 rows cannot be read", "h.csv, line 2", "column 'rooms' holds 'x'", "h0,x"))
    assert "nothing was predicted" in told


def test_a_source_without_a_row_is_refused(tmp_path: Path) -> None:
    HOUSES[:0].to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(Rejected, match="0 rows"):
        input_from_source(DATA, str(tmp_path / "none.csv"), "", folder_of(tmp_path))


def test_a_row_without_an_entity_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    HOUSES.assign(house_id=["", *HOUSES["house_id"][1:]]).to_csv(tmp_path / "h.csv", index=False)
    rows = input_from_source(DATA, str(tmp_path / "h.csv"), "", folder_of(tmp_path))
    with pytest.raises(Refusal, match="h.csv, column 'house_id': 1 rows have no entity"):
        score(lake, predictor, rows, tmp_path / "work")
    assert lake.datasets() == ()


def test_rows_that_do_not_hold_leave_nothing(predictor: Predictor, tmp_path: Path) -> None:
    def refuse(rows: ParquetRows) -> None:
        raise Refusal(f"{rows.values(['count(*)'])['count(*)']} rows of the wrong kind")

    lake = FakeLake()
    with pytest.raises(Refusal, match="500 rows of the wrong kind"):
        score(
            lake, predictor, input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path)), tmp_path / "work", refuse
        )
    assert lake.datasets() == ()


def test_a_model_that_is_not_the_approved_one_is_not_loaded(predictor: Predictor, tmp_path: Path) -> None:
    lake, rows = FakeLake(), input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    (predictor.model_path / "more.txt").write_text("put in later")
    with pytest.raises(Corrupt, match="was approved"):
        score(lake, predictor, rows, tmp_path / "work")
    assert isinstance(predictor.tracking, CountedTracking)
    assert predictor.tracking._times == 0
    assert lake.datasets() == ()


def test_what_is_no_prediction_is_refused_with_its_reason(tmp_path: Path) -> None:
    lake, rows = FakeLake(), input_from_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    three = made(tmp_path / "t", DATA.model_copy(update={"classes": ("a", "b", "c")}))
    with pytest.raises(PortError, match="The predictions have another shape"):
        score(lake, three, rows, tmp_path / "work")
    assert lake.datasets() == ()


def test_a_failed_append_leaves_nothing_and_is_done_again(predictor: Predictor, tmp_path: Path) -> None:
    lake, source = FakeLake(fail_appends=1), as_csv(tmp_path)
    with pytest.raises(Unavailable):
        score(lake, predictor, input_from_source(DATA, *source, folder_of(tmp_path)), tmp_path / "work")
    assert lake.datasets() == ()
    score(lake, predictor, input_from_source(DATA, *source, folder_of(tmp_path)), tmp_path / "work")
    assert predictions(lake).equals(expected(predictor))


ODD: dict[str, tuple[str, str, str, str]] = {
    "a query on the lake": ("lake:houses", "SELECT 1", "", "only a database takes a query"),
    "a time for a file": ("houses.csv", "", "2026-11-21T10:00:00Z", "read the lake: lake:houses"),
}


@pytest.mark.parametrize(("source", "query", "as_of", "said"), ODD.values(), ids=ODD)
def test_arguments_that_do_not_go_together_are_refused(
    source: str, query: str, as_of: str, said: str, tmp_path: Path
) -> None:
    env: Any = None  # is not loaded before the arguments are valid
    with pytest.raises(Refusal, match=said):
        open_inference_input(env, DATA, source, query, as_of, tmp_path)
