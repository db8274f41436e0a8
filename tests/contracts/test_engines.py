"""The contract of engines: the same results row for row, the same complete files, and the same named errors."""

import hashlib
import math
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Conflict, Corrupt, NotFound, PortError, Rejected
from blocks.engines.base import Engine
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.rows.tiers import CutOffs, cut_off_sql, split_conditions
from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.suites import Suite
from tasks.validation.tasks import open_parquet_rows
from tests.checkout import ROOT
from tests.fixtures.expectation_tables import IN_SQL, TABLES, by_pandas, laid, told
from tests.fixtures.running_engines import ENGINES, ENGINES_KILLED, running_engine
from tests.waiting import wait_for

PAGE = (ROOT / "docs" / "buckets.md").read_text(encoding="utf-8")
VECTORS = re.findall(r"^\| `(.+?)` \| .+? \| `[0-9a-f]{32}` \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running_engine(request.param, tmp_path_factory.mktemp("spill")) as running:
        yield running


def store(folder: Path, *tables: pa.Table | Mapping[str, Any], name: str = "part") -> tuple[str, ...]:
    """Write each table as a Parquet file and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{place:03}.parquet" for place in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        pq.write_table(table if isinstance(table, pa.Table) else pa.table(dict(table)), path, row_group_size=50_000)
    return tuple(map(str, paths))


def rows(engine: Engine, sql: str, tables: Mapping[str, Sequence[str]]) -> list[tuple[Any, ...]]:
    """Return the result as tuples, NaN as text so that it equals itself."""
    answer = engine.query(sql, tables)
    columns = [column.to_pylist() for column in answer.columns]
    return [tuple("NaN" if isinstance(each, float) and math.isnan(each) else each for each in row)
            for row in zip(*columns, strict=True)]  # fmt: skip


def bucket(key: str, first_digit: int) -> int:
    digest = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return int(digest[first_digit - 1 : first_digit + 7], 16) % 10_000


# buckets, tiers, holdout


def test_the_documented_buckets_come_from_every_engine(engine: Engine, tmp_path: Path) -> None:
    assert len(VECTORS) >= 10
    files = store(tmp_path, {"place": list(range(len(VECTORS))), "key": [vector[0] for vector in VECTORS]})
    answer = engine.query("SELECT bucket_of(key, 1) AS tier, bucket_of(key, 9) AS holdout FROM keys ORDER BY place",
                          {"keys": files})  # fmt: skip
    assert [(str(row["tier"]), str(row["holdout"])) for row in answer.to_pylist()] == [(v[1], v[2]) for v in VECTORS]
    assert answer.schema.types == [pa.int32(), pa.int32()]


def test_an_integer_has_the_bucket_of_its_digits_and_a_null_has_none(engine: Engine, tmp_path: Path) -> None:
    keys = [0, -5, 2**63 - 1, None]
    files = store(tmp_path, {"key": pa.array(keys, pa.int64())})
    found = rows(engine, "SELECT key, bucket_of(CAST(key AS VARCHAR), 1) AS b FROM keys", {"keys": files})
    assert dict(found) == {key: None if key is None else bucket(str(key), 1) for key in keys}


def test_any_text_has_the_bucket_of_its_utf8_bytes(engine: Engine, tmp_path: Path) -> None:
    draw = random.Random(7)
    last = [0x7F, 0x7FF, 0xD7FF, 0x10FFFF]  # of 1, 2, 3 and 4 bytes; the code points 0xD800 to 0xDFFF are no text
    signs = [
        sign for sign in (draw.randint(0, draw.choice(last)) for _ in range(60_000)) if not 0xD800 <= sign < 0xE000
    ]
    texts = ["".join(map(chr, draw.sample(signs, draw.randint(0, 40)))) for _ in range(3_000)]
    files = store(tmp_path, {"place": list(range(len(texts))), "key": pa.array(texts, pa.string())})
    sql = "SELECT key, bucket_of(key, 1) AS tier, bucket_of(key, 9) AS holdout FROM keys ORDER BY place"
    assert rows(engine, sql, {"keys": files}) == [(text, bucket(text, 1), bucket(text, 9)) for text in texts]


ENTITIES = [f"customer {place % 4_000}" for place in range(20_000)]
BOUNDS = (500, 2_500, 10_000)


def tier(engine: Engine, files: Sequence[str], bound: int) -> list[tuple[Any, ...]]:
    """Return the rows of a tier: their numbers, their entities, and whether they belong to the holdout."""
    sql = f"SELECT row, key, bucket_of(key, 9) < 2000 AS held FROM rows WHERE bucket_of(key, 1) < {bound}"
    return rows(engine, sql, {"rows": files})


def test_tiers_are_nested_and_hold_whole_entities(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, {"key": ENTITIES, "row": list(range(20_000))})
    kept = [{row for row, _, _ in tier(engine, files, bound)} for bound in BOUNDS]
    for bound, found in zip(BOUNDS, kept, strict=True):
        assert found == {row for row, key in enumerate(ENTITIES) if bucket(key, 1) < bound}
    assert kept[0] < kept[1] < kept[2]


def test_the_holdout_is_the_same_share_of_each_tier(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, {"key": ENTITIES, "row": list(range(20_000))})
    for bound in BOUNDS:
        found = tier(engine, files, bound)
        assert {key for _, key, held in found if held} == {key for _, key, _ in found if bucket(key, 9) < 2_000}


# values

UTC_PLUS_5 = timezone(timedelta(hours=5, minutes=30))
VALUES = pa.table(
    {
        "place": pa.array(range(6), pa.int32()),
        "whole": pa.array([2**63 - 1, -(2**63), 0, None, 1, 2], pa.int64()),
        "small": pa.array([1, -1, None, 127, -128, 0], pa.int8()),
        "number": pa.array([1.5, math.nan, math.inf, -math.inf, None, 5e-324]),
        "single": pa.array([1.5, math.nan, None, 0.1, -0.0, 3e38], pa.float32()),
        "text": ["Zoë 顧客 🤦🏼‍♂️", "", None, "it's \\ \"quoted\"\n\t", "\u0000", " a "],
        "large": pa.array(["a", None, "b", "c", "ü", "z"], pa.large_string()),
        "category": pa.array(["a", None, "b", "a", "b", "a"]).dictionary_encode(),
        "flag": [True, False, None, True, False, True],
        "day": [date(2026, 2, 28), date(1, 1, 1), None, date(1582, 10, 10), date(9999, 12, 31), date(1969, 12, 31)],
        "money": pa.array([Decimal("1.50"), Decimal("-99999999.99"), None, Decimal(0), Decimal("0.01"), Decimal(7)],
                          pa.decimal128(10, 2)),
        "seen": pa.array([datetime(2026, 3, 29, 1, 30, tzinfo=UTC), datetime(2026, 3, 29, 7, 0, tzinfo=UTC_PLUS_5), None,
                        datetime(1900, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC),
                        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)], pa.timestamp("us", "UTC")),
        "local": pa.array([datetime(2026, 3, 29, 2, 30), None, datetime(1500, 1, 1), datetime(2026, 1, 1),
                           datetime(9999, 12, 31, 23), datetime(1970, 1, 1)], pa.timestamp("us")),
    }
)  # fmt: skip


def plain(table: pa.Table) -> list[dict[str, Any]]:
    return [{name: "NaN" if isinstance(each, float) and math.isnan(each) else each for name, each in row.items()}
            for row in table.to_pylist()]  # fmt: skip


def test_values_of_all_kinds_come_back_as_they_are(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, VALUES)
    answer = engine.query("SELECT * FROM t ORDER BY place", {"t": files})
    assert answer.column_names == VALUES.column_names
    assert plain(answer) == plain(VALUES)
    for name in ("whole", "number", "single", "flag", "day", "money", "seen", "local"):
        assert answer.schema.field(name).type == VALUES.schema.field(name).type


def test_written_and_streamed_values_are_those_of_a_query(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, VALUES)
    sql = "SELECT * FROM t ORDER BY place"
    assert engine.write(sql, {"t": files}, tmp_path / "out") == 6
    written = pa.concat_tables(map(pq.read_table, sorted((tmp_path / "out").iterdir())))
    streamed = engine.stream(sql, {"t": files}).read_all()
    assert plain(written) == plain(streamed) == plain(VALUES)
    assert streamed.schema.field("seen").type == written.schema.field("seen").type == pa.timestamp("us", "UTC")
    assert streamed.schema.field("local").type == pa.timestamp("us")


CONDITIONS = {
    "number > 1e0": [0, 1, 2],  # NaN is greater than every number
    "number = 'NaN'::DOUBLE": [1],
    "isnan(number)": [1],
    "isfinite(number)": [0, 5],
    "isinf(number)": [2, 3],
    "number IS NULL": [4],
    "NOT (number > 1e0)": [3, 5],
    "coalesce(number > 1e0, TRUE)": [0, 1, 2, 4],
    "text IN ('', ' a ')": [1, 5],
    "text = 'it''s \\ \"quoted\"\n\t'": [3],
    "length(text) = 12": [0],
    "text < 'a'": [0, 1, 4, 5],
    "text IS NOT DISTINCT FROM NULL": [2],
    "regexp_matches(large, '^[a-c]\\z')": [0, 2, 3],
    "category = 'a' AND flag": [0, 3, 5],
    "small % 2 = -1": [1],
    "whole // 2 = 1": [5],
    "money = 1.5": [0],
    "day < DATE '1582-10-15'": [1, 3],
    "seen = TIMESTAMPTZ '2026-03-29 03:30:00+02'": [0, 1],
    "seen < TIMESTAMPTZ '1970-01-01 00:00:00+00'": [3, 5],
    "epoch_us(seen) = -1": [5],
    "local = TIMESTAMP '2026-03-29 02:30:00'": [0],
    "CAST(place + 0.5e0 AS INTEGER) = 2": [1, 2],
    "TRY_CAST(text AS INTEGER) IS NULL": [0, 1, 2, 3, 4, 5],
    "CAST(place AS VARCHAR) IN ('1', '4')": [1, 4],
}


def test_each_condition_holds_for_the_same_rows(engine: Engine, tmp_path: Path) -> None:
    asked = [f"SELECT {n} AS asked, place FROM t WHERE {condition}" for n, condition in enumerate(CONDITIONS)]
    found = rows(engine, f"{' UNION ALL '.join(asked)} ORDER BY asked, place", {"t": store(tmp_path, VALUES)})
    held = {condition: [place for n, place in found if n == asked] for asked, condition in enumerate(CONDITIONS)}
    assert held == CONDITIONS


HOLD_FOR_NAN = ["n > 1e0", "NOT (n <= 1e0)", "n = 'NaN'::DOUBLE", "n <> 0.5e0", "n BETWEEN 2 AND 'NaN'::DOUBLE"]


def test_no_number_is_found_in_files_whose_statistics_leave_it_out(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, *({"n": pa.array([0.5, math.nan], kind)} for kind in (pa.float64(), pa.float32())))
    tables = {"doubles": files[:1], "singles": files[1:]}
    cases = [(table, condition) for table in tables for condition in HOLD_FOR_NAN]
    asked = [
        f"SELECT {n} AS asked, count(*) AS c FROM {table} WHERE {condition}"
        for n, (table, condition) in enumerate(cases)
    ]
    found = dict(rows(engine, " UNION ALL ".join(asked), tables))
    assert {case: found[n] for n, case in enumerate(cases)} == dict.fromkeys(cases, 1)
    assert rows(engine, "SELECT max(n) AS most, min(n) AS least FROM doubles", tables) == [("NaN", 0.5)]


AGGREGATES = {
    "count(*)": 6,
    "count(number)": 5,
    "count(*) FILTER (WHERE flag)": 3,
    "count(DISTINCT category)": 2,
    "min(number)": -math.inf,
    "max(number)": "NaN",
    "avg(small)": -0.2,
    "stddev_samp(place)": 1.8708286933869707,
    "sum(money)": Decimal("-99999991.48"),
    "sum(CAST(whole AS HUGEINT))": 2,
    "min(text)": "",
    "max(seen)": datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
    "bool_and(flag)": False,
    "quantile_cont(place, 0.25)": 1.25,
    "quantile_disc(place, 0.5)": 2,
    "arg_max(text, place)": " a ",
}


def test_each_aggregate_has_the_same_value(engine: Engine, tmp_path: Path) -> None:
    asked = ", ".join(f"{aggregate} AS a{n}" for n, aggregate in enumerate(AGGREGATES))
    (found,) = rows(engine, f"SELECT {asked} FROM t", {"t": store(tmp_path, VALUES)})
    expected = {a: pytest.approx(v) if isinstance(v, float) else v for a, v in AGGREGATES.items()}
    assert dict(zip(AGGREGATES, found, strict=True)) == expected


def test_groups_keep_nulls_and_no_numbers_apart(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, {"n": [math.nan, None, math.nan, 0.0, -0.0, None, None]})
    found = rows(engine, "SELECT n, count(*) AS c FROM t GROUP BY n ORDER BY n", {"t": files})
    assert found == [(0.0, 2), ("NaN", 2), (None, 3)]


ORDERS = {
    "n, place": [3, 0, 4, 1, 2, 5],
    "n DESC, place": [1, 4, 0, 3, 2, 5],
    "n NULLS FIRST, place": [2, 5, 3, 0, 4, 1],
    "n DESC NULLS FIRST, place": [2, 5, 1, 4, 0, 3],
}


def test_nulls_come_last_unless_said_otherwise(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, {"place": list(range(6)), "n": [2.0, math.nan, None, -1.0, 7.5, None]})
    with engine.query_session({"t": files}) as ask:
        found = {order: ask(f"SELECT place FROM t ORDER BY {order}")["place"].to_pylist() for order in ORDERS}
    assert found == ORDERS


def test_text_is_ordered_by_its_code_points(engine: Engine, tmp_path: Path) -> None:
    texts = ["b", "a", "B", "ä", "", "🤦", "z", "a ", "\uffee"]
    found = rows(engine, "SELECT t FROM t ORDER BY t", {"t": store(tmp_path, {"t": texts})})
    assert [text for (text,) in found] == sorted(texts)


# several files, several tables


def test_files_meet_by_name_and_what_a_file_lacks_is_null(engine: Engine, tmp_path: Path) -> None:
    parts = [{"id": [place], f"column {place}": [place * 10], "note, odd.name": [f"n{place}"]} for place in range(12)]
    files = store(tmp_path, *parts, pa.table({"column 3": [7], "id": [99]}))
    answer = engine.query("SELECT * FROM t ORDER BY id", {"t": files})
    assert answer.column_names == ["id", "column 0", "note, odd.name", *(f"column {place}" for place in range(1, 12))]
    for row in answer.to_pylist()[:-1]:
        place = row["id"]
        filled = {name: value for name, value in row.items() if value is not None}
        assert filled == {"id": place, f"column {place}": place * 10, "note, odd.name": f"n{place}"}
    assert {name: value for name, value in answer.to_pylist()[-1].items() if value is not None} == {
        "id": 99,
        "column 3": 7,
    }


def test_folders_and_files_with_odd_names_are_read_and_nothing_else(engine: Engine, tmp_path: Path) -> None:
    folder = tmp_path / "a [1] {x,y} *? ü"
    files = store(folder, {"id": [1]}, name="it's [0-9]*")
    store(tmp_path / "a 1 {x,y} *? ü", {"id": [2]}, name="it's 7")
    store(folder, {"id": [3]}, name="it's 5 and more")
    assert rows(engine, 'SELECT id FROM "my ""rows"" `1`"', {'my "rows" `1`': files}) == [(1,)]


def test_joins_match_equal_keys_and_never_nulls(engine: Engine, tmp_path: Path) -> None:
    tables = {
        "l": store(tmp_path / "l", {"id": [1, 2, 3, 4], "k": pa.array(["a", None, "b", "a"])}),
        "r": store(tmp_path / "r", {"k": pa.array(["a", "a", None, "c"]), "v": [10, 20, 30, 40]}),
    }
    left = "SELECT l.id, r.v FROM l LEFT JOIN r ON l.k = r.k ORDER BY l.id, r.v"
    assert rows(engine, left, tables) == [(1, 10), (1, 20), (2, None), (3, None), (4, 10), (4, 20)]
    anti = "SELECT l.id FROM l WHERE NOT EXISTS (SELECT 1 FROM r WHERE r.k = l.k) ORDER BY l.id"
    assert rows(engine, anti, tables) == [(2,), (3,)]


def test_the_latest_row_of_each_key_is_found_by_a_window(engine: Engine, tmp_path: Path) -> None:
    seen = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 3, 2, 5)]
    files = store(tmp_path, {"k": ["a", "a", "b", "b"], "seen": seen, "v": [1, 2, 3, None]})
    sql = """WITH ranked AS (SELECT *, row_number() OVER (PARTITION BY k ORDER BY seen DESC NULLS LAST) AS place FROM t)
             SELECT k, v FROM ranked WHERE place = 1 ORDER BY k"""
    assert rows(engine, sql, {"t": files}) == [("a", 2), ("b", None)]
    running = """SELECT v, max(v) OVER (ORDER BY seen RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS best
                 FROM t ORDER BY seen"""
    assert rows(engine, running, {"t": files}) == [(1, 1), (3, 3), (2, 3), (None, 3)]


def test_a_question_that_fails_leaves_the_next_unharmed(engine: Engine, tmp_path: Path) -> None:
    with engine.query_session({"t": store(tmp_path, {"text": ["1", "x"]})}) as ask:
        with pytest.raises(Rejected, match="'x'"):
            ask("SELECT CAST(text AS INTEGER) AS n FROM t")
        assert ask("SELECT count(*) AS c FROM t").to_pylist() == [{"c": 2}]


def test_no_question_is_answered_after_the_end(engine: Engine, tmp_path: Path) -> None:
    with engine.query_session({"t": store(tmp_path, {"text": ["1", "x"]})}) as ask:
        assert ask("SELECT count(*) AS c FROM t").to_pylist() == [{"c": 2}]
    with pytest.raises(PortError):
        ask("SELECT count(*) AS c FROM t")


# expectations

CHECKED = ("some null", "no number")


def test_a_suite_has_the_verdicts_of_pandas(engine: Engine, tmp_path: Path) -> None:
    suite = Suite("t", 2, tuple(IN_SQL))
    files = {name: laid(tmp_path / name, TABLES[name]) for name in CHECKED}
    found = {}
    for name in CHECKED:
        with open_parquet_rows(files[name], engine) as lying:
            found[name] = told(
                validate_table(replace(lying, max_cells=0), suite, key="id")
            )  # nothing is left to pandas
    assert found == {name: told(by_pandas(files[name], suite)) for name in CHECKED}


# large results and files


def test_a_stream_comes_in_order_and_in_batches(engine: Engine, tmp_path: Path) -> None:
    many = 450_000
    files = store(tmp_path, {"n": pa.array(range(many)), "t": pa.array([f"text {n}" for n in range(many)])})
    with engine.stream("SELECT n, t FROM t ORDER BY n DESC", {"t": files}) as reader:
        batches = list(reader)
    assert max(batch.num_rows for batch in batches) <= 150_000
    assert pa.Table.from_batches(batches)["n"].to_pylist() == list(range(many - 1, -1, -1))


def test_a_stream_that_nobody_reads_to_its_end_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, {"n": pa.array(range(300_000))})
    reader = engine.stream("SELECT n FROM t", {"t": files})
    reader.read_next_batch()
    del reader
    assert rows(engine, "SELECT count(*) AS c FROM t", {"t": files}) == [(300_000,)]


def test_a_folder_is_written_in_the_order_of_the_query_and_again_the_same(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, *({"n": list(range(start, 100_000, 4)), "k": [start] * 25_000} for start in range(4)))
    for name in ("one", "two"):
        assert engine.write("SELECT n, k FROM t ORDER BY n", {"t": files}, tmp_path / name) == 100_000
    first, second = ([pq.read_table(file) for file in sorted((tmp_path / name).iterdir())] for name in ("one", "two"))
    assert pa.concat_tables(first)["n"].to_pylist() == list(range(100_000))
    assert pa.concat_tables(first).equals(pa.concat_tables(second))
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == [f"rows-{place:05}.parquet" for place in range(len(names))]


def test_an_answer_without_rows_is_a_file_with_its_columns(engine: Engine, tmp_path: Path) -> None:
    files, sql = store(tmp_path, VALUES), "SELECT place, seen FROM t WHERE place > 99 ORDER BY place"
    assert engine.write(sql, {"t": files}, tmp_path / "out") == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["rows-00000.parquet"]
    assert pq.read_schema(tmp_path / "out" / "rows-00000.parquet").names == ["place", "seen"]
    assert engine.query(sql, {"t": files}).num_rows == engine.stream(sql, {"t": files}).read_all().num_rows == 0


def test_a_folder_that_is_there_is_left_alone(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, VALUES)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(Conflict, match="out exists already"):
        engine.write("SELECT * FROM t", {"t": files}, tmp_path / "out")
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_write_that_fails_on_a_late_row_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    files = store(tmp_path, {"t": ["1"] * 200_000 + ["x"]})
    with pytest.raises(Rejected, match="'x'"):
        engine.write("SELECT CAST(t AS INTEGER) AS n FROM t", {"t": files}, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["part-000.parquet"]


KILLED = """
import sys
from pathlib import Path
from blocks.environment_settings import adapter_class
kind, settings, files, to = sys.argv[1:]
engine = adapter_class(kind).model_validate_json(settings)
many = "SELECT a.n * 100000 + b.n AS n, a.t FROM t a, t b WHERE a.n < 5000"
engine.write(many, {"t": [files]}, Path(to))
"""
"""Not sorted: before it writes the first row of a sort, Spark computes all rows once, which takes minutes."""


@pytest.mark.parametrize("engine", ENGINES_KILLED, indirect=True, scope="module")
def test_a_write_that_is_killed_midway_is_not_visible_and_can_be_done_again(engine: Engine, tmp_path: Path) -> None:
    (files,) = store(tmp_path / "in", {"n": list(range(20_000)), "t": [f"text {n}" for n in range(20_000)]})
    (tmp_path / "spill").mkdir()
    to, out = tmp_path / "out" / "rows", tmp_path / "out"
    kind = f"{type(engine).__module__}.{type(engine).__qualname__}"
    settings = engine.model_copy(update={"spill": tmp_path / "spill"}).model_dump_json(exclude_defaults=True)
    writer = subprocess.Popen([sys.executable, "-c", KILLED, kind, settings, files, str(to)], cwd=ROOT,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        process = psutil.Process(writer.pid)

        def is_writing() -> bool:
            assert writer.poll() is None, "it ended before it could be killed"
            return out.exists() and any(out.iterdir()) and (engine.name == "duckdb" or any(out.rglob("parts")))

        wait_for(is_writing)
        time.sleep(0.5)  # errors inside its work
        family = process.children(recursive=True)
    finally:
        writer.kill()
        writer.wait()
    _, left = psutil.wait_procs(family, timeout=120)
    assert left == [], "nothing works on for a writer that is gone"
    assert not to.exists()
    assert engine.write("SELECT n FROM t ORDER BY n", {"t": [files]}, to) == 20_000


# errors


def failing(engine: Engine, sql: str, tables: Mapping[str, Sequence[str]], to: Path) -> PortError:
    """Return the error of a query; streaming and writing must raise the same type."""
    with pytest.raises(PortError) as asked:
        engine.query(sql, tables)
    with pytest.raises(type(asked.value)):
        engine.stream(sql, tables).read_all()
    with pytest.raises(type(asked.value)):
        engine.write(sql, tables, to)
    assert not to.exists()
    assert "\n" not in str(asked.value)
    return asked.value


WRONG = {
    "a column that is not there": ("SELECT plaec FROM t", NotFound, r"plaec.*place"),
    "a table that is not there": ("SELECT 1 AS one FROM nowhere", NotFound, "nowhere"),
    "a function that is not there": ("SELECT no_such_function(place) AS x FROM t", NotFound, "no_such_function"),
    "no SQL": ("SELEC place FROM t", Rejected, "SELEC"),
    "a broken clause": ("SELECT place FROM t WHERE", Rejected, "WHERE|syntax|Expected"),
    "a value that is no number": ("SELECT CAST(large AS INTEGER) AS x FROM t", Rejected, "'[abcüz]'"),
    "a number too large": ("SELECT whole + 1 AS x FROM t", Rejected, "verflow"),
    "two statements": ("SELECT 1 AS a; SELECT 2 AS b", Rejected, "not a single query"),
    "no query": ("DROP VIEW t", Rejected, "not a single query"),
}


@pytest.mark.parametrize(("sql", "kind", "said"), WRONG.values(), ids=WRONG)
def test_wrong_sql_is_named(engine: Engine, tmp_path: Path, sql: str, kind: type[PortError], said: str) -> None:
    error = failing(engine, sql, {"t": store(tmp_path, VALUES)}, tmp_path / "out")
    assert type(error) is kind
    assert re.search(said, str(error)), error


def test_a_file_that_is_not_there_is_named(engine: Engine, tmp_path: Path) -> None:
    files = [*store(tmp_path, VALUES), str(tmp_path / "gone.parquet")]
    error = failing(engine, "SELECT place FROM t", {"t": files}, tmp_path / "out")
    assert type(error) is NotFound
    assert "gone.parquet" in str(error)


@pytest.mark.parametrize("broken", ["garbage", "cut short", "empty"])
def test_a_file_that_is_not_whole_is_named(engine: Engine, tmp_path: Path, broken: str) -> None:
    files = store(tmp_path, VALUES, VALUES)
    whole = Path(files[1]).read_bytes()
    content = {"garbage": b"PAR1" + b"x" * 200 + b"nope", "cut short": whole[:-100], "empty": b""}[broken]
    Path(files[1]).write_bytes(content)
    error = failing(engine, "SELECT count(*) AS c FROM t", {"t": files}, tmp_path / "out")
    assert type(error) is Corrupt
    assert "part-001.parquet" in str(error)


@pytest.mark.parametrize(("files", "kind", "said"), [([], NotFound, "Ingest"), (["/a", "/a"], Rejected, "/a twice")])
def test_no_files_and_a_file_twice_are_refused(
    engine: Engine, tmp_path: Path, files: list[str], kind: type[PortError], said: str
) -> None:
    error = failing(engine, "SELECT 1 AS one FROM t", {"t": files}, tmp_path / "out")
    assert type(error) is kind
    assert said in str(error)


@pytest.mark.parametrize(
    "kind", [pa.timestamp("us", "UTC"), pa.timestamp("us", "Asia/Tokyo"), pa.timestamp("us"), pa.date32()], ids=str
)
def test_a_cut_off_and_its_parts_are_the_same_on_every_engine(
    engine: Engine, tmp_path: Path, kind: pa.DataType
) -> None:
    days = [datetime(2026, 3, 1 + place % 20) for place in range(400)]
    times = pa.array(days, pa.timestamp("us"))
    owners = [f"o{place // 4}" for place in range(400)]
    sold = (
        times.cast(kind)
        if kind.equals(pa.date32()) or kind.tz is None
        else times.cast(pa.timestamp("us", "UTC")).cast(kind)
    )
    files = store(tmp_path, {"id": list(range(400)), "sold": sold, "owner": owners})
    ((cut_off,),) = rows(engine, cut_off_sql("sold", 0.22), {"main": files})
    assert cut_off == datetime(2026, 3, 16, tzinfo=UTC), "22 % are 4.4 of 20 days, so 5"
    rule = HoldoutRule("group_and_time", 0.3, gap_days=2.0, time="sold", group="owner")
    parts = split_conditions(rule, "id", CutOffs(cut_off, cut_off - timedelta(days=5)), 0.25)
    found = {part: rows(engine, f"SELECT id FROM t WHERE {each}", {"t": files}) for part, each in parts.items()}
    sides = {"holdout": [], "validation": [], "train": [], "unused": []}
    for place, (day, owner) in enumerate(zip(days, owners, strict=True)):
        decides, validates, number = bucket(owner, 9) < 3000, bucket(owner, 17) < 2500, day.day
        trains = not decides and number < 14
        part = (
            "holdout"
            if decides and number >= 16
            else "validation"
            if trains and validates and number >= 11
            else "unused"
        )
        sides["train" if trains and not validates and number < 9 else part].append((place,))
    assert {part: sorted(each) for part, each in found.items()} == sides
    assert all(sides.values())


def test_files_are_read_by_their_literal_names_and_with_their_own_columns_alone(engine: Engine, tmp_path: Path) -> None:
    below = tmp_path / "plan=pro" / "_bucket=7"
    store(below, {"plan": ["other"], "n": [0]}, name="ab")
    for name in ("a*", "a?", "a[b]", "a{b,c}"):
        files = store(below, {"plan": ["basic"], "n": [1]}, name=name)
        assert rows(engine, "SELECT plan, n FROM t", {"t": files}) == [("basic", 1)], name
        assert engine.query("SELECT * FROM t", {"t": files}).column_names == ["plan", "n"], name
    out = below / "out"
    assert engine.write("SELECT plan FROM t", {"t": files}, out) == 1
    again = tuple(map(str, sorted(out.iterdir())))
    assert engine.query("SELECT * FROM t", {"t": again}).to_pylist() == [{"plan": "basic"}]
