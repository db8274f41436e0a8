"""Validate Parquet files by SQL: one pass for all aggregates, and more queries only where one needs or fails it.

The library's pandas engine computes an expectation without a plan in SQL over its own columns, when these fit in
memory; otherwise the expectation fails with the remedy. An expectation that was not computed never passes.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.shared.rules import sql
from tasks.validation.rules import outcomes
from tasks.validation.rules.outcomes import MAX_EXAMPLES, ExpectationOutcome, rows_with_keys
from tasks.validation.rules.parquet_rows import ParquetRows, to_frame
from tasks.validation.rules.report import ExpectationResult, ValidationReport
from tasks.validation.rules.sql_numbers import COLUMN_PLANS
from tasks.validation.rules.sql_plan import ROW_COUNT_SQL, PlanFactory, QueryResults, SqlPlan, as_count
from tasks.validation.rules.sql_row_rules import ROW_PLANS
from tasks.validation.rules.suites import Expectation, Suite

SQL_PLANS: Mapping[str, PlanFactory] = {**ROW_PLANS, **COLUMN_PLANS}
"""The types of expectation that SQL computes."""


@dataclass(frozen=True)
class LibraryFunctions:
    """The two functions of Great Expectations that are used: validate a frame, and decide on metrics."""

    validate_frame: Callable[[pd.DataFrame, Mapping[int, Expectation], str], dict[int, ExpectationResult]]
    validate_metrics: Callable[[Expectation, Mapping[str, object]], ExpectationOutcome]


def validate_parquet(rows: ParquetRows, suite: Suite, key: str, library: LibraryFunctions) -> ValidationReport:
    """Validate Parquet files. The result is the same as for a frame of the same rows.

    Raises:
        Exception: the engine cannot read the files. That is not a verdict about their content.
    """
    missing = {n: why for n, each in enumerate(suite.expectations) if (why := _missing_column_reason(rows, each, key))}
    plans = {n: _sql_plan(rows, each) for n, each in enumerate(suite.expectations) if n not in missing}
    asked = [aggregate for plan in plans.values() if plan for aggregate in plan.aggregates]
    answers = QueryResults(rows, [*_count_aggregates(rows, suite, key), *asked])
    count = as_count(answers.value(ROW_COUNT_SQL)) if rows.files else 0
    results, left = dict[int, ExpectationResult](), dict[int, Expectation]()
    for n, each in enumerate(suite.expectations):
        why = outcomes.EMPTY_TABLE if not count else missing.get(n) or _all_null_reason(answers, each, key)
        plan = plans.get(n)
        if why:
            results[n] = outcomes.expectation_result(each, reason=why)
        elif plan is None or (found := _outcome_by_sql(answers, each, plan, library)) is None:
            left[n] = each
        else:
            results[n] = _sql_check_result(rows, each, plan, found, key, count)
    results |= _in_memory(rows, left, key, count, library)
    in_order = tuple(result for _, result in sorted(results.items()))
    return ValidationReport(suite.name, count, suite.minimum_rows, len(suite.expectations), in_order, suite.left_out)


def _missing_column_reason(rows: ParquetRows, expectation: Expectation, key: str) -> str:
    for name in (*expectation.columns, key):
        if name not in rows.kinds:
            return outcomes.MISSING_COLUMN.format(name)
        if name in rows.repeated:
            return outcomes.REPEATED_COLUMN.format(name)
    return ""


def _all_null_reason(answers: QueryResults, expectation: Expectation, key: str) -> str:
    for name in (*expectation.columns, key):
        if not as_count(answers.value(f"count({sql.quoted_name(name)})")):
            return outcomes.NULL_COLUMN.format(name)
    return ""


def _count_aggregates(rows: ParquetRows, suite: Suite, key: str) -> Iterable[str]:
    columns = dict.fromkeys((*suite.columns, key))
    return (ROW_COUNT_SQL, *(f"count({sql.quoted_name(each)})" for each in columns if each in rows.kinds))


def _sql_plan(rows: ParquetRows, expectation: Expectation) -> SqlPlan | None:
    """Return how SQL computes the expectation, or None: an argument or a column of which it may mean another."""
    maker = SQL_PLANS.get(expectation.type)
    try:
        return maker(expectation, {rows.family(each) for each in expectation.columns}) if maker else None
    except (ValueError, KeyError, TypeError):
        return None


def _outcome_by_sql(
    answers: QueryResults, expectation: Expectation, plan: SqlPlan, library: LibraryFunctions
) -> ExpectationOutcome | None:
    """Return the library's outcome from the metrics of SQL; None when SQL or the library raises an error."""
    try:
        return library.validate_metrics(expectation, plan.metrics(answers))
    except Exception:  # for example an overflow: the pandas engine decides
        return None


