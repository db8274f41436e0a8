"""Expectations: only what was checked can pass; each case in which the library passes without checking is refused."""

import gc
import inspect
import subprocess
import sys
import weakref
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.report import ValidationReport
from tasks.validation.rules.suites import Expectation, Suite
from tests.checkout import ROOT

SUITE = (
    "name: t\nminimum_rows: 1\nexpectations:\n  - type: expect_column_values_to_be_unique\n    kwargs: {column: a}\n"
)

CASES = [
    ("expect_column_values_to_not_be_null", {}),
    ("expect_column_values_to_be_between", {"min_value": 0, "max_value": 10}),
    ("expect_column_values_to_be_unique", {}),
    ("expect_column_values_to_be_in_set", {"value_set": (1, 2, 3)}),
    ("expect_column_values_to_match_regex", {"regex": "^[0-9]"}),
    ("expect_column_distinct_values_to_be_in_set", {"value_set": (1, 2, 3)}),
    ("expect_column_values_to_be_of_type", {"type_": "int64"}),
    ("expect_column_mean_to_be_between", {"min_value": 0, "max_value": 10}),
    ("expect_column_min_to_be_between", {"min_value": 0}),
    ("expect_column_proportion_of_unique_values_to_be_between", {"min_value": 0.5}),
    ("expect_column_quantile_values_to_be_between",
     {"quantile_ranges": {"quantiles": (0.5,), "value_ranges": ((1, 3),)}}),
    ("expect_column_to_exist", {}),
]  # fmt: skip
PAIRS = [
    Expectation("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "b", "column_B": "a"}),
    Expectation("expect_compound_columns_to_be_unique", {"column_list": ("a", "b")}),
]
EXPECTATIONS = [Expectation(kind, {"column": "a", **kwargs}) for kind, kwargs in CASES] + PAIRS
GOOD = pd.DataFrame({"id": ["x", "y", "z"], "a": [1, 2, 3], "b": [4, 5, 6]})

each_expectation = pytest.mark.parametrize("expectation", EXPECTATIONS, ids=[e.type for e in EXPECTATIONS])


def run(frame: pd.DataFrame, *expectations: Expectation, minimum_rows: int = 1) -> ValidationReport:
    return validate_table(frame, Suite("test", minimum_rows, expectations), key="id")


def between(column: str = "a", **kwargs: Any) -> Expectation:
    return Expectation("expect_column_values_to_be_between", {"column": column, **kwargs})


# what passes


@each_expectation
def test_an_expectation_that_holds_passes(expectation: Expectation) -> None:
    report = run(GOOD, expectation)
    assert report.passed, report.reasons
    assert report.reasons == () and report.results[0].passed


# what the library passes, and we refuse


@each_expectation
def test_an_empty_table_is_refused(expectation: Expectation) -> None:
    report = run(GOOD.head(0), expectation)
    assert not report.passed and not report.results[0].passed
    assert "the table has 0 rows" in report.reasons[0] and "the table is empty" in report.reasons[1]


@each_expectation
@pytest.mark.parametrize(
    "nulls",
    [pd.Series([np.nan] * 3), pd.Series([None] * 3, dtype=object), pd.Series([pd.NA] * 3, dtype="Int64")],
    ids=["nan", "none", "na"],
)
def test_an_all_null_column_is_refused(expectation: Expectation, nulls: pd.Series) -> None:
    report = run(GOOD.assign(a=nulls), expectation)
    assert not report.passed
    assert "column 'a' is null in every row" in report.reasons[0]


@each_expectation
def test_a_missing_column_is_refused(expectation: Expectation) -> None:
    report = run(GOOD.drop(columns="a"), expectation)
    assert not report.passed and "column 'a' is missing" in report.reasons[0]


@each_expectation
def test_a_column_that_is_there_twice_is_refused(expectation: Expectation) -> None:
    report = run(pd.concat([GOOD, GOOD[["a"]]], axis=1), expectation)
    assert not report.passed and "column 'a' is there more than once" in report.reasons[0]


def test_a_suite_of_no_expectations_is_refused() -> None:
    report = run(GOOD)
    assert not report.passed and "holds no expectation" in report.reasons[0]


@pytest.mark.parametrize(
    ("expectation", "words"),
    [
        (Expectation("expect_column_mean_to_be_between", {"column": "id", "min_value": 0}), "mean"),
        (Expectation("expect_column_values_to_be_between", {"column": "id", "min_value": 0}), "of the same type"),
        (Expectation("expect_column_values_to_match_regex", {"column": "id", "regex": "["}), "regular expression"),
        (Expectation("expect_column_values_to_be_of_no_kind", {"column": "a"}), "of_no_kind"),
        (Expectation("expect_column_values_to_be_between", {"column": "a"}), "cannot both be None"),
    ],
    ids=["mean of text", "text beside a number", "broken pattern", "unknown type", "no bounds"],
)
def test_an_exception_in_the_evaluation_is_a_failure(expectation: Expectation, words: str) -> None:
    report = run(GOOD, between(min_value=0), expectation)
    assert not report.passed
    assert "could not be evaluated" in report.results[1].reason and words in report.results[1].reason


def test_one_exception_leaves_the_other_results_as_they_are() -> None:
    report = run(
        GOOD, Expectation("expect_column_mean_to_be_between", {"column": "id", "min_value": 0}), between(max_value=9)
    )
    assert [result.passed for result in report.results] == [False, True]


def test_pairs_of_which_one_is_always_missing_are_refused() -> None:
    pair = Expectation(
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "a", "column_B": "b", "ignore_row_if": "either_value_is_missing"},
    )
    frame = pd.DataFrame({"id": range(4), "a": [1, None, 3, None], "b": [None, 2, None, 4]})
    assert "no row has the values that it compares" in run(frame, pair).reasons[0]


