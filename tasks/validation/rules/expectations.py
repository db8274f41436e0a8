"""Validation of a table by Great Expectations, failing closed. Only this module imports the library.

The library passes what it did not evaluate: an empty table, a column of nulls, a suite without expectations,
`mostly: 0`, a mean without bounds, pairs of which one value is always missing. Here a table passes only when it has
enough rows, no named column is missing or wholly null, and every expectation gave its own result that is True,
without an exception, over at least one value.

A frame is validated by the library's pandas engine without a data context: no project folder, no telemetry, no copy
of the rows. For Parquet files, SQL with the meaning of the pandas engine computes the metrics (`parquet_checks`),
and the library's expectations decide on them; docs/validation.md tells why the library's own SQL engine is not used.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, cast

import pandas as pd

from tasks.validation.rules import outcomes
from tasks.validation.rules.outcomes import ExpectationOutcome, failing_examples
from tasks.validation.rules.parquet_checks import LibraryFunctions, validate_parquet
from tasks.validation.rules.parquet_rows import ParquetRows
from tasks.validation.rules.report import ExpectationResult, ValidationReport
from tasks.validation.rules.suites import Expectation, ExpectationArguments, Suite, read_suite

_MAX_UNEXPECTED_LISTED = 20
_NOT_VALIDATED_TOGETHER = ("expect_column_quantile_values_to_be_between",)


def validate_table(rows: pd.DataFrame | ParquetRows, suite: Suite, *, key: str) -> ValidationReport:
    """Validate a table, with examples of the rows that fail. Bad data never raises: it makes the report fail.

    A frame is not changed. Of Parquet files, only aggregates and up to five rows an expectation come into memory. The
    column `key`, which must exist, identifies a row in the examples.
    """
    if isinstance(rows, ParquetRows):
        return validate_parquet(
            rows, suite, key, LibraryFunctions(validate_frame=_validate_frame, validate_metrics=_validate_metrics)
        )
    results = _validate_frame(rows, dict(enumerate(suite.expectations)), key)
    expected, in_order = len(suite.expectations), tuple(results.values())
    return ValidationReport(suite.name, len(rows), suite.minimum_rows, expected, in_order, suite.left_out)


def parse_suite(text: str | bytes, where: str, kinds: Mapping[str, str] | None = None) -> Suite:
    """Read a suite (`expectations.yaml`) strictly. Takes 4.5 s the first time, for the library's import.

    `kinds` are the kinds of the columns, by column: an expectation on one of them must meet its kind.

    Raises:
        Refusal: every mistake with its line, key, value and remedy: an unknown type or argument with the most
            similar one, a rule that cannot fail, one that does not meet its column's kind, a repeated key or
            expectation.
    """
    fields = {name: kind.__fields__ for name, kind in _library_types().items()}
    known = {name: ExpectationArguments(tuple(f), tuple(n for n in f if f[n].required)) for name, f in fields.items()}
    return read_suite(text, where, known, _library_error, kinds or {})


def _library_error(expectation: Expectation) -> str:
    try:
        _build_expectation(expectation, 0)
    except Exception as error:  # the library's own validation raises errors of many kinds
        return outcomes.one_line_text(error)
    return ""


@cache
def _library_types() -> dict[str, Any]:
    with _without_spark():
        import great_expectations.expectations  # fills the registry
        import great_expectations.util
        import great_expectations.validator.validator
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    # For each decimal it looks through the whole call stack, 1 ms and more, for whether to log a line (1.24.1).
    great_expectations.util.stack = tuple
    return {name: get_expectation_impl(name) for name in list_registered_expectation_implementations()}


@contextmanager
def _without_spark() -> Iterator[None]:
    """Prevent the library from importing pyspark, whose engine is not used here.

    That import takes seconds, warns about pandas 3, and prints that it skips doctests (pyspark 4.3).
    """
    imported = "pyspark" in sys.modules
    if not imported:
        sys.modules["pyspark"] = cast(ModuleType, None)  # so an import of it is an ImportError
    try:
        yield
    finally:
        if not imported:
            del sys.modules["pyspark"]


def _build_expectation(expectation: Expectation, position: int) -> Any:
    """Return the library's expectation, which bears its position in the suite."""
    arguments = {word: _lists_for_tuples(value) for word, value in expectation.kwargs.items()}
    return _library_types()[expectation.type](**arguments, meta={"position": position})


def _validate_frame(
    frame: pd.DataFrame, expectations: Mapping[int, Expectation], key: str
) -> dict[int, ExpectationResult]:
    """Check a frame by the library's pandas engine; the results by position, in the order of `expectations`."""
    blocked = {n: why for n, each in expectations.items() if (why := _blocking_reason(frame, each, key))}
    found = _run_library(frame, {n: each for n, each in expectations.items() if n not in blocked})
    results = {}
    for n, each in expectations.items():
        if n in blocked or len(found[n]) != 1:
            results[n] = outcomes.expectation_result(each, reason=blocked.get(n, outcomes.NO_RESULT))
            continue
        reason = outcomes.expectation_failure_reason(each, found[n][0], len(frame))
        examples = failing_examples(frame, each, found[n][0].details, key) if reason else ()
        results[n] = outcomes.evaluated_result(each, found[n][0], reason, examples)
    return results


