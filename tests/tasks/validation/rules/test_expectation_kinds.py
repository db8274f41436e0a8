"""Expectations meet the kinds of their columns, or are refused with their line; some say nothing about few rows."""

import pandas as pd
import pytest

from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectation_kinds import DISTRIBUTION_ROWS, is_about_distribution
from tasks.validation.rules.expectations import parse_suite, validate_table
from tasks.validation.rules.suites import Suite

KINDS = {"id": "key", "plan": "category", "age": "number", "vip": "flag", "asked": "time", "spent": "number"}
COLUMNS = {"text": ("id", "plan"), "number": ("age",), "flag": ("vip",), "time": ("asked",)}
SETS = {"text": '["a", "b"]', "number": "[1, 2.5]", "flag": "[0, 1]", "time": '["2026-01-31"]'}
EVERY = ("text", "number", "flag", "time")
ORDERED, NUMERIC, TEXT, LISTED = ("number", "flag", "time"), ("number", "flag"), ("text",), ("text", "number", "flag")

TYPES = {
    "expect_column_distinct_values_to_be_in_set": (LISTED, "value_set: SET"),
    "expect_column_distinct_values_to_contain_set": (LISTED, "value_set: SET"),
    "expect_column_distinct_values_to_equal_set": (LISTED, "value_set: SET"),
    "expect_column_max_to_be_between": (ORDERED, "min_value: BOUND"),
    "expect_column_mean_to_be_between": (NUMERIC, "min_value: 0.5"),
    "expect_column_median_to_be_between": (NUMERIC, "min_value: 0.5"),
    "expect_column_min_to_be_between": (ORDERED, "max_value: BOUND"),
    "expect_column_most_common_value_to_be_in_set": (LISTED, "value_set: SET"),
    "expect_column_proportion_of_non_null_values_to_be_between": (EVERY, "min_value: 0.5"),
    "expect_column_proportion_of_unique_values_to_be_between": (EVERY, "min_value: 0.5"),
    "expect_column_quantile_values_to_be_between": (
        NUMERIC, "quantile_ranges: {quantiles: [0.5], value_ranges: [[0, 1]]}",
    ),
    "expect_column_stdev_to_be_between": (NUMERIC, "max_value: 2"),
    "expect_column_sum_to_be_between": (NUMERIC, "max_value: 2"),
    "expect_column_to_exist": (EVERY, ""),
    "expect_column_unique_value_count_to_be_between": (EVERY, "min_value: 2"),
    "expect_column_value_lengths_to_be_between": (TEXT, "min_value: 2"),
    "expect_column_value_lengths_to_equal": (TEXT, "value: 2"),
    "expect_column_value_z_scores_to_be_less_than": (NUMERIC, "threshold: 3, double_sided: true"),
    "expect_column_values_to_be_between": (ORDERED, "min_value: BOUND"),
    "expect_column_values_to_be_dateutil_parseable": (TEXT, ""),
    "expect_column_values_to_be_in_set": (LISTED, "value_set: SET"),
    "expect_column_values_to_be_json_parseable": (TEXT, ""),
    "expect_column_values_to_be_null": (EVERY, "mostly: 0.5"),
    "expect_column_values_to_be_unique": (EVERY, ""),
    "expect_column_values_to_match_json_schema": (TEXT, "json_schema: {type: object}"),
    "expect_column_values_to_match_like_pattern": (TEXT, 'like_pattern: "a%"'),
    "expect_column_values_to_match_like_pattern_list": (TEXT, 'like_pattern_list: ["a%"]'),
    "expect_column_values_to_match_regex": (TEXT, 'regex: "^a"'),
    "expect_column_values_to_match_regex_list": (TEXT, 'regex_list: ["^a"]'),
    "expect_column_values_to_match_strftime_format": (TEXT, 'strftime_format: "%Y"'),
    "expect_column_values_to_not_be_in_set": (LISTED, "value_set: SET"),
    "expect_column_values_to_not_be_null": (EVERY, ""),
    "expect_column_values_to_not_be_outliers": (NUMERIC, "method: iqr, multiplier: 3"),
    "expect_column_values_to_not_match_like_pattern": (TEXT, 'like_pattern: "a%"'),
    "expect_column_values_to_not_match_like_pattern_list": (TEXT, 'like_pattern_list: ["a%"]'),
    "expect_column_values_to_not_match_regex": (TEXT, 'regex: "^a"'),
    "expect_column_values_to_not_match_regex_list": (TEXT, 'regex_list: ["^a"]'),
}  # fmt: skip
"""Types of one column, the families of kinds that they take, and arguments."""

