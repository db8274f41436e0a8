"""Placeholders of missing values: pointed out with column, value and rows, in every kind, and never changed."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from tasks.ingestion.rules.placeholders import (
    Placeholder,
    find_placeholders,
    placeholder_sentence,
    sample_sql,
    unreadable_placeholders,
)


def found(kinds: dict[str, str], columns: dict[str, Any]) -> list[Placeholder]:
    return find_placeholders(kinds, pa.table(columns))


SUSPICIOUS: dict[str, tuple[str, list[Any], str, int]] = {
    "R": ("category", ["NA", "basic", "NA"], "NA", 2),
    "SQL": ("category", ["pro", "NULL", "basic"], "NULL", 1),
    "spreadsheet": ("text", ["#N/A", "k1", "k2"], "#N/A", 1),
    "not applicable": ("category", ["pro", "n/a", "basic"], "n/a", 1),
    "pandas": ("category", ["nan", "NaN", "NaN", "basic"], "NaN", 3),
    "Python": ("category", ["None", "basic", "pro"], "None", 1),
    "a dash": ("category", ["-", "basic", "-"], "-", 2),
    "a question mark": ("category", [" ? ", "basic", "pro"], "?", 1),
    "a full stop of SAS": ("category", [".", "basic", "pro"], ".", 1),
    "a code in text": ("category", ["-999", "12", "15"], "-999", 1),
    "-999": ("number", [-999.0, 41.0, 17.0, -999.0], "-999", 2),
    "-1 among whole numbers": ("number", [-1, 41, 17], "-1", 1),
    "-9 beside a null": ("number", [None, -9, 41], "-9", 1),
    "9999": ("number", [9999.0, 41.0, 17.0], "9999", 1),
    "the largest integer": ("number", [2147483647, 41, 17], "2147483647", 1),
    "the year 1900": ("time", pd.to_datetime(["1900-01-01T00:00:00Z", "2026-11-30T07:00:00Z"]).tolist(), "1900-01-01 00:00:00", 1),
    "the year 9999": ("time", [pd.Timestamp("9999-12-31").to_pydatetime(), None], "9999-12-31 00:00:00", 1),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "values", "value", "rows"), SUSPICIOUS.values(), ids=SUSPICIOUS)
def test_a_placeholder_is_named_with_its_column_and_rows(kind: str, values: list[Any], value: str, rows: int) -> None:
    assert found({"x": kind}, {"x": values}) == [Placeholder("x", value, rows)]


HONEST: dict[str, tuple[str, list[Any]]] = {
    "categories": ("category", ["basic", "pro", None, "nano", "canada", "No"]),
    "negative numbers": ("number", [-999.0, -3.5, 41.0]),
    "large numbers": ("number", [9999.0, 8000.0, 12.0]),
    "nothing but nulls": ("number", [None, None]),
    "nothing but one number": ("number", [999.0, 999.0]),
    "flags": ("flag", [0, 1]),
    "times": ("time", pd.to_datetime(["1970-01-01T00:00:01Z", "2026-11-30T07:00:00Z"]).tolist()),
}


@pytest.mark.parametrize(("kind", "values"), HONEST.values(), ids=HONEST)
def test_other_values_are_not_pointed_out(kind: str, values: list[Any]) -> None:
    column = pa.array(values, pa.float64()) if set(values) == {None} else values
    assert found({"x": kind}, {"x": column}) == []


def test_only_so_many_cells_are_read_of_a_wide_table(tmp_path: Path) -> None:
    kinds = {f'it\'s "{number}"': "category" for number in range(3)}
    pq.write_table(pa.table({name: ["NA", "b", "c"] for name in kinds}), tmp_path / "rows.parquet")
    tables = {"staged": [str(tmp_path / "rows.parquet")]}
    rows = DuckDBEngine.model_validate({}).query(sample_sql(kinds, "SELECT * FROM staged"), tables)
    assert [each.column for each in find_placeholders(kinds, rows)] == list(kinds)
    assert sample_sql(kinds, "SELECT 1").endswith("LIMIT 100000")
    assert sample_sql({str(number): "number" for number in range(4_000)}, "SELECT 1").endswith("LIMIT 1000")


def test_the_sentence_names_five_and_says_what_to_do() -> None:
    assert placeholder_sentence([]) == ""
    said = placeholder_sentence([Placeholder(f"c{n}", "NA", 1_200) for n in range(7)])
    assert said.startswith("Possibly missing values: 'NA' in 1,200 rows of c0, ")
    assert "and 2 more columns" in said
    assert "leave the cell empty in the source" in said


def test_a_placeholder_in_a_column_of_numbers_is_named_though_its_row_cannot_be_read() -> None:
    reasons = [
        ("not a number: column 'age' holds 'NA'", 8), ("not a number: column 'age' holds 'long'", 2),
        ('not a time: column "it\'s at" holds \'-\'', 1), ("3 fields, expected 4", 5),
    ]  # fmt: skip
    assert unreadable_placeholders(reasons) == [Placeholder("age", "NA", 8), Placeholder("it's at", "-", 1)]


def test_a_number_is_a_key_like_any_other_and_na_is_not() -> None:
    rows = pa.table({"id": ["997", "998", "999", "-1", "NA"]})
    assert [each.value for each in find_placeholders({"id": "key"}, rows)] == ["NA"]
    assert "'NA' in 1 row of id" in placeholder_sentence(find_placeholders({"id": "key"}, rows))
