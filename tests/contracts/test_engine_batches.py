"""Functions over batches: the same rows on every engine for any batch size; a failure leaves nothing behind."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Conflict, NotFound, PortError, Rejected, Unavailable
from blocks.engines.base import Engine
from blocks.lake.fake import FakeLake
from blocks.tracking.fake import FakeTracking
from tasks.batch.input import input_from_lake
from tasks.batch.predictor import Predictor
from tasks.batch.tasks import append_predictions
from tests.checkout import ROOT
from tests.fixtures.batch_scoring import DATA, HOUSES, expected, landed, made, predictions
from tests.fixtures.running_engines import ENGINES, ENGINES_KILLED, running_engine
from tests.waiting import wait_for

ROWS = 30_000
SCHEMA = pa.schema(
    [("n", pa.int64()), ("half", pa.float64()), ("loud", pa.string()), ("seen", pa.timestamp("us", "UTC"))]
)
SQL = "SELECT n, t, seen FROM t ORDER BY n"


def loud(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return half of each number, and its text in capitals; nulls stay."""
    for batch in batches:
        columns = [batch["n"], pc.divide(batch["n"].cast(pa.float64()), 2.0), pc.utf8_upper(batch["t"]), batch["seen"]]
        yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def thirds(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return every third row: the batches differ from the input's, and some are empty."""
    for batch in loud(batches):
        yield batch.filter(pc.equal(pc.bit_wise_and(batch["n"], 3), 0))


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(request.param, tmp_path_factory.mktemp("spill")) as running:
        yield running


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder, found = tmp_path_factory.mktemp("rows"), []
    for start in range(3):
        n = pa.array(range(start, ROWS, 3))
        text = pa.array([None if value % 10 == 0 else f"zoë {value}" for value in n.to_pylist()], pa.string())
        found.append(str(folder / f"part-{start}.parquet"))
        pq.write_table(pa.table({"n": n, "t": text, "seen": n.cast(pa.timestamp("us", "UTC"))}), found[-1])
    return tuple(found)


def written(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.iterdir())])


@pytest.mark.parametrize("batch_rows", [997, 1_000_000])
def test_the_rows_are_the_same_in_batches_of_any_size(
    engine: Engine, files: tuple[str, ...], tmp_path: Path, batch_rows: int
) -> None:
    cut = engine.model_copy(update={"batch_rows": batch_rows})
    assert cut.map_batches(loud, SQL, {"t": files}, SCHEMA, tmp_path / "out") == ROWS
    found = written(tmp_path / "out")
    assert found.schema.equals(SCHEMA)
    numbers = list(range(ROWS))
    assert found["n"].to_pylist() == numbers, "in the order of the query"
    assert found["half"].to_pylist() == [n / 2 for n in numbers]
    assert found["loud"].to_pylist() == [None if n % 10 == 0 else f"ZOË {n}" for n in numbers]
    assert found["seen"].cast(pa.int64()).to_pylist() == numbers
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == [f"rows-{place:05}.parquet" for place in range(len(names))]


def test_a_function_may_give_fewer_rows_than_it_takes(engine: Engine, files: tuple[str, ...], tmp_path: Path) -> None:
    assert engine.map_batches(thirds, SQL, {"t": files}, SCHEMA, tmp_path / "out") == ROWS / 4
    assert written(tmp_path / "out")["n"].to_pylist() == list(range(0, ROWS, 4))


def test_no_row_gives_a_file_with_the_columns(engine: Engine, files: tuple[str, ...], tmp_path: Path) -> None:
    nothing = f"SELECT * FROM ({SQL}) WHERE n < 0"
    assert engine.map_batches(loud, nothing, {"t": files}, SCHEMA, tmp_path / "out") == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["rows-00000.parquet"]
    assert written(tmp_path / "out").schema.equals(SCHEMA)