def test_too_few_rows_are_refused_however_good_they_are() -> None:
    report = run(GOOD, between(min_value=0), minimum_rows=4)
    assert not report.passed and report.results[0].passed
    assert report.reasons == ("the table has 3 rows, at least 4 are needed",)


def test_an_observed_value_that_is_infinite_is_refused() -> None:
    frame = GOOD.assign(a=[1.0, np.inf, 2.0])
    report = run(frame, Expectation("expect_column_mean_to_be_between", {"column": "a", "min_value": 0}))
    assert not report.passed and "inf" in report.reasons[0]


def test_a_table_without_the_key_column_is_refused() -> None:
    report = run(GOOD.drop(columns="id"), between(min_value=0))
    assert not report.passed and "column 'id' is missing" in report.reasons[0]


# what a failure says


def test_a_failure_names_column_bound_count_and_rows() -> None:
    frame = pd.DataFrame({"id": list("abcdefgh"), "a": [1, 2, 99, 98, 99, 99, 99, None]})
    (result,) = run(frame, between(max_value=10)).results
    assert (result.column, result.kwargs, result.observed) == ("a", "max_value=10", "7 values")
    assert (result.unexpected_count, round(result.unexpected_percent or 0, 2)) == (5, 71.43)
    assert sorted(result.examples) == [("c", "99"), ("d", "98"), ("e", "99"), ("f", "99"), ("g", "99")]
    assert result.reason == "5 of 7 values (71.4 %) are unexpected, at most 0 % may be"


