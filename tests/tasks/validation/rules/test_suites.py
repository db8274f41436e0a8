"""Suites of expectations: parsed strictly; an expectation that could not fail is an error, with its place."""

import pytest

from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import parse_suite

START = "name: t\nminimum_rows: 1\nexpectations:\n"
RULE = "  - type: expect_column_values_to_be_unique\n    kwargs: {column: a}\n"


def rule(kind: str, kwargs: str) -> str:
    return f"{START}  - type: {kind}\n    kwargs: {{{kwargs}}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (rule("expect_column_values_to_be_betwen", "column: a, min_value: 0"),
         ["line 4", "expectations[0].type", "betwen", "Did you mean expect_column_values_to_be_between?"]),
        (rule("expect_column_values_to_be_between", "column: a, min_valu: 0"),
         ["line 5", "kwargs.min_valu", "Did you mean min_value?"]),
        (rule("expect_column_values_to_be_between", "column: a"), ["neither min_value nor max_value"]),
        (rule("expect_column_mean_to_be_between", "column: a"), ["neither min_value nor max_value"]),
        (rule("expect_column_values_to_be_in_set", "column: a"), ["value_set is missing"]),
        (rule("expect_column_values_to_be_in_set", "column: a, value_set: []"), ["value_set", "is empty"]),
        (rule("expect_column_values_to_match_regex", "column: a"), ["regex is missing"]),
        (rule("expect_column_values_to_be_unique", "column: a, mostly: 0"), ["mostly", "everything passes"]),
        (rule("expect_column_values_to_be_unique", "column: a, mostly: 1.5"), ["mostly", "at most 1"]),
        (rule("expect_column_values_to_be_unique", "column: a, mostly: .nan"), ["mostly", "finite"]),
        (rule("expect_column_values_to_be_unique", "column: a, severity: warning"),
         ["severity", "every expectation counts"]),
        (rule("expect_column_values_to_be_unique", 'column: a, row_condition: "b > 0"'), ["may select no row"]),
        (rule("expect_column_values_to_be_unique", "column: 5"), ["must name columns, as text"]),
        (rule("expect_column_values_to_be_between", "column: a, min_value: {$PARAMETER: x}"), ["parameters ($)"]),
        (rule("expect_column_values_to_be_between", "column: a, min_value: [1]"), ["refused by Great Expectations"]),
        (rule("unexpected_rows_expectation", "unexpected_rows_query: SELECT 1"), ["needs a database"]),
        (rule("expect_table_columns_to_match_set", "exact_match: true"), ["column_set is missing"]),
        (rule("expect_column_values_to_be_in_set", "column: a, value_set: [No, Yes]"), ["No", "quote it"]),
        (rule("expect_column_values_to_be_unique", "column: a, column: b"), ["the key is there twice"]),
        (START + RULE + RULE, ["line 6", "the same expectation is there already, as expectations[0]"]),
        (START + "  []\n", ["at least one expectation"]),
        (START + "  - 5\n", ["must be a mapping with `type` and `kwargs`"]),
        (START + "  - type: expect_column_values_to_be_unique\n", ["the key kwargs is missing"]),
        (START + "  - type: expect_column_values_to_be_unique\n    kwargs: a\n", ["must be a mapping of arguments"]),
        ("name: t\nminimum_rows: 0\nexpectations:\n" + RULE, ["line 2", "minimum_rows", "1 or more"]),
        ("name: t\nexpectations:\n" + RULE, ["the key minimum_rows is missing"]),
        ("name: t\nminimum_row: 5\nexpectations:\n" + RULE, ["Did you mean minimum_rows?"]),
        ("name: 5\nminimum_rows: 5\nexpectations:\n" + RULE, ["name", "must be text"]),
        ("", ["the file is empty"]),
        ("- 1\n", ["not a list"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_suite_is_told_with_its_place_and_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        parse_suite(text, "suite.yaml")
    assert all(word in str(caught.value) for word in ["suite.yaml", *words]), str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    text = rule("expect_column_values_to_be_betwen", "column: a").replace("rows: 1", "rows: -1")
    with pytest.raises(Refusal, match=r"(?s)2 mistakes.*minimum_rows.*betwen"):
        parse_suite(text, "suite.yaml")
