"""Batch inference over the lake: predictions as of a snapshot, from all joined tables; a killed run is repeated."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from blocks.common.errors import NotFound
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from blocks.lake.local import LocalLake
from tasks.batch.input import input_from_lake
from tasks.batch.predictor import Predictor
from tasks.shared.rules.refusal import Refusal
from tests.checkout import ROOT
from tests.fixtures.batch_scoring import (
    DATA,
    HOUSES,
    as_csv,
    expected,
    folder_of,
    landed,
    made,
    positions,
    predictions,
    score,
)
from tests.fixtures.joined_tiers import DATA as JOINED
from tests.fixtures.joined_tiers import ROWS as JOINED_ROWS
from tests.fixtures.joined_tiers import filled
from tests.fixtures.sources import input_from_source
from tests.waiting import wait_for


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return made(tmp_path / "tracking")


def test_a_data_set_of_the_lake_is_predicted_as_of_a_snapshot(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    first, second = landed(lake, HOUSES[:200].assign(sold="Yes")), landed(lake, HOUSES[200:].assign(sold="No"))
    rows = input_from_lake(lake, DuckDBEngine(), DATA, "houses", first.id, folder_of(tmp_path))
    kept = score(lake, predictor, rows, tmp_path / "work")
    assert kept.source == f"houses as of {first.id}"
    assert predictions(lake).equals(expected(predictor, HOUSES[:200]))
    now = input_from_lake(lake, DuckDBEngine(), DATA, "houses", "", folder_of(tmp_path))
    assert now.description == f"houses as of {second.id}"
    assert score(lake, predictor, now, tmp_path / "work").rows == 500
    again = input_from_lake(lake, DuckDBEngine(), DATA, "houses", second.id, folder_of(tmp_path))
    assert score(lake, predictor, again, tmp_path / "work").rows == 500
    assert len(lake.as_of("houses-predictions").snapshots) == 2


def test_another_data_set_with_the_columns_will_do_and_keys_of_digits_become_text(
    predictor: Predictor, tmp_path: Path
) -> None:
    lake, frame = FakeLake(), HOUSES.assign(house_id=range(500))
    landed(lake, frame, "candidates")
    rows = input_from_lake(lake, DuckDBEngine(), DATA, "candidates", "", folder_of(tmp_path))
    score(lake, predictor, rows, tmp_path / "work")
    assert predictions(lake).equals(expected(predictor, frame.astype({"house_id": str})))


def test_a_data_set_that_lacks_a_column_or_is_not_there_is_named(tmp_path: Path) -> None:
    lake = FakeLake()
    landed(lake, HOUSES.rename(columns={"rooms": "room"}), "candidates")
    with pytest.raises(Refusal, match=r"data set candidates as of .*'rooms'.*Did you mean .room"):
        input_from_lake(lake, DuckDBEngine(), DATA, "candidates", "", folder_of(tmp_path))
    with pytest.raises(NotFound, match="nowhere"):
        input_from_lake(lake, DuckDBEngine(), DATA, "nowhere", "", folder_of(tmp_path))


def test_a_model_of_several_tables_is_given_its_joined_rows(tmp_path: Path) -> None:
    rows = input_from_lake(filled(), DuckDBEngine(), JOINED, JOINED.dataset, "", folder_of(tmp_path))
    found = rows.engine.query(rows.rows_sql, rows.tables)
    assert found.num_rows == len(JOINED_ROWS[""])
    assert found.column_names == [*rows.columns, "_source_file", "_source_row"]
    assert rows.columns == (*JOINED.unique, *JOINED.features)
    assert any(found[name].null_count < found.num_rows for table in JOINED.tables.values() for name in table.columns)


# killed


KILLED = """
import sys, time
from pathlib import Path
import tests.fixtures.batch_scoring as t
from blocks.lake.local import LocalLake
from blocks.common.temporary_folders import temporary_folder
from tasks.batch.predictor import Predictor
from tests.fixtures.sources import input_from_source

