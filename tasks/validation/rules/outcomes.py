"""From what the library says of one expectation to a result that fails closed; the same for every engine."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.validation.rules.report import ExpectationResult
from tasks.validation.rules.suites import Expectation

NO_RESULT = "Great Expectations gave no result, or more than one"
EMPTY_TABLE = "not evaluated: the table is empty"
_LONGEST = 200


@dataclass(frozen=True)
class ExpectationOutcome:
    """What the library said of one expectation, from metrics that any engine computed.

    `details` is its result in the format BASIC, `error` the words of an exception ("" for none).
    """

    success: object
    details: Mapping[str, Any]
    error: str = ""


def failed_outcome(error: object) -> ExpectationOutcome:
    """Return the outcome of an expectation that could not be evaluated."""
    return ExpectationOutcome(success=False, details={}, error=one_line_text(error) or type(error).__name__)


def missing_column_reason(column: str) -> str:
    """Return the reason of an expectation whose column is not there."""
    return f"not evaluated: column {column!r} is missing"


def repeated_column_reason(column: str) -> str:
    """Return the reason of an expectation whose column is there more than once."""
    return f"not evaluated: column {column!r} is there more than once"


def all_null_reason(column: str) -> str:
    """Return the reason of an expectation whose column holds nothing."""
    return f"not evaluated: column {column!r} is null in every row"


def expectation_failure_reason(expectation: Expectation, outcome: ExpectationOutcome, rows: int) -> str:
    """Return why the outcome is no pass, or "".

    Args:
        expectation: what was expected.
        outcome: what the library said.
        rows: how many rows the table has.
    """
    details = outcome.details
    if outcome.error:
        return f"could not be evaluated: {outcome.error}"
    if not details and expectation.type != "expect_column_to_exist":
        return "nothing was measured"
    if "element_count" in details and (problem := _not_measured_reason(details, rows)):
        return problem
    found = details.get("observed_value")
    if isinstance(found, float) and not math.isfinite(found):
        return f"observed {found}, which is not a finite number"
    holds = isinstance(outcome.success, bool | np.bool_) and bool(outcome.success)
    return "" if holds else _failure_text(expectation, details)


def evaluated_result(
    expectation: Expectation, outcome: ExpectationOutcome, reason: str, examples: Iterable[tuple[str, str]] = ()
) -> ExpectationResult:
    """Return the result of an expectation that was evaluated: it passes when there is no reason against it."""
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
    """Return the result of an expectation, which passes when there is no reason against it."""
    columns = ", ".join(expectation.columns)
    return ExpectationResult(
        expectation.type, columns, expectation.kwargs_text, passed=not reason, reason=reason, **rest
    )


def _not_measured_reason(details: Mapping[str, Any], rows: int) -> str:
    if details["element_count"] != rows:
        return f"only {details['element_count']:,} of {rows:,} rows were looked at"
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
    """Return a value as people read it: floats at 6 digits, numpy's scalars as Python's, and one zero.

    Of a column that holds 0.0 and -0.0, which are equal, it is chance which one an engine answers with.
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
