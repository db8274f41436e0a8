"""Counts by bin, computed by SQL: every row is in exactly one bin of a column, for any values."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.rules.columns import (
    MAX_CATEGORY_VALUES,
    category_column,
    counts_sql,
    number_column,
    read_counts,
    values_sql,
)

ENGINE = DuckDBEngine()


def counted(folder: Path, columns, rows: dict[str, list], window: str = "0"):
    pq.write_table(pa.table(rows), folder / "rows.parquet")
    answer = ENGINE.query(counts_sql(columns, "rows", window), {"rows": (str(folder / "rows.parquet"),)})
    return read_counts(columns, answer.to_pylist())


def test_every_row_is_in_one_bin_or_missing(tmp_path):
    values = [*np.arange(100.0), None, float("nan"), float("inf"), -1e300]
    column = number_column("a b", np.arange(100.0))
    counts = counted(tmp_path, [column], {"a b": values})[0]["a b"]
    assert counts.bins == (11, 10, 10, 10, 10, 10, 10, 10, 10, 10) or sum(counts.bins) == 101
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
    found = ENGINE.query(values_sql("kind", "rows", column.values), {"rows": (str(tmp_path / "rows.parquet"),)})
    assert found.to_pylist() == [{"value": "new", "found": 1}]


def test_windows_are_counted_in_one_query_and_an_empty_one_is_not_there(tmp_path):
    column = number_column("x", np.arange(10.0), flag=True)
    windows = counted(tmp_path, [column], {"x": [0, 1, 1, 0], "w": [0, 0, 2, 2]}, "w")
    assert {number: window["x"].bins for number, window in windows.items()} == {0: (1, 1), 2: (1, 1)}


def test_booleans_and_whole_numbers_are_numbers(tmp_path):
    column = number_column("x", np.array([0, 1]), flag=True)
    assert counted(tmp_path, [column], {"x": [True, False, True]})[0]["x"].bins == (1, 2)
    assert counted(tmp_path, [column], {"x": [1, 0, 1]})[0]["x"].bins == (1, 2)


def test_a_category_of_very_many_values_looks_for_no_new_ones():
    column = category_column("id", [(f"v{number}", 1000 - number) for number in range(MAX_CATEGORY_VALUES + 5)])
    assert (len(column.values), column.has_all_values, column.values[0]) == (MAX_CATEGORY_VALUES, False, "v0")


def test_a_column_of_one_value_or_none_has_bins():
    assert number_column("x", np.array([5.0] * 100)).edges == (5.0,)
    assert number_column("x", np.array([np.nan])).bins == 2
    assert category_column("x", []).bins == 1
