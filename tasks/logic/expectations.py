"""Expectations of a table, in Great Expectations' own words, that fail closed; its only import is here.

The library passes what it did not look at: an empty table, a column of nulls, a suite without expectations,
`mostly: 0`, a mean without bounds, pairs of which one is always missing. Here a check passes only when there
are rows enough, every column named is there and not wholly null, and every expectation gave a result of its
own that is True, without an exception, over at least one value.

It is run by its execution engine alone, without a data context: no project folder, no telemetry, no copy of
the rows kept. That also leaves out a hash of the whole table, which took longer than the checks themselves.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from tasks.logic.checks_report import CheckReport, CheckResult
from tasks.logic.suites import Arguments, Expectation, Suite, read_suite

__all__ = ["CheckReport", "CheckResult", "Expectation", "Suite", "check", "parse_suite"]

EXAMPLES = 5
"""How many rows that break an expectation are shown."""

_BY_POSITION = ("expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing")
_LISTED, _LONGEST = 20, 200
_NULL = object()


def check(frame: pd.DataFrame, suite: Suite, *, key: str) -> CheckReport:
    """Check a table and say row by row what is wrong. Never raises for what is in the data: it fails instead.

    Args:
        frame: the rows, one column a name; left as it is.
        suite: what is expected of them.
        key: the column that names a row in the examples; it must be there.
    """
    blocked = {n: why for n, each in enumerate(suite.expectations) if (why := _obstacle(frame, each, key))}
    open_ones = {n: each for n, each in enumerate(suite.expectations) if n not in blocked}
    try:
        outcomes = _evaluate(frame, open_ones) if open_ones else {}
    except Exception as error:  # whatever the library throws is a failed check, with its words
        outcomes, blocked = {}, {**dict.fromkeys(open_ones, f"could not be evaluated: {_brief(error)}"), **blocked}
    results = tuple(
        _result(each, reason=blocked.get(n, "Great Expectations gave no result, or more than one"))
        if n in blocked or len(outcomes.get(n, ())) != 1
        else _judge(frame, each, outcomes[n][0], key)
        for n, each in enumerate(suite.expectations)
    )
    return CheckReport(suite.name, len(frame), suite.minimum_rows, len(suite.expectations), results)


def parse_suite(text: str | bytes, where: str) -> Suite:
    """Read a suite (`expectations.yaml`) strictly. Takes 4.5 s the first time, for the library's import.

    Args:
        text: YAML with `name`, `minimum_rows` and `expectations`, each of these with `type` and `kwargs`.
        where: the file's name, for messages.

    Raises:
        Refusal: every mistake with its line, key, value and remedy: an unknown type or argument with the
            nearest there is, a rule that could not fail, a key or an expectation that is there twice.
    """
    taken = {name: kind.__fields__ for name, kind in _library_types().items()}
    known = {name: Arguments(tuple(f), tuple(n for n in f if f[n].required)) for name, f in taken.items()}
    return read_suite(text, where, known, _complaint)


def _complaint(expectation: Expectation) -> str:
    try:
        _built(expectation, 0)
    except Exception as error:  # the library's own validation raises errors of many kinds
        return _brief(error)
    return ""


@cache
def _library_types() -> dict[str, Any]:
    import great_expectations.expectations  # noqa: F401 - fills the registry
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    return {name: get_expectation_impl(name) for name in list_registered_expectation_implementations()}


def _built(expectation: Expectation, position: int) -> Any:
    """Return the library's configuration of an expectation, which bears its position in the suite."""
    arguments = {word: _plain(value) for word, value in expectation.kwargs.items()}
    return _library_types()[expectation.type](**arguments, meta={"position": position}).configuration


def _obstacle(frame: pd.DataFrame, expectation: Expectation, key: str) -> str:
    """Return why the expectation cannot be evaluated on this table, or ""."""
    if frame.empty:
        return "not evaluated: the table is empty"
    for name in (*expectation.columns, key):
        if name not in frame.columns:
            return f"not evaluated: column {name!r} is missing"
        if (found := frame[name]).ndim != 1:
            return f"not evaluated: column {name!r} is there more than once"
        if found.isna().all():
            return f"not evaluated: column {name!r} is null in every row"
    return ""


