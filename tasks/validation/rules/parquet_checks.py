"""Check Parquet files where they lie: one pass for all aggregates, more only for what is asked beyond, or failed.

An expectation without a plan in SQL is computed by the library's pandas engine over its own columns, when these
are few enough values to hold; else it is refused with the remedy. Nothing passes that was not computed.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from tasks.shared.rules import sql
from tasks.validation.rules import outcomes
from tasks.validation.rules.examples import EXAMPLES, named_rows
from tasks.validation.rules.outcomes import Outcome
from tasks.validation.rules.parquet_answers import ParquetAnswers
from tasks.validation.rules.parquet_rows import ParquetRows, to_frame
from tasks.validation.rules.report import CheckReport, CheckResult
from tasks.validation.rules.sql_numbers import NUMBER_PLANS
from tasks.validation.rules.sql_plan import ROWS, Maker, Plan, whole
from tasks.validation.rules.sql_row_rules import ROW_PLANS
from tasks.validation.rules.suites import Expectation, Suite

PLANS: Mapping[str, Maker] = {**ROW_PLANS, **NUMBER_PLANS}
"""The types of expectation that SQL computes."""


@dataclass(frozen=True)
class Library:
    """The two things that are Great Expectations': to check a frame, and to judge metrics."""

    check_each: Callable[[pd.DataFrame, Mapping[int, Expectation], str], dict[int, CheckResult]]
    judge: Callable[[Expectation, Mapping[str, object]], Outcome]


def check_files(rows: ParquetRows, suite: Suite, key: str, library: Library) -> CheckReport:
    """Check Parquet files, with the verdict and the reasons that a frame of the same rows gets.

    Raises:
        Exception: the files cannot be read, as the engine says it: that is no verdict about what is in them.
    """
    there = {n: why for n, each in enumerate(suite.expectations) if (why := _not_there(rows, each, key))}
    plans = {n: _plan(rows, each) for n, each in enumerate(suite.expectations) if n not in there}
    asked = [aggregate for plan in plans.values() if plan for aggregate in plan.aggregates]
    answers = ParquetAnswers(rows, [*_counted(rows, suite, key), *asked])
    count = whole(answers.value(ROWS)) if rows.files else 0
    results, left = dict[int, CheckResult](), dict[int, Expectation]()
    for n, each in enumerate(suite.expectations):
        why = outcomes.EMPTY if not count else there.get(n) or _nothing_in(answers, each, key)
        plan = plans.get(n)
        if why:
            results[n] = outcomes.result(each, reason=why)
        elif plan is None or (found := _by_sql(answers, each, plan, library)) is None:
            left[n] = each
        else:
            results[n] = _judged(rows, each, plan, found, key, count)
    results |= _in_memory(rows, left, key, count, library)
    in_order = tuple(result for _, result in sorted(results.items()))
    return CheckReport(suite.name, count, suite.minimum_rows, len(suite.expectations), in_order)


def _not_there(rows: ParquetRows, expectation: Expectation, key: str) -> str:
    for name in (*expectation.columns, key):
        if name not in rows.kinds:
            return outcomes.missing(name)
        if name in rows.repeated:
            return outcomes.repeated(name)
    return ""


def _nothing_in(answers: ParquetAnswers, expectation: Expectation, key: str) -> str:
    for name in (*expectation.columns, key):
        if not whole(answers.value(f"count({sql.name(name)})")):
            return outcomes.all_null(name)
    return ""


def _counted(rows: ParquetRows, suite: Suite, key: str) -> Iterable[str]:
    columns = dict.fromkeys((*suite.columns, key))
    return (ROWS, *(f"count({sql.name(each)})" for each in columns if each in rows.kinds))


def _plan(rows: ParquetRows, expectation: Expectation) -> Plan | None:
    """Return how SQL computes the expectation, or None: an argument or a column of which it may mean another."""
    maker = PLANS.get(expectation.type)
    try:
        return maker(expectation, {rows.family(each) for each in expectation.columns}) if maker else None
    except (ValueError, KeyError, TypeError):
        return None


def _by_sql(answers: ParquetAnswers, expectation: Expectation, plan: Plan, library: Library) -> Outcome | None:
    """Return what the library says of the metrics; None when SQL or the library does not bear them."""
    try:
        return library.judge(expectation, plan.metrics(answers))
    except Exception:  # an overflow, say: the pandas engine is to say what it makes of it
        return None


def _in_memory(
    rows: ParquetRows, expectations: Mapping[int, Expectation], key: str, count: int, library: Library
) -> dict[int, CheckResult]:
    """Check by the library's pandas engine: those on the same columns together, so that these are read once."""
    results, together = dict[int, CheckResult](), dict[tuple[str, ...], dict[int, Expectation]]()
    for n, each in expectations.items():
        columns = tuple(dict.fromkeys((*each.columns, key)))
        if why := _too_much(each, columns, rows, count):
            results[n] = outcomes.result(each, reason=f"could not be evaluated: on these columns it {why}")
        else:
            together.setdefault(columns, {})[n] = each
    for columns, same in together.items():
        results |= library.check_each(rows.frame(columns), same, key)
    return results


def _too_much(expectation: Expectation, columns: tuple[str, ...], rows: ParquetRows, count: int) -> str:
    """Return why the columns are not read into memory, or ""."""
    if expectation.type.startswith("expect_table_"):  # a part of the columns is another table
        return "is not computed by SQL: use one that docs/checks.md lists"
    if count * len(columns) <= rows.most_cells:
        return ""
    problem = f"is not computed by SQL, and {count:,} rows of {len(columns)} columns are more than the"
    remedy = "use an expectation that docs/checks.md lists, or check a smaller tier"
    return f"{problem} {rows.most_cells:,} values that are read into memory: {remedy}"


def _judged(
    rows: ParquetRows, expectation: Expectation, plan: Plan, found: Outcome, key: str, count: int
) -> CheckResult:
    reason = outcomes.shortfall(expectation, found, count)
    examples = _examples(rows, expectation.columns, plan, key) if reason and plan.broken else ()
    return outcomes.judge(expectation, found, reason, examples)


def _examples(rows: ParquetRows, columns: tuple[str, ...], plan: Plan, key: str) -> Iterable[tuple[str, str]]:
    """Return the first rows, by key, that break the expectation; of repeated values those of the first value."""
    shown = tuple(dict.fromkeys((*columns, key)))
    source, order, where = rows.source(shown), sql.names([key, *columns]), plan.broken
    if plan.distinct:
        by = sql.names(columns)
        groups = sql.select(by, source, f"WHERE {where} GROUP BY {by} HAVING count(*) > 1 ORDER BY {by} LIMIT 1")
        same = " AND ".join(f"g.{sql.name(each)} IS NOT DISTINCT FROM t.{sql.name(each)}" for each in columns)
        source, order = f"{source} JOIN ({groups}) AS g ON {same}", "t." + sql.name(key)
        where = "TRUE"
    found = rows.query(sql.select(_of_t(shown), source, f"WHERE {where} ORDER BY {order} LIMIT {EXAMPLES}"))
    return named_rows(to_frame(found), columns, key)


def _of_t(columns: tuple[str, ...]) -> str:
    return ", ".join(f"t.{sql.name(each)}" for each in columns)