PLACES = [(kind, family) for kind in TYPES for family in EVERY]


def read(kind: str, kwargs: str, minimum_rows: int = 1) -> Suite:
    text = f"name: t\nminimum_rows: {minimum_rows}\nexpectations:\n  - type: {kind}\n    kwargs: {{{kwargs}}}\n"
    return parse_suite(text, "expectations.yaml", KINDS)


@pytest.mark.parametrize(("kind", "family"), PLACES, ids=["-".join(each) for each in PLACES])
def test_a_type_of_expectation_takes_the_kinds_on_which_it_has_a_meaning(kind: str, family: str) -> None:
    families, arguments = TYPES[kind]
    bound = '"2026-01-31T00:00:00Z"' if family == "time" else "0.5"
    arguments = arguments.replace("SET", SETS[family]).replace("BOUND", bound)
    for column in COLUMNS[family]:
        kwargs = ", ".join(filter(None, [f"column: {column}", arguments]))
        if family in families:
            assert read(kind, kwargs).expectations
            continue
        with pytest.raises(Refusal, match=rf"line 5.*kwargs.column.*of the kind {KINDS[column]}.*takes"):
            read(kind, kwargs)


SETTERS = [kind for kind, (_, arguments) in TYPES.items() if "SET" in arguments]
WRONG_VALUES = [
    ("plan", "[1, 2]", "1.*holds text.*Quote it"),
    ("id", "[true]", "True.*holds text"),
    ("age", '["0", "1"]', "'0'.*holds numbers.*without quotes"),
    ("age", "[true]", "True.*holds numbers"),
    ("vip", '["0", "1"]', "'0'.*flag is 0 or 1.*without quotes"),
    ("vip", "[0, 1, 2]", "2.*flag is 0 or 1"),
]


@pytest.mark.parametrize("kind", SETTERS)
@pytest.mark.parametrize(("column", "values", "said"), WRONG_VALUES, ids=[each[1] + each[0] for each in WRONG_VALUES])
def test_values_of_another_kind_than_the_column_are_refused_with_their_line(
    kind: str, column: str, values: str, said: str
) -> None:
    with pytest.raises(Refusal, match=rf"line 5.*value_set.*{said}"):
        read(kind, f"column: {column}, value_set: {values}")


OTHERS = {
    "a bound in quotes": ("expect_column_values_to_be_between", 'column: age, min_value: "0"', "min_value.*without quotes"),
    "a mean in quotes": ("expect_column_mean_to_be_between", 'column: age, max_value: "9"', "max_value.*without quotes"),
    "a number for a time": ("expect_column_values_to_be_between", "column: asked, min_value: 5", "as text"),
    "a text and a number": (
        "expect_column_pair_values_to_be_equal", "column_A: age, column_B: plan", "age is a number, plan is a category",
    ),
    "a time and a number": (
        "expect_column_pair_values_a_to_be_greater_than_b", "column_A: asked, column_B: age", "different kinds",
    ),
    "pairs of the wrong kinds": (
        "expect_column_pair_values_to_be_in_set", 'column_A: age, column_B: plan, value_pairs_set: [["1", "a"]]', "'1'",
    ),
    "a sum of text": ("expect_multicolumn_sum_to_equal", "column_list: [age, plan], sum_total: 5", "kind category"),
    "values unique across kinds": (
        "expect_select_column_values_to_be_unique_within_record", "column_list: [age, plan]", "different kinds",
    ),
    "weights of other values": (
        "expect_column_kl_divergence_to_be_less_than",
        "column: plan, partition_object: {values: [1, 2], weights: [0.5, 0.5]}, threshold: 0.1", "partition_object.*1",
    ),
    "bins of text": (
        "expect_column_kl_divergence_to_be_less_than",
        "column: plan, partition_object: {bins: [0, 1, 2], weights: [0.5, 0.5]}, threshold: 0.1", "bins",
    ),
    "a share from 0": (
        "expect_column_proportion_of_unique_values_to_be_between", "column: id, min_value: 0", "never be violated",
    ),
    "a share up to 1": (
        "expect_column_proportion_of_non_null_values_to_be_between", "column: id, max_value: 1", "never be violated",
    ),
    "a length from 0": ("expect_column_value_lengths_to_be_between", "column: id, min_value: 0", "never be violated"),
    "a deviation from 0": ("expect_column_stdev_to_be_between", "column: age, min_value: 0", "never be violated"),
    "rows from 0": ("expect_table_row_count_to_be_between", "min_value: 0", "never be violated"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "kwargs", "said"), OTHERS.values(), ids=OTHERS)
