"""SQL plans of expectations on each row: a condition on one value, or on several columns."""

import re
from collections.abc import Callable, Mapping, Sequence

from tasks.shared.rules import sql
from tasks.validation.rules.parquet_rows import ColumnFamily
from tasks.validation.rules.sql_plan import (
    ROW_COUNT_SQL,
    PlanFactory,
    QueryResults,
    SqlPlan,
    as_count,
    as_number,
    count_where_sql,
)
from tasks.validation.rules.suites import Expectation

_ONE = r"(?:[\w :/@,;=#%&~<>'\"!-]|\\[-.+*?()\[\]{}|^$\\/]|\[\^?[\w :/@,;=#%&~.+*!-]+\])"
_TIMES = r"(?:[*+?]|\{\d{1,3}(?:,\d{0,3})?\})?"
_PATTERN = re.compile(rf"\^?(?:{_ONE}{_TIMES})*\$?", re.ASCII)


def _value_plan(
    metric: str, condition: Callable[[str, Mapping[str, object]], str], *kinds: ColumnFamily
) -> PlanFactory:
    def make(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
        if kinds and not found <= set(kinds):
            return None
        column = sql.quoted_name(str(expectation.kwargs["column"]))
        broken = condition(column, {**expectation.kwargs, "kinds": found})
        unexpected, filled = count_where_sql(broken), f"count({column})"
        return SqlPlan(
            (unexpected, filled),
            lambda answers: {
                **_base_counts(answers, filled),
                f"{metric}.unexpected_count": answers.value(unexpected),
                f"{metric}.unexpected_values": [],
            },
            broken,
        )

    return make


def _null_plan(metric: str, *, wanted: bool) -> PlanFactory:
    """Plan a rule about nulls, which follows from how many values there are."""

    def make(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan:
        column = sql.quoted_name(str(expectation.kwargs["column"]))
        filled = f"count({column})"

        def metrics(answers: QueryResults) -> dict[str, object]:
            counts = _base_counts(answers, filled)
            nulls = as_count(counts["column_values.nonnull.unexpected_count"])
            unexpected = as_count(answers.value(filled)) if wanted else nulls
            return {**counts, f"{metric}.unexpected_count": unexpected, f"{metric}.unexpected_values": []}

        return SqlPlan((filled,), metrics, f"{column} IS NOT NULL" if wanted else f"{column} IS NULL")

    return make


def _base_counts(answers: QueryResults, filled: str) -> dict[str, object]:
    rows = as_count(answers.value(ROW_COUNT_SQL))
    return {"table.row_count": rows, "column_values.nonnull.unexpected_count": rows - as_count(answers.value(filled))}


def _outside_range_sql(operand: str, arguments: Mapping[str, object]) -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    given = [each for each in (low, high) if each is not None]
    if not given or not all(map(sql.is_number, given)) or (len(given) == 2 and as_number(low) > as_number(high)):
        raise ValueError("bounds that the library itself is to refuse")
    strict_low, strict_high = arguments.get("strict_min"), arguments.get("strict_max")
    below = "" if low is None else f"{operand} {'<=' if strict_low else '<'} {sql.value_literal(low)}"
    above = "" if high is None else f"{operand} {'>=' if strict_high else '>'} {sql.value_literal(high)}"
    return f"({' OR '.join(filter(None, (below, above)))})"


def in_set_sql(column: str, arguments: Mapping[str, object]) -> str:
    """Return SQL that tells whether a column's value is in the `checked_value_set` of the arguments."""
    return f"{column} IN ({', '.join(map(sql.value_literal, checked_value_set(arguments)))})"


def checked_value_set(arguments: Mapping[str, object]) -> list[object]:
    """Return the value set, each value once. Raises ValueError when not all its values are of the column's kind."""
    values, kinds = arguments["value_set"], arguments["kinds"]
    if not isinstance(values, tuple) or not values:
        raise ValueError("no set")
    fits = all(isinstance(each, str) for each in values) if kinds == {"text"} else all(map(sql.is_number, values))
    if not fits:
        raise ValueError("values of another kind than the column")
    return list(dict.fromkeys(values))


def _regex_match_sql(column: str, arguments: Mapping[str, object]) -> str:
    """Return SQL that tells whether the pattern is found; only for patterns that every engine reads alike."""
    pattern = str(arguments["regex"])
    if not _PATTERN.fullmatch(pattern):
        raise ValueError("a pattern that engines may read differently")
    ended = pattern[:-1] + r"\z" if re.fullmatch(r"(?:[^\\$]|\\.)*\$", pattern) else pattern
    return f"regexp_matches({column}, {sql.value_literal(ended)})"


def _length_differs_sql(column: str, arguments: Mapping[str, object]) -> str:
    if not sql.is_number(arguments["value"]):
        raise ValueError("no length")
    return f"length({column}) <> {sql.value_literal(arguments['value'])}"


def _unique_plan(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
    if "other" in found:
        return None
    column = str(expectation.kwargs["column"])
    filled = f"count({sql.quoted_name(column)})"
    domain = f"{sql.quoted_name(column)} IS NOT NULL"
    return SqlPlan(
        (filled,),
        lambda answers: {
            **_base_counts(answers, filled),
            "column_values.unique.unexpected_count": answers.count_repeated_rows(
                (column,), domain, as_count(answers.value(filled))
            ),
            "column_values.unique.unexpected_values": [],
        },
        domain,
        (column,),
    )


# a condition on several columns of a row

_DOMAINS = {"both_values_are_missing": " OR ", "all_values_are_missing": " OR "} | {
    "either_value_is_missing": " AND ",
    "any_value_is_missing": " AND ",
}


def _row_domain_sql(columns: Sequence[str], arguments: Mapping[str, object], default: str) -> str:
    word = str(arguments.get("ignore_row_if", default))
    if word in ("neither", "never"):
        return "TRUE"
    return "(" + _DOMAINS[word].join(f"{sql.quoted_name(each)} IS NOT NULL" for each in columns) + ")"


def _pair_plan(metric: str, sign: Callable[[Mapping[str, object]], str], *texts: ColumnFamily) -> PlanFactory:
    def make(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
        if not (found <= {"whole", "double"} or (texts and found <= set(texts))):
            return None
        pair = (str(expectation.kwargs["column_A"]), str(expectation.kwargs["column_B"]))
        domain = _row_domain_sql(pair, expectation.kwargs, "both_values_are_missing")
        holds = f"{sql.quoted_name(pair[0])} {sign(expectation.kwargs)} {sql.quoted_name(pair[1])}"
        return _row_plan(metric, domain, f"{domain} AND NOT coalesce({holds}, FALSE)")

    return make


def _row_plan(metric: str, domain: str, broken: str) -> SqlPlan:
    unexpected, checked = count_where_sql(broken), count_where_sql(domain)
    return SqlPlan(
        (unexpected, checked),
        lambda answers: {
            "table.row_count": answers.value(ROW_COUNT_SQL),
            f"{metric}.filtered_row_count": answers.value(checked),
            f"{metric}.unexpected_count": answers.value(unexpected),
            f"{metric}.unexpected_values": [],
        },
        broken,
    )


def _compound_unique_plan(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
    columns = expectation.columns
    if "other" in found or expectation.kwargs["column_list"] != columns:
        return None
    domain = _row_domain_sql(columns, expectation.kwargs, "all_values_are_missing")
    checked, metric = count_where_sql(domain), "compound_columns.unique"
    return SqlPlan(
        (checked,),
        lambda answers: {
            "table.row_count": answers.value(ROW_COUNT_SQL),
            f"{metric}.filtered_row_count": answers.value(checked),
            f"{metric}.unexpected_count": answers.count_repeated_rows(
                columns, domain, as_count(answers.value(checked))
            ),
            f"{metric}.unexpected_values": [],
        },
        domain,
        columns,
    )


ROW_PLANS: Mapping[str, PlanFactory] = {
    "expect_column_values_to_not_be_null": _null_plan("column_values.nonnull", wanted=False),
    "expect_column_values_to_be_null": _null_plan("column_values.null", wanted=True),
    "expect_column_values_to_be_between": _value_plan("column_values.between", _outside_range_sql, "whole", "double"),
    "expect_column_values_to_be_in_set": _value_plan(
        "column_values.in_set", lambda c, given: f"NOT {in_set_sql(c, given)}", "whole", "double", "text"
    ),
    "expect_column_values_to_not_be_in_set": _value_plan(
        "column_values.not_in_set", in_set_sql, "whole", "double", "text"
    ),
    "expect_column_values_to_match_regex": _value_plan(
        "column_values.match_regex", lambda c, given: f"NOT {_regex_match_sql(c, given)}", "text"
    ),
    "expect_column_values_to_not_match_regex": _value_plan("column_values.not_match_regex", _regex_match_sql, "text"),
    "expect_column_value_lengths_to_be_between": _value_plan(
        "column_values.value_length.between", lambda c, given: _outside_range_sql(f"length({c})", given), "text"
    ),
    "expect_column_value_lengths_to_equal": _value_plan(
        "column_values.value_length.equals", _length_differs_sql, "text"
    ),
    "expect_column_values_to_be_unique": _unique_plan,
    "expect_column_pair_values_a_to_be_greater_than_b": _pair_plan(
        "column_pair_values.a_greater_than_b", lambda given: ">=" if given.get("or_equal") else ">"
    ),
    "expect_column_pair_values_to_be_equal": _pair_plan("column_pair_values.equal", lambda _: "=", "text"),
    "expect_compound_columns_to_be_unique": _compound_unique_plan,
}
"""Plans by type of expectation."""
