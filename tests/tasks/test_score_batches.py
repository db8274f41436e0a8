"""Rows of any source and size are predicted once, the same however they came and were cut, or not at all."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from blocks.digests import folder_digest
from blocks.engines.duckdb import DuckDBEngine
from blocks.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.lake.base import Lake, Snapshot
from blocks.lake.fake import FakeLake
from blocks.lake.local import LocalLake
from blocks.sources import read_source
from blocks.tracking.base import Predict
from blocks.tracking.fake import FakeTracking
from tasks.ingest import column_kinds
from tasks.logic.expect.parquet_rows import ParquetRows
from tasks.logic.model.spec import DataSpec, parse_spec
from tasks.logic.refusal import Refusal
from tasks.logic.sample.buckets import tier_buckets
from tasks.logic.sample.content import content_key
from tasks.predict import Predictor, predictions_table
from tasks.score import add_predictions
from tasks.score_input import Input, of_lake, of_source, open_input
from tests.checkout import ROOT
from tests.tasks.logic.model.spec_cases import BINARY
from tests.tasks.test_joined_tiers import DATA as JOINED
from tests.tasks.test_joined_tiers import ROWS as JOINED_ROWS
from tests.tasks.test_joined_tiers import filled

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


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return made(tmp_path / "tracking")


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


def as_csv(tmp_path: Path) -> tuple[str, str]:
    HOUSES.to_csv(tmp_path / "houses.csv", index=False)
    return str(tmp_path / "houses.csv"), ""


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
    kept = score(lake, predictor, of_source(DATA, place, query, folder_of(tmp_path)), tmp_path / "work")
    assert predictions(lake).equals(expected(predictor))
    assert kept.rows == 500
    kinds = {name: kind for name, kind in column_kinds(DATA).items() if name != DATA.target}
    whole = content_key(read_source(place, query=query, kinds=kinds).table)
    assert of_source(DATA, place, query, folder_of(tmp_path)).digest == whole


def test_the_same_rows_from_elsewhere_add_nothing_and_are_not_checked_again(
    predictor: Predictor, tmp_path: Path
) -> None:
    lake, checks = FakeLake(), []
    kept = [
        score(
            lake, predictor, of_source(DATA, *source(tmp_path), folder_of(tmp_path)), tmp_path / "work", checks.append
        )
        for source in (as_csv, as_folder)
    ]
    assert kept[0] == kept[1]
    assert len(checks) == 1
    assert lake.as_of("houses-predictions").rows == 500


def test_a_new_version_adds_a_snapshot_and_keeps_the_old(predictor: Predictor, tmp_path: Path) -> None:
    lake, source = FakeLake(), as_csv(tmp_path)
    for version in ("3", "4"):
        other = Predictor(predictor.tracking, predictor.artifact, predictor.digest, DATA, version)
        score(lake, other, of_source(DATA, *source, folder_of(tmp_path)), tmp_path / "work")
    assert lake.read(lake.as_of("houses-predictions"))["model_version"].value_counts().to_pylist() == [
        {"values": "3", "counts": 500},
        {"values": "4", "counts": 500},
    ]


@pytest.mark.parametrize("batch_rows", [64, 100_000])
def test_batches_of_any_size_give_the_same_and_the_model_is_loaded_once(
    batch_rows: int, predictor: Predictor, tmp_path: Path
) -> None:
    lake, found = FakeLake(), of_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    score(lake, predictor, found.on(DuckDBEngine(batch_rows=batch_rows)), tmp_path / "work")
    assert isinstance(predictor.tracking, CountedTracking)
    assert predictor.tracking._times == 1
    assert predictions(lake).equals(expected(predictor))


# what is refused


def test_rows_that_cannot_be_read_are_refused_with_the_first_and_their_number(
    predictor: Predictor, tmp_path: Path
) -> None:
    HOUSES.astype({"rooms": object}).assign(rooms=["x", *range(498), "y"]).to_csv(tmp_path / "h.csv", index=False)
    with pytest.raises(Refusal) as refused:
        of_source(DATA, str(tmp_path / "h.csv"), "", folder_of(tmp_path))
    told = str(refused.value)
    assert all(part in told for part in ("2 rows cannot be read", "h.csv, line 2", "column 'rooms' holds 'x'", "h0,x"))
    assert "nothing was scored" in told


def test_a_source_without_a_row_is_refused(tmp_path: Path) -> None:
    HOUSES[:0].to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(Rejected, match="0 rows"):
        of_source(DATA, str(tmp_path / "none.csv"), "", folder_of(tmp_path))


def test_a_row_without_an_entity_is_refused(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    HOUSES.assign(house_id=["", *HOUSES["house_id"][1:]]).to_csv(tmp_path / "h.csv", index=False)
    rows = of_source(DATA, str(tmp_path / "h.csv"), "", folder_of(tmp_path))
    with pytest.raises(Refusal, match="h.csv, column 'house_id': 1 rows have no entity"):
        score(lake, predictor, rows, tmp_path / "work")
    assert lake.datasets() == ()


def test_rows_that_do_not_hold_leave_nothing(predictor: Predictor, tmp_path: Path) -> None:
    def refuse(rows: ParquetRows) -> None:
        raise Refusal(f"{rows.values(['count(*)'])['count(*)']} rows of the wrong kind")

    lake = FakeLake()
    with pytest.raises(Refusal, match="500 rows of the wrong kind"):
        score(lake, predictor, of_source(DATA, *as_csv(tmp_path), folder_of(tmp_path)), tmp_path / "work", refuse)
    assert lake.datasets() == ()


def test_a_model_that_is_not_the_approved_one_is_not_loaded(predictor: Predictor, tmp_path: Path) -> None:
    lake, rows = FakeLake(), of_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    (predictor.artifact / "more.txt").write_text("put in later")
    with pytest.raises(Corrupt, match="which was approved"):
        score(lake, predictor, rows, tmp_path / "work")
    assert isinstance(predictor.tracking, CountedTracking)
    assert predictor.tracking._times == 0
    assert lake.datasets() == ()


def test_what_is_no_prediction_is_refused_with_its_reason(tmp_path: Path) -> None:
    lake, rows = FakeLake(), of_source(DATA, *as_csv(tmp_path), folder_of(tmp_path))
    three = made(tmp_path / "t", DATA.model_copy(update={"classes": ("a", "b", "c")}))
    with pytest.raises(PortError, match="The predictions have another shape"):
        score(lake, three, rows, tmp_path / "work")
    assert lake.datasets() == ()


def test_a_failed_append_leaves_nothing_and_is_done_again(predictor: Predictor, tmp_path: Path) -> None:
    lake, source = FakeLake(fail_appends=1), as_csv(tmp_path)
    with pytest.raises(Unavailable):
        score(lake, predictor, of_source(DATA, *source, folder_of(tmp_path)), tmp_path / "work")
    assert lake.datasets() == ()
    score(lake, predictor, of_source(DATA, *source, folder_of(tmp_path)), tmp_path / "work")
    assert predictions(lake).equals(expected(predictor))


# reads of the lake


def landed(lake: Lake, frame: pd.DataFrame, dataset: str = "houses") -> Snapshot:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    keys = pa.array(frame["house_id"].astype(str))
    table = table.append_column("_bucket", pa.array(tier_buckets(keys), pa.int32()))
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return lake.append(dataset, table, source="test", key=str(frame["house_id"].iloc[0]), at=now)


def test_a_data_set_of_the_lake_is_predicted_as_of_a_snapshot(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    first, second = landed(lake, HOUSES[:200].assign(sold="Yes")), landed(lake, HOUSES[200:].assign(sold="No"))
    rows = of_lake(lake, DuckDBEngine(), DATA, "houses", first.id, folder_of(tmp_path))
    kept = score(lake, predictor, rows, tmp_path / "work")
    assert kept.source == f"houses as of {first.id}"
    assert predictions(lake).equals(expected(predictor, HOUSES[:200]))
    now = of_lake(lake, DuckDBEngine(), DATA, "houses", "", folder_of(tmp_path))
    assert now.description == f"houses as of {second.id}"
    assert score(lake, predictor, now, tmp_path / "work").rows == 500
    again = of_lake(lake, DuckDBEngine(), DATA, "houses", second.id, folder_of(tmp_path))
    assert score(lake, predictor, again, tmp_path / "work").rows == 500
    assert len(lake.as_of("houses-predictions").snapshots) == 2


def test_another_data_set_with_the_columns_will_do_and_keys_of_digits_become_text(
    predictor: Predictor, tmp_path: Path
) -> None:
    lake, frame = FakeLake(), HOUSES.assign(house_id=range(500))
    landed(lake, frame, "candidates")
    rows = of_lake(lake, DuckDBEngine(), DATA, "candidates", "", folder_of(tmp_path))
    score(lake, predictor, rows, tmp_path / "work")
    assert predictions(lake).equals(expected(predictor, frame.astype({"house_id": str})))


def test_a_data_set_that_lacks_a_column_or_is_not_there_is_named(tmp_path: Path) -> None:
    lake = FakeLake()
    landed(lake, HOUSES.rename(columns={"rooms": "room"}), "candidates")
    with pytest.raises(Refusal, match=r"data set candidates as of .*'rooms'.*Did you mean .room"):
        of_lake(lake, DuckDBEngine(), DATA, "candidates", "", folder_of(tmp_path))
    with pytest.raises(NotFound, match="nowhere"):
        of_lake(lake, DuckDBEngine(), DATA, "nowhere", "", folder_of(tmp_path))


def test_a_model_of_several_tables_is_given_its_joined_rows(tmp_path: Path) -> None:
    rows = of_lake(filled(), DuckDBEngine(), JOINED, JOINED.dataset, "", folder_of(tmp_path))
    found = rows.engine.query(rows.select, rows.tables)
    assert found.num_rows == len(JOINED_ROWS[""])
    assert found.column_names == [*JOINED.unique, *JOINED.features]
    assert any(found[name].null_count < found.num_rows for table in JOINED.tables.values() for name in table.columns)


ODD: dict[str, tuple[str, str, str, str]] = {
    "a query on the lake": ("lake:houses", "SELECT 1", "", "a query is for a database"),
    "a time for a file": ("houses.csv", "", "2026-11-21T10:00:00Z", "read the lake: lake:houses"),
}


@pytest.mark.parametrize(("source", "query", "as_of", "said"), ODD.values(), ids=ODD)
def test_arguments_that_do_not_go_together_are_refused(
    source: str, query: str, as_of: str, said: str, tmp_path: Path
) -> None:
    world: Any = None  # is not asked before the arguments are known to be right
    with pytest.raises(Refusal, match=said):
        open_input(world, DATA, source, query, as_of, tmp_path)


# killed


KILLED = """
import sys, time
from pathlib import Path
import tests.tasks.test_score_batches as t
from blocks.sources.staging import workspace