def test_an_expectation_that_cannot_fail_or_never_holds_is_refused(kind: str, kwargs: str, said: str) -> None:
    with pytest.raises(Refusal, match=rf"line 5.*{said}"):
        read(kind, kwargs)


ACCEPTED = {
    "a strict bound at the end of the range": (
        "expect_column_stdev_to_be_between",
        "column: age, min_value: 0, strict_min: true",
    ),
    "flag and number": ("expect_column_pair_values_a_to_be_greater_than_b", "column_A: age, column_B: vip"),
    "texts": ("expect_column_pair_values_to_be_equal", "column_A: id, column_B: plan"),
    "times": ("expect_column_values_to_be_between", 'column: asked, min_value: "2026-01-01T00:00:00Z"'),
    "a column of no known kind": ("expect_column_values_to_be_in_set", "column: other, value_set: [1]"),
    "flags as true and false": ("expect_column_values_to_be_in_set", "column: vip, value_set: [true, false]"),
}


@pytest.mark.parametrize(("kind", "kwargs"), ACCEPTED.values(), ids=ACCEPTED)
def test_an_expectation_that_meets_its_columns_is_read(kind: str, kwargs: str) -> None:
    assert len(read(kind, kwargs).expectations) == 1


def test_all_mistakes_of_the_shown_case_are_told_with_their_lines() -> None:
    text = """name: people
minimum_rows: 10
expectations:
  - {type: expect_column_values_to_be_between, kwargs: {column: age, min_value: "0", max_value: "120"}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: plan, value_set: [1, 2, 3]}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: vip, value_set: ["0", "1"]}}
"""
    with pytest.raises(Refusal) as refused:
        parse_suite(text, "expectations.yaml", KINDS)
    assert all(word in str(refused.value) for word in ("line 4", "line 5", "line 6", "'0'", "1", "flag is 0 or 1"))


MIXED = """name: people
minimum_rows: 50
expectations:
  - {type: expect_column_values_to_be_between, kwargs: {column: age, min_value: 0, max_value: 120}}
  - {type: expect_column_mean_to_be_between, kwargs: {column: age, min_value: 30, max_value: 50}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: plan, mostly: 0.95}}
  - {type: expect_column_distinct_values_to_equal_set, kwargs: {column: vip, value_set: [0, 1]}}
"""


def batch(rows: int, age: float = 80.0) -> pd.DataFrame:
    return pd.DataFrame(
        {"id": [str(n) for n in range(rows)], "age": age, "plan": [None, *["basic"] * (rows - 1)], "vip": 1.0}
    )


@pytest.mark.parametrize("rows", [2, 3, DISTRIBUTION_ROWS - 1])
def test_a_small_batch_is_checked_row_by_row_and_the_report_says_what_was_left_out(rows: int) -> None:
    suite = parse_suite(MIXED, "expectations.yaml", KINDS).for_batch(rows)
    report = validate_table(batch(rows), suite, key="id")
    assert report.passed, report.reasons
    assert "3 expectations about distributions" in report.left_out
    assert f"the batch has {rows:,} rows, and they need {DISTRIBUTION_ROWS}" in report.left_out
    assert not validate_table(batch(rows, age=130.0), suite, key="id").passed


def test_a_large_batch_must_meet_the_distribution_too() -> None:
    suite = parse_suite(MIXED, "expectations.yaml", KINDS).for_batch(DISTRIBUTION_ROWS)
    report = validate_table(batch(DISTRIBUTION_ROWS), suite, key="id")
    assert report.left_out == ""
    assert sorted(reason.partition("(")[0] for reason in report.reasons) == [
        "expect_column_distinct_values_to_equal_set", "expect_column_mean_to_be_between",
    ]  # fmt: skip


def test_the_distribution_needs_the_rows_that_the_suite_asks_for() -> None:
    suite = parse_suite(MIXED.replace("rows: 50", "rows: 500"), "expectations.yaml", KINDS)
    assert "they need 500" in suite.for_batch(499).left_out
    assert suite.for_batch(500).left_out == ""


def test_a_suite_of_distributions_alone_stays_whole_since_an_empty_one_checks_nothing() -> None:
    suite = read("expect_column_mean_to_be_between", "column: age, min_value: 30")
    assert len(suite.for_batch(3).expectations) == 1


def test_what_is_about_distributions() -> None:
    assert is_about_distribution("expect_column_mean_to_be_between", {"column": "age"})
    assert is_about_distribution("expect_column_values_to_not_be_null", {"column": "age", "mostly": 0.9})
    assert not is_about_distribution("expect_column_values_to_not_be_null", {"column": "age", "mostly": 1.0})
