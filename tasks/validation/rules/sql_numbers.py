"""Plans of the expectations of a column as a whole (its mean, its different values) and of the table."""

from collections.abc import Callable, Mapping

from tasks.shared.rules import sql
from tasks.validation.rules.parquet_rows import Family
from tasks.validation.rules.sql_plan import ROWS, Answers, Maker, Plan, counted, number, whole
from tasks.validation.rules.sql_row_rules import in_set, value_set
from tasks.validation.rules.suites import Expectation

_NOT_IN_SET, _MISSING = "column.distinct_values.not_in_set", "column.distinct_values.missing_from_column"


def _aggregate(metric: str, function: str, *, measured: bool = False) -> Maker:
    """Plan an aggregate; a `measured` one is a float, and else a value or a sum of values as pandas holds them."""

    def make(expectation: Expectation, found: set[Family]) -> Plan | None:
        if not found <= {"whole", "double"}:
            return None
        column = str(expectation.kwargs["column"])
        asked = f"{function}({sql.name(column)})"

        def metrics(answers: Answers) -> dict[str, object]:
            value = answers.value(asked)
            if not measured:
                return {metric: answers.seen(column, value)}
            return {metric: float("nan") if value is None else float(str(value))}

        return Plan((asked,), metrics)

    return make


def _of_groups(metric: str, share: Callable[[int, int], float]) -> Maker:
    """Plan a number that follows from how many values a column has, and how many different ones."""

    def make(expectation: Expectation, found: set[Family]) -> Plan | None:
        if "other" in found:
            return None
        column = str(expectation.kwargs["column"])
        filled, domain = f"count({sql.name(column)})", f"{sql.name(column)} IS NOT NULL"
        return Plan(
            (filled,),
            lambda answers: {metric: share(answers.different((column,), domain), whole(answers.value(filled)))},
        )

    return make


def _filled_share(expectation: Expectation, found: set[Family]) -> Plan:
    filled = f"count({sql.name(str(expectation.kwargs['column']))})"
    return Plan(
        (filled,),
        lambda answers: {"column.non_null_proportion": whole(answers.value(filled)) / whole(answers.value(ROWS))},
    )


def _quantiles(expectation: Expectation, found: set[Family]) -> Plan | None:
    ranges, column = expectation.kwargs["quantile_ranges"], str(expectation.kwargs["column"])
    if not found <= {"whole", "double"} or expectation.kwargs.get("allow_relative_error"):
        return None
    shares = ranges["quantiles"] if isinstance(ranges, Mapping) else ()
    if not all(sql.is_number(each) and 0 <= each <= 1 for each in shares):
        return None
    return _ranks(column, "column.quantile_values", lambda last: [round(last * each) for each in shares], list)


def _median(expectation: Expectation, found: set[Family]) -> Plan | None:
    if not found <= {"whole", "double"}:
        return None
    column = str(expectation.kwargs["column"])
    return _ranks(column, "column.median", lambda last: [last // 2, (last + 1) // 2], lambda both: sum(both) / 2)


def _ranks(column: str, metric: str, ranks: Callable[[int], list[int]], told: Callable[[list[float]], object]) -> Plan:
    filled = f"count({sql.name(column)})"

    def metrics(answers: Answers) -> dict[str, object]:
        values = answers.ranked(column, ranks(whole(answers.value(filled)) - 1))
        return {metric: told([number(answers.seen(column, each)) for each in values])}

    return Plan((filled,), metrics)


def _distinct(*, strangers: bool, absent: bool) -> Maker:
    """Plan a comparison of a column's different values with a set: `strangers` to it, and those `absent`."""

    def make(expectation: Expectation, found: set[Family]) -> Plan | None:
        if found != {"text"} and not found <= {"whole", "double"}:
            return None
        column = str(expectation.kwargs["column"])
        arguments = {**expectation.kwargs, "kinds": found}
        expected, inside = value_set(arguments), in_set(sql.name(column), arguments)
        outside = f"NOT {inside}"

        def metrics(answers: Answers) -> dict[str, object]:
            found: dict[str, object] = {}
            if strangers:
                more = answers.different((column,), outside) if whole(answers.value(counted(outside))) else 0
                found[f"{_NOT_IN_SET}.count"] = more
                found[_NOT_IN_SET] = answers.listed(column, outside) if more else []
            if absent:
                fewer = len(expected) - answers.different((column,), inside)
                held = answers.listed(column, inside) if fewer else []
                found[f"{_MISSING}.count"] = fewer
                found[_MISSING] = [each for each in expected if each not in held] if fewer else []
            return found

        return Plan((counted(outside),) * strangers, metrics)

    return make


def _table(expectation: Expectation, found: set[Family]) -> Plan:
    return Plan(
        (),
        lambda answers: {
            "table.row_count": answers.value(ROWS),
            "table.columns": answers.columns(),
            "table.column_count": len(answers.columns()),
        },
    )


NUMBER_PLANS: Mapping[str, Maker] = {
    "expect_column_mean_to_be_between": _aggregate("column.mean", "avg", measured=True),
    "expect_column_stdev_to_be_between": _aggregate("column.standard_deviation", "stddev_samp", measured=True),
    "expect_column_min_to_be_between": _aggregate("column.min", "min"),
    "expect_column_max_to_be_between": _aggregate("column.max", "max"),
    "expect_column_sum_to_be_between": _aggregate("column.sum", "sum"),
    "expect_column_median_to_be_between": _median,
    "expect_column_quantile_values_to_be_between": _quantiles,
    "expect_column_unique_value_count_to_be_between": _of_groups(
        "column.distinct_values.count", lambda different, _: different
    ),
    "expect_column_proportion_of_unique_values_to_be_between": _of_groups(
        "column.unique_proportion", lambda different, filled: different / filled
    ),
    "expect_column_proportion_of_non_null_values_to_be_between": _filled_share,
    "expect_column_distinct_values_to_be_in_set": _distinct(strangers=True, absent=False),
    "expect_column_distinct_values_to_contain_set": _distinct(strangers=False, absent=True),
    "expect_column_distinct_values_to_equal_set": _distinct(strangers=True, absent=True),
    "expect_column_to_exist": _table,
    "expect_table_row_count_to_be_between": _table,
    "expect_table_row_count_to_equal": _table,
    "expect_table_column_count_to_be_between": _table,
    "expect_table_column_count_to_equal": _table,
    "expect_table_columns_to_match_set": _table,
    "expect_table_columns_to_match_ordered_list": _table,
}
"""Plans by type of expectation."""