lake, source, mark, tracking, work = sys.argv[1:]

class Slow(t.FakeTracking):
    _block_type_slug = 'slow'
    def loaded(self, artifact):
        Path(mark).touch()
        time.sleep(60)

whole = t.made(Path(tracking))
slow = t.Predictor(Slow(root=Path(tracking)), whole.artifact, whole.digest, whole.data, whole.version)
with workspace(Path(work)) as folder:
    t.score(t.LocalLake(root=lake), slow, t.of_source(t.DATA, source, "", folder), folder)
"""


def wait_for(mark: Path, process: "subprocess.Popen[bytes]") -> Iterator[None]:
    while not mark.exists():
        assert process.poll() is None, "it ended before it could be killed"
        yield time.sleep(0.05)


@pytest.mark.slow
def test_a_run_that_is_killed_and_done_again_gives_the_same(tmp_path: Path) -> None:
    source, _ = as_csv(tmp_path)
    places = [str(tmp_path / "lake"), source, str(tmp_path / "began"), str(tmp_path / "t"), str(tmp_path / "work")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *places], cwd=ROOT)
    try:
        list(wait_for(tmp_path / "began", process))
    finally:
        process.kill()
        process.wait()
    lake, predictor = LocalLake(root=tmp_path / "lake"), made(tmp_path / "t")
    assert lake.datasets() == ()
    for _ in range(2):
        score(lake, predictor, of_source(DATA, source, "", folder_of(tmp_path, "again")), tmp_path / "again")
    assert predictions(lake).equals(expected(predictor))
