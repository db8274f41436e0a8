"""Counts by bin, computed by SQL: every row is in exactly one bin of a column, for any values."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.rules.bins import MAX_CATEGORY_VALUES, category_column, number_column
from tasks.monitoring.rules.columns import HASHED_BINS, count_windows, values_sql

ENGINE = DuckDBEngine()


def counted(folder: Path, columns, rows: dict[str, list], window: str = "0"):
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    with ENGINE.query_session({"rows": (str(folder / "rows.parquet"),)}) as query:
        return count_windows(query, columns, "rows", window)


def test_every_row_is_in_one_bin_or_missing(tmp_path):
    values = [*np.arange(100.0), None, float("nan"), float("inf"), -1e300]
    column = number_column("a b", np.arange(100.0))
    counts = counted(tmp_path, [column], {"a b": values})[0]["a b"]
    assert counts.bins == (11, 10, 20, 20, 20, 10, 10)
    assert (counts.nulls, counts.not_finite, counts.rows) == (1, 2, 104)
    assert counts.missing_share == pytest.approx(3 / 104)


def test_mean_and_deviation_are_those_of_the_finite_numbers(tmp_path):
    values = np.random.default_rng(1).normal(1e6, 2, 5000)
    column = number_column("x", values)
    counts = counted(tmp_path, [column], {"x": [*values.tolist(), None]})[0]["x"]
    assert counts.mean(column) == pytest.approx(values.mean())
    assert counts.deviation() == pytest.approx(values.std(), rel=1e-6)
    assert (counts + counts).mean(column) == pytest.approx(values.mean())


def test_a_category_with_quotes_and_a_new_value_is_counted(tmp_path):
    column = category_column("kind", [("it's", 5), ('a "b"', 3), ("", 1)])
    rows = {"kind": ["it's", 'a "b"', "", "new", None, "it's"]}
    counts = counted(tmp_path, [column], rows)[0]["kind"]
    assert column.values == ("it's", 'a "b"', "")
    assert (counts.bins, counts.nulls) == ((2, 1, 1, 1), 1)
    query = values_sql({"kind": column.values, "kind2": ()}, '(SELECT *, kind AS kind2 FROM "rows")', 1)
    found = ENGINE.query(query, {"rows": (str(tmp_path / "rows.parquet"),)}).to_pylist()
    assert [list(row.values()) for row in found] == [["kind", "new", 1, 1, 1], ["kind2", "it's", 2, 4, 5]]


def test_columns_may_have_any_name(tmp_path):
    names = ["win", "b0", "v0", "v1", "B1", "binned", "texts", "value", "found", "feature", 'a "b', "é;--"]
    columns = [number_column(name, np.arange(100.0)) for name in names]
    counts = counted(tmp_path, columns, {name: list(np.roll(np.arange(100.0), at)) for at, name in enumerate(names)})
    assert {counts[0][name].bins for name in names} == {(10, 10, 20, 20, 20, 10, 10)}
    query = values_sql(dict.fromkeys(names, ()), "rows", 100)
    found = ENGINE.query(query, {"rows": (str(tmp_path / "rows.parquet"),)}).to_pylist()
    assert {name: sum(row["found"] for row in found if row["feature"] == name) for name in names} == dict.fromkeys(
        names, 100
    )


def test_windows_are_counted_in_one_query_and_an_empty_one_is_not_there(tmp_path):
    column = number_column("x", np.arange(10.0), flag=True)
    windows = counted(tmp_path, [column], {"x": [0, 1, 1, 0], "w": [0, 0, 2, 2]}, "w")
    assert {number: window["x"].bins for number, window in windows.items()} == {0: (1, 1), 2: (1, 1)}


def test_booleans_and_whole_numbers_are_numbers(tmp_path):
    column = number_column("x", np.array([0, 1]), flag=True)
    assert counted(tmp_path, [column], {"x": [True, False, True]})[0]["x"].bins == (1, 2)
    assert counted(tmp_path, [column], {"x": [1, 0, 1]})[0]["x"].bins == (1, 2)


def test_the_other_values_of_a_category_with_very_many_are_counted_by_their_hash(tmp_path):
    column = category_column("id", [(f"v{number}", 1000 - number) for number in range(MAX_CATEGORY_VALUES + 5)])
    assert (len(column.values), column.has_all_values, column.values[0]) == (MAX_CATEGORY_VALUES, False, "v0")
    counts = counted(tmp_path, [column], {"id": ["v0", *(f"w{number}" for number in range(5000))]})[0]["id"].bins
    assert counts[:MAX_CATEGORY_VALUES] == (1, *[0] * (MAX_CATEGORY_VALUES - 1))
    assert len(counts[MAX_CATEGORY_VALUES:]) == HASHED_BINS and min(counts[MAX_CATEGORY_VALUES:]) > 400
