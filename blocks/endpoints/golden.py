"""Comparison of predictions with the expected (golden) ones.

Numbers match within a tolerance, everything else exactly; NaN never matches.
"""

import json
import math
from typing import Any, Protocol


class ExpectedPredictions(Protocol):
    """The expected predictions: `blocks.endpoints.base.GoldenExample`, or a record with the same fields."""

    @property
    def expected_predictions(self) -> str:
        """The predictions, as JSON text."""

    @property
    def tolerance(self) -> float:
        """The largest difference of two numbers that counts as equal."""


def difference(golden: ExpectedPredictions, status: int, body: bytes) -> str:
    """Describe the first difference between a response and the golden predictions; "" if there is none.

    An empty list of golden predictions counts as a difference, since nothing can be compared.
    """
    if status != 200:
        return f"the golden request got status {status}: {_truncate(body.decode(errors='replace'))}"
    try:
        actual = json.loads(body)["predictions"]
        expected = json.loads(golden.expected_predictions)
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"the response is not JSON with predictions: {_truncate(body.decode(errors='replace'))}"
    if expected in ([], {}, None):
        return "the golden example has no predictions, so nothing can be compared"
    return _find_difference(expected, actual, golden.tolerance, "predictions")


def _find_difference(expected: Any, actual: Any, tolerance: float, path: str) -> str:
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return f"{path} has {len(actual)} entries, expected {len(expected)}"
        pairs = [(f"{path}[{i}]", e, a) for i, (e, a) in enumerate(zip(expected, actual, strict=True))]
    elif isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return f"{path} has the members {sorted(actual)}, expected {sorted(expected)}"
        pairs = [(f"{path}.{key}", value, actual[key]) for key, value in expected.items()]
    elif _is_equal(expected, actual, tolerance):
        return ""
    else:
        return f"{path} is {_truncate(actual)}, expected {_truncate(expected)}"
    return next((problem for p, e, a in pairs if (problem := _find_difference(e, a, tolerance, p))), "")


def _is_equal(expected: Any, actual: Any, tolerance: float) -> bool:
    if _is_number(expected) and _is_number(actual):
        # `<=`, so that a NaN value or a NaN tolerance is a difference
        return math.isfinite(expected) and math.isfinite(actual) and abs(expected - actual) <= tolerance
    return type(expected) is type(actual) and bool(expected == actual)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _truncate(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."
