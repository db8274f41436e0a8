"""SQL plans of expectations on a whole column (its mean, its different values) and on the table."""

from collections.abc import Callable, Mapping

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
from tasks.validation.rules.sql_row_rules import checked_value_set, in_set_sql
from tasks.validation.rules.suites import Expectation

_NOT_IN_SET, _MISSING = "column.distinct_values.not_in_set", "column.distinct_values.missing_from_column"


def _aggregate_plan(metric: str, function: str, *, measured: bool = False) -> PlanFactory:
    """Plan an aggregate; a `measured` one is a float, and else a value or a sum of values as pandas holds them."""

    def make(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
        if not found <= {"whole", "double"}:
            return None
        column = str(expectation.kwargs["column"])
        asked = f"{function}({sql.quoted_name(column)})"

        def metrics(answers: QueryResults) -> dict[str, object]:
            value = answers.value(asked)
            if not measured:
                return {metric: answers.as_pandas_value(column, value)}
            return {metric: float("nan") if value is None else float(str(value))}

        return SqlPlan((asked,), metrics)

    return make


def _distinct_count_plan(metric: str, share: Callable[[int, int], float]) -> PlanFactory:
    """Plan a number that follows from how many values a column has, and how many different ones."""

    def make(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
        if "other" in found:
            return None
        column = str(expectation.kwargs["column"])
        filled, domain = f"count({sql.quoted_name(column)})", f"{sql.quoted_name(column)} IS NOT NULL"
        return SqlPlan(
            (filled,),
            lambda answers: {metric: share(answers.count_distinct((column,), domain), as_count(answers.value(filled)))},
        )

    return make


def _non_null_share_plan(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan:
    filled = f"count({sql.quoted_name(str(expectation.kwargs['column']))})"
    return SqlPlan(
        (filled,),
        lambda answers: {
            "column.non_null_proportion": as_count(answers.value(filled)) / as_count(answers.value(ROW_COUNT_SQL))
        },
    )


def _quantile_plan(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
    ranges, column = expectation.kwargs["quantile_ranges"], str(expectation.kwargs["column"])
    if not found <= {"whole", "double"} or expectation.kwargs.get("allow_relative_error"):
        return None
    shares = ranges["quantiles"] if isinstance(ranges, Mapping) else ()
    if not all(sql.is_number(each) and 0 <= each <= 1 for each in shares):
        return None
    return _rank_plan(column, "column.quantile_values", lambda last: [round(last * each) for each in shares], list)


def _median_plan(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
    if not found <= {"whole", "double"}:
        return None
    column = str(expectation.kwargs["column"])
    return _rank_plan(column, "column.median", lambda last: [last // 2, (last + 1) // 2], lambda both: sum(both) / 2)


def _rank_plan(
    column: str, metric: str, ranks: Callable[[int], list[int]], told: Callable[[list[float]], object]
) -> SqlPlan:
    filled = f"count({sql.quoted_name(column)})"

    def metrics(answers: QueryResults) -> dict[str, object]:
        values = answers.values_at_ranks(column, ranks(as_count(answers.value(filled)) - 1))
        return {metric: told([as_number(answers.as_pandas_value(column, each)) for each in values])}

    return SqlPlan((filled,), metrics)


def _distinct_set_plan(*, check_unexpected: bool, check_missing: bool) -> PlanFactory:
    """Plan a comparison of a column's different values with a set, for unexpected values, missing ones, or both."""

    def make(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan | None:
        if found != {"text"} and not found <= {"whole", "double"}:
            return None
        column = str(expectation.kwargs["column"])
        arguments = {**expectation.kwargs, "kinds": found}
        expected, inside = checked_value_set(arguments), in_set_sql(sql.quoted_name(column), arguments)
        outside = f"NOT {inside}"

        def metrics(answers: QueryResults) -> dict[str, object]:
            found: dict[str, object] = {}
            if check_unexpected:
                more = (
                    answers.count_distinct((column,), outside)
                    if as_count(answers.value(count_where_sql(outside)))
                    else 0
                )
                found[f"{_NOT_IN_SET}.count"] = more
                found[_NOT_IN_SET] = answers.distinct_values(column, outside) if more else []
            if check_missing:
                fewer = len(expected) - answers.count_distinct((column,), inside)
                held = answers.distinct_values(column, inside) if fewer else []
                found[f"{_MISSING}.count"] = fewer
                found[_MISSING] = [each for each in expected if each not in held] if fewer else []
            return found

        return SqlPlan((count_where_sql(outside),) * check_unexpected, metrics)

    return make


def _table_plan(expectation: Expectation, found: set[ColumnFamily]) -> SqlPlan:
    return SqlPlan(
        (),
        lambda answers: {
            "table.row_count": answers.value(ROW_COUNT_SQL),
            "table.columns": answers.columns(),
            "table.column_count": len(answers.columns()),
        },
    )


COLUMN_PLANS: Mapping[str, PlanFactory] = {
    "expect_column_mean_to_be_between": _aggregate_plan("column.mean", "avg", measured=True),
    "expect_column_stdev_to_be_between": _aggregate_plan("column.standard_deviation", "stddev_samp", measured=True),
    "expect_column_min_to_be_between": _aggregate_plan("column.min", "min"),
    "expect_column_max_to_be_between": _aggregate_plan("column.max", "max"),
    "expect_column_sum_to_be_between": _aggregate_plan("column.sum", "sum"),
    "expect_column_median_to_be_between": _median_plan,
    "expect_column_quantile_values_to_be_between": _quantile_plan,
    "expect_column_unique_value_count_to_be_between": _distinct_count_plan(
        "column.distinct_values.count", lambda different, _: different
    ),
    "expect_column_proportion_of_unique_values_to_be_between": _distinct_count_plan(
        "column.unique_proportion", lambda different, filled: different / filled
    ),
    "expect_column_proportion_of_non_null_values_to_be_between": _non_null_share_plan,
    "expect_column_distinct_values_to_be_in_set": _distinct_set_plan(check_unexpected=True, check_missing=False),
    "expect_column_distinct_values_to_contain_set": _distinct_set_plan(check_unexpected=False, check_missing=True),
    "expect_column_distinct_values_to_equal_set": _distinct_set_plan(check_unexpected=True, check_missing=True),
    "expect_column_to_exist": _table_plan,
    "expect_table_row_count_to_be_between": _table_plan,
    "expect_table_row_count_to_equal": _table_plan,
    "expect_table_column_count_to_be_between": _table_plan,
    "expect_table_column_count_to_equal": _table_plan,
    "expect_table_columns_to_match_set": _table_plan,
    "expect_table_columns_to_match_ordered_list": _table_plan,
}
"""Plans by type of expectation."""