def _in_memory(
    rows: ParquetRows, expectations: Mapping[int, Expectation], key: str, count: int, library: LibraryFunctions
) -> dict[int, ExpectationResult]:
    """Validate by the library's pandas engine; expectations on the same columns together, which are read once."""
    results, together = dict[int, ExpectationResult](), dict[tuple[str, ...], dict[int, Expectation]]()
    for n, each in expectations.items():
        columns = tuple(dict.fromkeys((*each.columns, key)))
        if why := _memory_refusal(each, columns, rows, count):
            results[n] = outcomes.expectation_result(each, reason=f"could not be evaluated: on these columns it {why}")
        else:
            together.setdefault(columns, {})[n] = each
    for columns, same in together.items():
        results |= library.validate_frame(rows.frame(columns), same, key)
    return results


def _memory_refusal(expectation: Expectation, columns: tuple[str, ...], rows: ParquetRows, count: int) -> str:
    """Return why the columns are not read into memory, or ""."""
    if expectation.type.startswith("expect_table_"):  # on a part of the columns it would mean another table
        return "is not computed by SQL: use one that docs/validation.md lists"
    if count * len(columns) <= rows.max_cells:
        return ""
    problem = f"is not computed by SQL, and {count:,} rows of {len(columns)} columns are more than the"
    remedy = "use an expectation that docs/validation.md lists, or check a smaller tier"
    return f"{problem} {rows.max_cells:,} values that are read into memory: {remedy}"


def _sql_check_result(
    rows: ParquetRows, expectation: Expectation, plan: SqlPlan, found: ExpectationOutcome, key: str, count: int
) -> ExpectationResult:
    reason = outcomes.expectation_failure_reason(expectation, found, count)
    examples = _examples(rows, expectation.columns, plan, key) if reason and plan.violation_condition else ()
    return outcomes.evaluated_result(expectation, found, reason, examples)


def _examples(rows: ParquetRows, columns: tuple[str, ...], plan: SqlPlan, key: str) -> Iterable[tuple[str, str]]:
    """Return the first rows, by key, that break the expectation; of repeated values those of the first value."""
    shown = tuple(dict.fromkeys((*columns, key)))
    source, order, where = rows.source(shown), sql.quoted_names([key, *columns]), plan.violation_condition
    if plan.distinct:
        by = sql.quoted_names(columns)
        groups = sql.select_sql(by, source, f"WHERE {where} GROUP BY {by} HAVING count(*) > 1 ORDER BY {by} LIMIT 1")
        same = " AND ".join(
            f"g.{sql.quoted_name(each)} IS NOT DISTINCT FROM t.{sql.quoted_name(each)}" for each in columns
        )
        source, order = f"{source} JOIN ({groups}) AS g ON {same}", "t." + sql.quoted_name(key)
        where = "TRUE"
    chosen = ", ".join(f"t.{sql.quoted_name(each)}" for each in shown)
    found = rows.query(sql.select_sql(chosen, source, f"WHERE {where} ORDER BY {order} LIMIT {MAX_EXAMPLES}"))
    return rows_with_keys(to_frame(found), columns, key)