lake, source, mark, tracking, work = sys.argv[1:]

class Slow(t.FakeTracking):
    _block_type_slug = 'slow'
    def load_model(self, artifact):
        Path(mark).touch()
        time.sleep(60)

whole = t.made(Path(tracking))
slow = Predictor(Slow(root=Path(tracking)), whole.model_path, whole.model_digest, whole.data, whole.version)
with temporary_folder(Path(work), 'score-') as folder:
    t.score(LocalLake(root=lake), slow, input_from_source(t.DATA, source, "", folder), folder)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_and_done_again_gives_the_same(tmp_path: Path) -> None:
    source, _ = as_csv(tmp_path)
    places = [str(tmp_path / "lake"), source, str(tmp_path / "began"), str(tmp_path / "t"), str(tmp_path / "work")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *places], cwd=ROOT)
    try:
        wait_for(lambda: (tmp_path / "began").exists() or process.poll() is not None)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    lake, predictor = LocalLake(root=tmp_path / "lake"), made(tmp_path / "t")
    assert lake.datasets() == ()
    for _ in range(2):
        score(lake, predictor, input_from_source(DATA, source, "", folder_of(tmp_path, "again")), tmp_path / "again")
    assert predictions(lake).equals(expected(predictor))


def test_rows_of_the_lake_have_their_snapshot_as_position(predictor: Predictor, tmp_path: Path) -> None:
    lake = FakeLake()
    snapshot = landed(lake, HOUSES[:3])
    score(
        lake,
        predictor,
        input_from_lake(lake, DuckDBEngine(), DATA, "houses", "", folder_of(tmp_path)),
        tmp_path / "work",
    )
    assert set(positions(lake).values()) == {(f"houses as of {snapshot.id}", None)}


def test_rows_of_one_entity_in_another_data_set_are_told_apart(predictor: Predictor, tmp_path: Path) -> None:
    lake, frame = FakeLake(), HOUSES.assign(house_id=[f"h{number % 7}" for number in range(500)])
    for part in (frame[:200], frame[200:].assign(house_id=lambda rows: rows["house_id"].replace("h4", "x4"))):
        snapshot = landed(lake, part, "candidates")
    rows = input_from_lake(lake, DuckDBEngine(batch_rows=64), DATA, "candidates", "", folder_of(tmp_path))
    score(lake, predictor, rows, tmp_path / "work")
    found = lake.read(lake.as_of("houses-predictions")).sort_by("_source_row")
    stored = lake.read(lake.as_of("candidates")).to_pandas()
    said = predictor.tracking.predict(predictor.model_path, stored[list(DATA.features)])
    assert found["_source_row"].to_pylist() == list(range(1, 501))
    assert found["house_id"].to_pylist() == stored["house_id"].tolist()
    assert found["probability_Yes"].to_pylist() == said[:, 1].tolist()
    assert set(found["_source_file"].to_pylist()) == {f"candidates as of {snapshot.id}"}


@pytest.mark.parametrize("has_time", [True, False])
def test_another_data_set_may_have_the_time(has_time: bool, tmp_path: Path) -> None:
    timed, at = DATA.model_copy(update={"time": "asked_at"}), datetime(2026, 11, 21, tzinfo=UTC)
    lake, frame = FakeLake(), HOUSES[:4].assign(house_id="h1")
    landed(
        lake, frame.assign(asked_at=[at + timedelta(hours=n) for n in range(4)]) if has_time else frame, "candidates"
    )
    rows = input_from_lake(lake, DuckDBEngine(), timed, "candidates", "", folder_of(tmp_path))
    score(lake, made(tmp_path / "t", timed), rows, tmp_path / "work", lambda _rows: None)
    found = lake.read(lake.as_of("houses-predictions"))
    assert found["asked_at"].null_count == (0 if has_time else 4)
    assert found["_source_row"].null_count == (4 if has_time else 0), "the time identifies the row, else its number"