def _evaluate(frame: pd.DataFrame, expectations: Mapping[int, Expectation]) -> dict[int, list[Any]]:
    """Return the library's results by position in the suite: it returns them in an order of its own."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validator import Validator

    validator = Validator(execution_engine=PandasExecutionEngine(batch_data_dict={"rows": frame}))
    validator.metrics_calculator.show_progress_bars = False
    wanted = {"result_format": "BASIC", "partial_unexpected_count": _LISTED}
    outcomes: dict[int, list[Any]] = {}
    for outcome in validator.graph_validate(
        configurations=[_built(each, position) for position, each in expectations.items()],
        runtime_configuration={"result_format": wanted, "catch_exceptions": True},
    ):
        outcomes.setdefault(outcome.expectation_config.meta["position"], []).append(outcome)
    return outcomes


def _judge(frame: pd.DataFrame, expectation: Expectation, outcome: Any, key: str) -> CheckResult:
    details = dict(outcome.result or {})
    count, percent = details.get("unexpected_count"), details.get("unexpected_percent")
    reason = _shortfall(expectation, details, outcome, len(frame))
    return _result(
        expectation,
        reason=reason,
        observed=_observed(details),
        unexpected_count=None if count is None else int(count),
        unexpected_percent=None if percent is None else float(percent),
        examples=tuple(_examples(frame, expectation, details, key)) if reason else (),
    )


def _result(expectation: Expectation, *, reason: str, **rest: Any) -> CheckResult:
    columns = ", ".join(expectation.columns)
    return CheckResult(expectation.type, columns, expectation.kwargs_text, passed=not reason, reason=reason, **rest)


def _shortfall(expectation: Expectation, details: Mapping[str, Any], outcome: Any, rows: int) -> str:
    """Return why the outcome is no pass, or ""."""
    if error := _error(outcome.exception_info):
        return f"could not be evaluated: {error}"
    if not details and expectation.type != "expect_column_to_exist":
        return "nothing was measured"
    if "element_count" in details and (problem := _unmeasured(details, rows)):
        return problem
    observed = details.get("observed_value")
    if isinstance(observed, float) and not math.isfinite(observed):
        return f"observed {observed}, which is not a finite number"
    holds = isinstance(outcome.success, bool | np.bool_) and bool(outcome.success)
    return "" if holds else _failure(expectation, details)


def _unmeasured(details: Mapping[str, Any], rows: int) -> str:
    if details["element_count"] != rows:
        return f"only {details['element_count']:,} of {rows:,} rows were looked at"
    return "" if _evaluated(details) > 0 else "no row has the values that it compares"


def _failure(expectation: Expectation, details: Mapping[str, Any]) -> str:
    if "element_count" not in details:
        return f"observed {_observed(details)}, expected {expectation.kwargs_text}"
    allowed = 100 * (1 - float(str(expectation.kwargs.get("mostly", 1))))
    percent = details.get("unexpected_percent") or 0.0
    return (
        f"{details.get('unexpected_count'):,} of {_evaluated(details):,} values ({percent:.3g} %) "
        f"are unexpected, at most {allowed:.3g} % may be"
    )


def _evaluated(details: Mapping[str, Any]) -> int:
    return int(details["element_count"]) - int(details.get("missing_count") or 0)


def _error(information: Mapping[str, Any]) -> str:
    """Return the last line of the first exception: of the expectation itself, or of a metric beneath it."""
    for each in (information, *information.values()):
        if isinstance(each, Mapping) and (each.get("raised_exception") or each.get("exception_message")):
            return _brief(str(each.get("exception_message")))
    return ""


def _observed(details: Mapping[str, Any]) -> str:
    if details.get("observed_value") is not None:
        return _shown(details["observed_value"])
    if "element_count" in details:
        return f"{_evaluated(details):,} values"
    listed = details.get("partial_unexpected_list") or details.get("partial_missing_list")
    return _brief(", ".join(_shown(value) for value in listed)) if listed else _shown(details.get("details", ""))


def _examples(
    frame: pd.DataFrame, expectation: Expectation, details: Mapping[str, Any], key: str
) -> Iterator[tuple[str, str]]:
    """Find the rows that hold the unexpected values: a row with the same values breaks the same rule."""
    columns, found = expectation.columns, 0
    values = details.get("partial_unexpected_list", ())
    if expectation.type in _BY_POSITION or not columns:
        yield from (("", _shown(value)) for value in values[:EXAMPLES])
        return
    tuples = (value for value in map(_comparable, values) if len(value) == len(columns))
    for value in dict.fromkeys(tuples):
        for row in np.flatnonzero(_holding(frame, columns, value))[: EXAMPLES - found]:
            found += 1
            cells = [_shown(frame[name].iloc[row]) for name in columns]
            shown = cells[0] if len(cells) == 1 else ", ".join(map("{}={}".format, columns, cells))
            yield _shown(frame[key].iloc[row]), shown


def _comparable(value: Any) -> tuple[Hashable, ...]:
    """Return an unexpected value as the library lists it (scalar, pair or mapping) as one tuple of columns."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
    scalars = (part if pd.api.types.is_scalar(part) else repr(part) for part in parts)
    return tuple(_NULL if pd.isna(part) else part for part in scalars)


def _holding(frame: pd.DataFrame, columns: tuple[str, ...], value: tuple[Hashable, ...]) -> Any:
    """Return which rows (rows,) hold exactly these values in these columns."""
    holds = np.ones(len(frame), dtype=bool)
    for name, part in zip(columns, value, strict=True):
        same = frame[name].isna() if part is _NULL else (frame[name] == part).fillna(False)
        holds &= same.to_numpy(dtype=bool)
    return holds


def _plain(value: object) -> object:
    """Return the value with lists for tuples, as the library takes them."""
    if isinstance(value, Mapping):
        return {word: _plain(each) for word, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _shown(value: object) -> str:
    """Return a value as people read it: floats at 6 digits, numpy's scalars as Python's."""
    bare = value.item() if isinstance(value, np.generic) else value
    return f"{bare:.6g}" if isinstance(bare, float) else _brief(bare)


def _brief(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