def fails_late(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in loud(batches):
        if ROWS - 1 in batch["n"].to_pylist():
            raise ValueError(f"row {ROWS - 1}\nis not to its liking")
        yield batch


def is_busy(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    raise Unavailable("the model's store does not answer")
    yield from batches


def drops_a_column(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in loud(batches):
        yield batch.select(["n", "half", "loud"])


def narrows_a_column(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in loud(batches):
        yield batch.set_column(1, "half", batch["half"].cast(pa.float32()))


FAILING = {
    "an exception on a late row": (fails_late, Rejected, f"ValueError: row {ROWS - 1} is not to its liking"),
    "an error that may pass": (is_busy, Unavailable, "the model's store does not answer"),
    "a column too few": (drops_a_column, Rejected, "yielded the columns n int64, half double, loud string, expected"),
    "a column of another type": (narrows_a_column, Rejected, "half float, .*expected .*half double, "),
}


@pytest.mark.parametrize(("function", "kind", "said"), FAILING.values(), ids=FAILING)
def test_what_the_function_raises_is_named_and_nothing_is_left(
    engine: Engine, files: tuple[str, ...], tmp_path: Path, function: object, kind: type[PortError], said: str
) -> None:
    with pytest.raises(PortError, match=said) as failed:
        engine.map_batches(function, SQL, {"t": files}, SCHEMA, tmp_path / "out")
    assert type(failed.value) is kind
    assert "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == []


def test_what_the_query_raises_is_not_laid_at_the_functions_door(
    engine: Engine, files: tuple[str, ...], tmp_path: Path
) -> None:
    late = f"SELECT CAST(CASE WHEN n < {ROWS - 1} THEN '1' ELSE 'x' END AS BIGINT) AS n, t, seen FROM t ORDER BY seen"
    with pytest.raises(Rejected, match="'x'") as failed:
        engine.map_batches(loud, late, {"t": files}, SCHEMA, tmp_path / "out")
    assert "the function" not in str(failed.value)
    with pytest.raises(NotFound, match="nowhere"):
        engine.map_batches(loud, "SELECT n FROM nowhere", {"t": files}, SCHEMA, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(engine: Engine, files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Conflict, match="out exists already"):
        engine.map_batches(loud, SQL, {"t": files}, SCHEMA, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_read_of_the_lake_is_scored_the_same(engine: Engine, tmp_path: Path) -> None:
    lake, predictor = FakeLake(), made(tmp_path / "tracking")
    plain = Predictor(FakeTracking(root=tmp_path / "tracking"), predictor.model_path, predictor.model_digest, DATA, "3")
    landed(lake, HOUSES[:200].assign(sold="Yes"))
    landed(lake, HOUSES[200:].assign(sold="No"))
    (tmp_path / "work").mkdir()
    rows = input_from_lake(lake, engine, DATA, "houses", "", tmp_path / "work")
    append_predictions(lake, rows, plain, lambda _: None, tmp_path / "work")
    assert predictions(lake).equals(expected(predictor))


KILLED = """
import sys, time
from pathlib import Path
import pyarrow as pa
from blocks.environment_settings import adapter_class

kind, spill, mark, to, *files = sys.argv[1:]

def slowly(batches):
    for batch in batches:
        yield batch
        Path(mark).touch()
        time.sleep(60)

engine = adapter_class(kind)(spill=Path(spill), batch_rows=1000)
engine.map_batches(slowly, "SELECT n FROM t", {"t": files}, pa.schema([("n", pa.int64())]), Path(to))
"""


@pytest.mark.parametrize("engine", ENGINES_KILLED, indirect=True, scope="module")
def test_a_process_that_is_killed_midway_leaves_nothing_to_be_seen(
    engine: Engine, files: tuple[str, ...], tmp_path: Path
) -> None:
    spill, mark, out = tmp_path / "spill", tmp_path / "began", tmp_path / "out"
    spill.mkdir()
    kind = f"{type(engine).__module__}.{type(engine).__qualname__}"
    writer = subprocess.Popen([sys.executable, "-c", KILLED, kind, str(spill), str(mark), str(out / "rows"), *files],
                              cwd=ROOT, stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        wait_for(lambda: mark.exists() or writer.poll() is not None)
        assert writer.poll() is None, "it ended before it could be killed"
        family = psutil.Process(writer.pid).children(recursive=True)
    finally:
        writer.kill()
        writer.wait()
    _, left = psutil.wait_procs(family, timeout=120)
    assert left == [], "nothing works on for a writer that is gone"
    assert not (out / "rows").exists()
    assert engine.map_batches(loud, SQL, {"t": files}, SCHEMA, out / "rows") == ROWS