@pytest.mark.parametrize(
    ("frame", "expectation", "examples"),
    [
        ({"a": [1, None, 3]}, Expectation("expect_column_values_to_not_be_null", {"column": "a"}), (("1", "nan"),)),
        ({"a": [7, 7, 3]}, Expectation("expect_column_values_to_be_unique", {"column": "a"}), (("0", "7"), ("1", "7"))),
        ({"a": ["u", "v", "w"]}, Expectation("expect_column_values_to_be_in_set", {"column": "a", "value_set": ("u", "w")}), (("1", "v"),)),
        ({"a": [1, 5, None], "b": [2, 2, 2]}, Expectation(PAIRS[0].type, {"column_A": "a", "column_B": "b"}),
         (("0", "a=1, b=2"), ("2", "a=nan, b=2"))),
        ({"a": [1, 1, 1], "b": [2, 2, 3]}, Expectation(PAIRS[1].type, {"column_list": ("a", "b")}),
         (("0", "a=1, b=2"), ("1", "a=1, b=2"))),
        ({"a": [3, 2, 3]}, Expectation("expect_column_values_to_be_increasing", {"column": "a"}), (("", "2"),)),
        ({"a": pd.to_datetime(["2026-01-01", "2030-01-01", None])}, Expectation("expect_column_values_to_not_be_null", {"column": "a"}),
         (("2", "NaT"),)),
        ({"a": pd.Categorical(["u", "v", "u"])}, Expectation("expect_column_values_to_be_in_set", {"column": "a", "value_set": ("u",)}), (("1", "v"),)),
    ],
    ids=["null", "repeated", "text", "pair with a null", "compound", "by position", "no time", "category"],
)  # fmt: skip
def test_examples_are_the_rows_that_break_the_rule(
    frame: dict[str, Any], expectation: Expectation, examples: tuple[tuple[str, str], ...]
) -> None:
    table = pd.DataFrame({"id": range(3), **frame}, index=[10, 10, 10])
    assert run(table, expectation).results[0].examples == examples


def test_an_aggregate_says_what_was_observed_and_expected() -> None:
    report = run(GOOD, Expectation("expect_column_mean_to_be_between", {"column": "a", "min_value": 5}))
    assert report.reasons == ("expect_column_mean_to_be_between(a): observed 2, expected min_value=5",)


def test_a_column_of_decimals_is_no_reason_to_look_at_the_call_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"id": ["x", "y"], "a": [Decimal("1.5"), Decimal("2.5")]})
    suite = Suite(
        "t", 1, (Expectation("expect_column_mean_to_be_between", {"column": "a", "min_value": 2, "max_value": 2}),)
    )
    assert validate_table(frame, suite, key="id").passed  # the library is loaded
    monkeypatch.setattr(inspect, "getouterframes", lambda *_: pytest.fail("a millisecond for each value"))
    assert validate_table(frame, suite, key="id").passed


def test_the_table_is_left_as_it_was_and_not_kept() -> None:
    frame = GOOD.copy()
    run(frame, *EXPECTATIONS)
    pd.testing.assert_frame_equal(frame, GOOD)
    alive = weakref.ref(frame)
    del frame
    gc.collect()
    assert alive() is None


def test_a_report_cannot_be_made_to_pass_by_hand() -> None:
    report = run(GOOD, between(min_value=5))
    assert not replace(report, rows=100).passed
    assert not replace(report, results=()).passed
    with pytest.raises(AttributeError):
        report.passed = True  # type: ignore[misc]


@pytest.mark.slow
def test_a_check_uses_no_network_leaves_no_file_and_prints_nothing(tmp_path: Path) -> None:
    program = f"""
import socket, sys
def refuse(*args): print("NETWORK", args, flush=True); raise OSError("no network")
socket.socket.connect = refuse
sys.path.insert(0, {str(ROOT)!r})
import tasks.validation.rules.expectations as rules
assert "great_expectations" not in sys.modules, "the library is imported only where it is used"
import pandas as pd
suite = rules.parse_suite({SUITE!r}, "suite.yaml")
report = rules.validate_table(pd.DataFrame({{"id": [1, 2], "a": [1, 1]}}), suite, key="id")
assert not report.passed
"""
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=tmp_path,
        env=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_suite_left_without_expectations_refuses() -> None:
    suite = Suite("t", 1, (between(min_value=0),)).without_column("a")
    assert not validate_table(GOOD, suite, key="id").passed
