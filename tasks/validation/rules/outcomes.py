"""The outcome of one expectation: from the library's result to one that fails closed, for every engine."""

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.validation.rules.report import ExpectationResult
from tasks.validation.rules.suites import Expectation

NO_RESULT = "Great Expectations gave no result, or more than one"
EMPTY_TABLE = "not evaluated: the table is empty"
MISSING_COLUMN = "not evaluated: column {!r} is missing"
REPEATED_COLUMN = "not evaluated: column {!r} is there more than once"
NULL_COLUMN = "not evaluated: column {!r} is null in every row"
_LONGEST = 200


@dataclass(frozen=True)
class ExpectationOutcome:
    """The library's outcome of one expectation, from metrics that any engine computed.

    `details` is its result in the format BASIC, `error` the text of an exception ("" for none).
    """

    success: object
    details: Mapping[str, Any]
    error: str = ""


def failed_outcome(error: object) -> ExpectationOutcome:
    """Return the outcome of an expectation that could not be evaluated."""
    return ExpectationOutcome(success=False, details={}, error=one_line_text(error) or type(error).__name__)


def expectation_failure_reason(expectation: Expectation, outcome: ExpectationOutcome, rows: int) -> str:
    """Return why the outcome, on a table of so many rows, is a failure; "" for a pass."""
    details = outcome.details
    if outcome.error:
        return f"could not be evaluated: {outcome.error}"
    if not details and expectation.type != "expect_column_to_exist":
        return "nothing was measured"
    if "element_count" in details and (problem := _not_measured_reason(details, rows)):
        return problem
    observed = details.get("observed_value")
    if isinstance(observed, float) and not math.isfinite(observed):
        return f"observed {observed}, which is not a finite number"
    passed = isinstance(outcome.success, bool | np.bool_) and bool(outcome.success)
    return "" if passed else _failure_text(expectation, details)


def evaluated_result(
    expectation: Expectation, outcome: ExpectationOutcome, reason: str, examples: Iterable[tuple[str, str]] = ()
) -> ExpectationResult:
    """Return the result of an evaluated expectation: it passes when `reason` is empty."""
    count, percent = outcome.details.get("unexpected_count"), outcome.details.get("unexpected_percent")
    return expectation_result(
        expectation,
        reason=reason,
        observed=_observed(outcome.details),
        unexpected_count=None if count is None else int(count),
        unexpected_percent=None if percent is None else float(percent),
        examples=tuple(examples),
    )


def expectation_result(expectation: Expectation, *, reason: str, **rest: Any) -> ExpectationResult:
    """Return the result of an expectation: it passes when `reason` is empty."""
    columns = ", ".join(expectation.columns)
    return ExpectationResult(
        expectation.type, columns, expectation.kwargs_text, passed=not reason, reason=reason, **rest
    )


def _not_measured_reason(details: Mapping[str, Any], rows: int) -> str:
    if details["element_count"] != rows:
        return f"only {details['element_count']:,} of {rows:,} rows were checked"
    return "" if _evaluated(details) > 0 else "no row has the values that it compares"


def _failure_text(expectation: Expectation, details: Mapping[str, Any]) -> str:
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


def _observed(details: Mapping[str, Any]) -> str:
    if details.get("observed_value") is not None:
        return display_value(details["observed_value"])
    if "element_count" in details:
        return f"{_evaluated(details):,} values"
    listed = details.get("partial_unexpected_list") or details.get("partial_missing_list")
    if not listed:
        return display_value(details.get("details", ""))
    return one_line_text(", ".join(sorted(map(display_value, listed))))  # the library lists a set, in no order


def display_value(value: object) -> str:
    """Return a value as text: floats with 6 digits, numpy scalars as Python values, and -0.0 as 0.0.

    0.0 and -0.0 are equal, so an engine may return either of them for a column that holds both.
    """
    bare = _with_one_zero(value)
    return f"{bare:.6g}" if isinstance(bare, float) else one_line_text(bare)


def _with_one_zero(value: object) -> object:
    bare = value.item() if isinstance(value, np.generic) else value
    if isinstance(bare, dict):
        return {key: _with_one_zero(inner) for key, inner in bare.items()}
    if isinstance(bare, list | tuple):
        return type(bare)(map(_with_one_zero, bare))
    return bare + 0.0 if isinstance(bare, float) else bare


def one_line_text(value: object) -> str:
    """Return the text of a value on one line, cut at 200 characters."""
    text = " ".join(str(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


MAX_EXAMPLES = 5
"""How many rows that violate an expectation are shown."""

_BY_POSITION = ("expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing")
_NULL = object()


def failing_examples(
    frame: pd.DataFrame, expectation: Expectation, details: Mapping[str, Any], key: str
) -> Iterator[tuple[str, str]]:
    """Yield key and values of rows that hold the unexpected values: rows with equal values violate the same rule."""
    columns, found = expectation.columns, 0
    values = details.get("partial_unexpected_list", ())
    if expectation.type in _BY_POSITION or not columns:
        yield from (("", display_value(value)) for value in values[:MAX_EXAMPLES])
        return
    tuples = (value for value in map(_comparable, values) if len(value) == len(columns))
    for value in dict.fromkeys(tuples):
        rows = frame.iloc[np.flatnonzero(_matching_rows(frame, columns, value))[: MAX_EXAMPLES - found]]
        found += len(rows)
        yield from rows_with_keys(rows, columns, key)


def rows_with_keys(rows: pd.DataFrame, columns: tuple[str, ...], key: str) -> Iterator[tuple[str, str]]:
    """Yield for each of these rows its key and the values of the columns as text."""
    for row in range(len(rows)):
        cells = [display_value(rows[name].iloc[row]) for name in columns]
        text = cells[0] if len(cells) == 1 else ", ".join(map("{}={}".format, columns, cells))
        yield display_value(rows[key].iloc[row]), text


def _comparable(value: Any) -> tuple[Hashable, ...]:
    """Return an unexpected value as the library lists it (scalar, pair or mapping) as one tuple of columns."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else (value,)
    scalars = (part if pd.api.types.is_scalar(part) else repr(part) for part in parts)
    return tuple(_NULL if pd.isna(part) else part for part in scalars)


def _matching_rows(frame: pd.DataFrame, columns: tuple[str, ...], value: tuple[Hashable, ...]) -> Any:
    """Return which rows (rows,) hold exactly these values in these columns."""
    matches = np.ones(len(frame), dtype=bool)
    for name, part in zip(columns, value, strict=True):
        same = frame[name].isna() if part is _NULL else (frame[name] == part).fillna(False)
        matches &= same.to_numpy(dtype=bool)
    return matches
