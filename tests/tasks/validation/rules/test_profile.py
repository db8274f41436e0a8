"""Proposed expectations: they describe the data, parse strictly, pass on their data and fail on broken data."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.engines.duckdb import DuckDBEngine
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import parse_suite, validate_table
from tasks.validation.rules.parquet_rows import ParquetRows
from tasks.validation.rules.profile import propose_suite_yaml
from tasks.validation.rules.report import ValidationReport
from tasks.validation.rules.suites import Suite
from tasks.validation.tasks import parquet_rows

KINDS = {"price": "number", "rooms": "number", "plan": "category", "garden": "flag"}


def houses(rows: int = 1000) -> pd.DataFrame:
    chance = np.random.default_rng(7)
    return pd.DataFrame(
        {
            "house_id": [f"h{n}" for n in range(rows)],
            "price": chance.normal(250_000, 40_000, rows).clip(1_000).round(2),
            "rooms": chance.integers(1, 9, rows),
            "plan": chance.choice(["Open plan", 'it\'s: "old", #1', "No", "é"], rows),
            "garden": chance.integers(0, 2, rows),
        }
    )


def laid(folder: Path, frame: pd.DataFrame | pa.Table) -> ParquetRows:
    table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table, folder / "rows.parquet")
    return parquet_rows([folder / "rows.parquet"], DuckDBEngine.model_validate({}))


def proposed(rows: ParquetRows, target: str = "price", kinds: dict[str, str] = KINDS) -> str:
    return propose_suite_yaml(
        rows, name="houses", source="houses as of 1", entity="house_id", target=target, kinds=kinds
    )


def read(text: str) -> Suite:
    return parse_suite(text, "expectations.yaml")


def held(rows: ParquetRows, suite: Suite) -> ValidationReport:
    return validate_table(rows, suite, key="house_id")


def test_what_is_proposed_is_read_and_holds_on_the_data_it_came_from(tmp_path: Path) -> None:
    rows = laid(tmp_path, houses())
    suite = read(proposed(rows))
    report = held(rows, suite)
    assert report.passed, report.reasons
    assert (suite.name, suite.minimum_rows) == ("houses", 10)
    assert set(suite.columns) == {"house_id", *KINDS}


def test_each_rule_bears_a_comment_that_says_what_was_seen(tmp_path: Path) -> None:
    frame = houses()
    frame.loc[:49, "rooms"] = None
    text = proposed(laid(tmp_path, frame))
    assert "1,000 rows (houses as of 1)" in text
    assert f"{frame.price.min():.6g} to {frame.price.max():.6g}" in text
    assert "1,000 different in as many rows" in text
    assert "5 % null" in text and "mostly: 0.85" in text
    assert "4 different values" in text
    assert all("#" in line for line in text.splitlines() if "- type:" in line)


def test_a_tenth_of_the_rows_holds_too(tmp_path: Path) -> None:
    frame = houses(5000)
    suite = read(proposed(laid(tmp_path, frame)))
    report = validate_table(frame.sample(frac=0.1, random_state=3), suite, key="house_id")
    assert report.passed, report.reasons


Break = Callable[[pd.DataFrame], pd.DataFrame]
BROKEN: dict[str, tuple[Break, str]] = {
    "a house twice": (lambda d: pd.concat([d, d.head(1)]), "house_id"),
    "a nameless house": (lambda d: d.assign(house_id=d.house_id.where(d.house_id != "h5")), "house_id"),
    "cents for dollars": (lambda d: d.assign(price=d.price * 100), "price"),
    "thousands": (lambda d: d.assign(price=d.price / 1000), "price"),
    "a label missing": (lambda d: d.assign(price=d.price.where(d.rooms != 3)), "price"),
    "a negative count": (lambda d: d.assign(rooms=d.rooms * -1), "rooms"),
    "a new spelling": (lambda d: d.assign(plan=d.plan.str.upper()), "plan"),
    "flags as words": (lambda d: d.assign(garden=d.garden.map({0: "No", 1: "Yes"})), "garden"),
    "a column gone": (lambda d: d.drop(columns="plan"), "plan"),
    "a column of nothing": (lambda d: d.assign(rooms=np.nan), "rooms"),
    "no rows": (lambda d: d.head(0), "0 rows"),
}


@pytest.mark.parametrize(("corrupt", "word"), BROKEN.values(), ids=BROKEN)
def test_broken_data_is_refused_by_what_was_proposed(tmp_path: Path, corrupt: Break, word: str) -> None:
    suite = read(proposed(laid(tmp_path, houses())))
    report = held(laid(tmp_path, corrupt(houses())), suite)
    assert not report.passed
    assert any(word in reason for reason in report.reasons)


def test_the_classes_of_a_target_must_all_be_there(tmp_path: Path) -> None:
    text = proposed(laid(tmp_path, houses()), target="plan")
    assert "expect_column_distinct_values_to_equal_set" in text
    assert not held(laid(tmp_path, houses().assign(plan="No")), read(text)).passed


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "null throughout": ({"rooms": pa.nulls(1000, pa.int64())}, "null in every row"),
    "mostly null": ({"rooms": [1.0] * 100 + [None] * 900}, "90 % null"),
    "infinite": ({"rooms": [math.inf, *[1.0] * 999]}, "not all of it is finite numbers"),
    "text for numbers": ({"rooms": ["3"] * 1000}, "not all of it is finite numbers"),
    "one value": ({"rooms": [5] * 1000}, "5 to 5"),
    "tiny": ({"rooms": [n * 1e-12 for n in range(1000)]}, "0 to 9.99e-10"),
    "huge": ({"rooms": [n * 1e297 for n in range(1000)]}, "0 to 9.99e+299"),
    "below zero": ({"rooms": [-5.5, -1.25] * 500}, "-5.5 to -1.25"),
    "too many categories": ({"plan": [f"p{n}" for n in range(1000)]}, "more than 50 different values"),
    "real booleans": ({"garden": [True, False] * 500}, "2 different values"),
    "repeated entity": ({"house_id": ["h1", "h2"] * 500}, "not one row an entity"),
    "dates": ({"rooms": pa.array([0] * 1000, pa.date32())}, "not all of it is finite numbers"),
}


@pytest.mark.parametrize(("columns", "note"), ODD.values(), ids=ODD)
def test_odd_columns_get_a_note_and_rules_that_hold(tmp_path: Path, columns: dict[str, Any], note: str) -> None:
    table = pa.Table.from_pandas(houses(), preserve_index=False)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    rows = laid(tmp_path, table)
    text = proposed(rows)
    assert note in text
    report = held(rows, read(text))
    assert report.passed, report.reasons


def test_no_rows_or_a_column_that_is_not_there_propose_nothing(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"houses as of 1: there are no rows.*Ingest"):
        proposed(laid(tmp_path, houses(0)))
    with pytest.raises(Refusal, match=r"no such column.*'attic'.*There are: house_id"):
        proposed(laid(tmp_path, houses()), kinds={**KINDS, "attic": "number"})


@pytest.mark.slow
@settings(max_examples=40)
@given(
    numbers=st.lists(st.one_of(st.floats(), st.none()), min_size=5, max_size=20),
    words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=5, max_size=5),
)
def test_whatever_the_values_the_proposal_is_read_and_holds(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[float | None], words: list[str]
) -> None:
    count = len(numbers)
    columns = {
        "house_id": [str(n) for n in range(count)],
        "price": pa.array(numbers, pa.float64()),
        "plan": (words * count)[:count],
    }
    rows = laid(tmp_path_factory.mktemp("rows"), pa.table(columns))
    report = held(rows, read(proposed(rows, kinds={"price": "number", "plan": "category"})))
    assert report.passed, report.reasons


def test_rules_about_the_distribution_are_named_as_such_and_are_none_of_a_few_rows(tmp_path: Path) -> None:
    text = proposed(laid(tmp_path, houses()))
    about = [line for line in text.splitlines() if "# Distribution: " in line]
    assert len(about) == 2 and all("mean_to_be_between" in line for line in about)
    suite = read(text)
    assert {each.type for each in suite.for_batch(3).expectations} == {
        each.type for each in suite.expectations if "mean" not in each.type
    }
    assert '# "Distribution:": it holds for training data' in text


def test_no_mean_is_proposed_when_the_smallest_tier_is_too_small_for_one(tmp_path: Path) -> None:
    text = propose_suite_yaml(
        laid(tmp_path, houses()), name="houses", source="houses", entity="house_id", target="price", kinds=KINDS,
        smallest_tier=0.05,
    )  # fmt: skip
    assert "mean_to_be_between" not in text
    assert "the smallest tier has 50 rows, too few for one" in text


def test_placeholders_of_missing_values_are_pointed_out_in_the_proposal(tmp_path: Path) -> None:
    frame = houses()
    frame.loc[:9, "plan"] = "N/A"
    frame.loc[3, "rooms"] = -999
    text = proposed(laid(tmp_path, frame))
    assert "# Look here: 'N/A' in 10 rows of plan may mean that the value is missing." in text
    assert "# Look here: '-999' in 1 rows of rooms may mean" in text
    assert held(laid(tmp_path, frame), read(text)).passed