def _blocking_reason(frame: pd.DataFrame, expectation: Expectation, key: str) -> str:
    """Return why the expectation cannot be evaluated on this table, or ""."""
    if frame.empty:
        return outcomes.EMPTY_TABLE
    for name in (*expectation.columns, key):
        if name not in frame.columns:
            return outcomes.MISSING_COLUMN.format(name)
        if (found := frame[name]).ndim != 1:
            return outcomes.REPEATED_COLUMN.format(name)
        if found.isna().all():
            return outcomes.NULL_COLUMN.format(name)
    return ""


def _run_library(frame: pd.DataFrame, expectations: Mapping[int, Expectation]) -> dict[int, list[ExpectationOutcome]]:
    """Return the library's results by position. When validating together fails, each is validated alone."""
    found: dict[int, list[ExpectationOutcome]] = {n: [] for n in expectations}
    configurations = {}
    for n, each in expectations.items():
        try:
            configurations[n] = _build_expectation(each, n).configuration
        except Exception as error:  # any error of the library is a failed expectation, with its text
            found[n] = [outcomes.failed_outcome(error)]
    for some in _validation_rounds(configurations):
        try:
            found |= _validate(frame, some)
        except Exception:  # each is validated alone, so that the others keep their results
            found |= {n: _validate_alone(frame, n, each) for n, each in some.items()}
    return found


def _validation_rounds(configurations: Mapping[int, Any]) -> list[dict[int, Any]]:
    """Split the expectations so that two which the library confuses are never validated together.

    With two quantile expectations on one column, the second one gets the quantiles of the first (1.24.1), because
    the metric's key is made before the quantiles are added to it.
    """
    rounds, before = [dict[int, Any]()], Counter[tuple[str, str]]()
    for n, each in configurations.items():
        rule = (each.type, str(each.kwargs.get("column")))
        place = before[rule] if each.type in _NOT_VALIDATED_TOGETHER else 0
        before[rule] += 1
        rounds += [{} for _ in range(place + 1 - len(rounds))]
        rounds[place][n] = each
    return rounds


def _validate_alone(frame: pd.DataFrame, position: int, configuration: Any) -> list[ExpectationOutcome]:
    try:
        return _validate(frame, {position: configuration})[position]
    except Exception as error:
        return [outcomes.failed_outcome(error)]


def _validate(frame: pd.DataFrame, configurations: Mapping[int, Any]) -> dict[int, list[ExpectationOutcome]]:
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validator import Validator

    if not configurations:
        return {}
    validator = Validator(execution_engine=PandasExecutionEngine(batch_data_dict={"rows": frame}))
    validator.metrics_calculator.show_progress_bars = False
    found: dict[int, list[ExpectationOutcome]] = {n: [] for n in configurations}
    for outcome in validator.graph_validate(
        configurations=list(configurations.values()),
        runtime_configuration={"result_format": _result_format(), "catch_exceptions": True},
    ):  # in an order of its own
        found[outcome.expectation_config.meta["position"]].append(_to_outcome(outcome))
    return found


def _validate_metrics(expectation: Expectation, metrics: Mapping[str, object]) -> ExpectationOutcome:
    """Let the library decide on metrics that were computed elsewhere, by the names of its pandas engine.

    Raises:
        KeyError: it needs a metric that is missing.
    """
    built = _build_expectation(expectation, 0)  # first, since the library is to be imported as `_library_types` does it
    from great_expectations.execution_engine import PandasExecutionEngine

    engine = PandasExecutionEngine()
    dependencies = built.get_validation_dependencies(
        execution_engine=engine, runtime_configuration={"result_format": _result_format()}
    ).metric_configurations
    outcome = built.metrics_validate(
        metrics={configuration.id: metrics[name] for name, configuration in dependencies.items()},
        runtime_configuration={"result_format": _result_format()},
        execution_engine=engine,
    )
    return _to_outcome(outcome)


def _result_format() -> dict[str, object]:
    return {"result_format": "BASIC", "partial_unexpected_count": _MAX_UNEXPECTED_LISTED}


def _to_outcome(found: Any) -> ExpectationOutcome:
    return ExpectationOutcome(found.success, dict(found.result or {}), _exception_text(found.exception_info or {}))


def _exception_text(information: Mapping[str, Any]) -> str:
    """Return the text of an exception of the expectation or of one of its metrics: the first in alphabetical order,
    because the library returns them in no order."""
    exceptions = (each for each in (information, *information.values()) if isinstance(each, Mapping))
    words = [
        str(e.get("exception_message")) for e in exceptions if e.get("raised_exception") or e.get("exception_message")
    ]
    return outcomes.one_line_text(min(words)) if words else ""


def _lists_for_tuples(value: object) -> object:
    """Return the value with lists in place of tuples, as the library expects."""
    if isinstance(value, Mapping):
        return {word: _lists_for_tuples(each) for word, each in value.items()}
    return [_lists_for_tuples(each) for each in value] if isinstance(value, tuple) else value
