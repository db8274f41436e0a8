"""Is an answer the golden one? Numbers within a tolerance; everything else exactly; NaN never."""

import json
import math
from typing import Any, Protocol


class ExpectedPredictions(Protocol):
    """What is known of the answer: `blocks.endpoints.base.GoldenExample`, or a record of the same fields."""

    @property
    def expected_predictions(self) -> str:
        """The predictions, as JSON text."""

    @property
    def tolerance(self) -> float:
        """By how much numbers may differ."""


def difference(golden: ExpectedPredictions, status: int, body: bytes) -> str:
    """Return where an answer differs from the golden one, in words; empty when it does not.

    An empty list of predictions agrees with nothing: it would prove nothing.
    """
    if status != 200:
        return f"the golden request was answered with status {status}: {_truncate(body.decode(errors='replace'))}"
    try:
        came = json.loads(body)["predictions"]
        expected = json.loads(golden.expected_predictions)
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"the answer or the golden one is no JSON with predictions: {_truncate(body.decode(errors='replace'))}"
    if expected in ([], {}, None):
        return "the golden answer holds no predictions, so nothing can be compared"
    return _find_difference(expected, came, golden.tolerance, "predictions")


def _find_difference(expected: Any, came: Any, tolerance: float, where: str) -> str:
    if isinstance(expected, list) and isinstance(came, list):
        if len(expected) != len(came):
            return f"{where} has {len(came)} entries, expected {len(expected)}"
        pairs = [(f"{where}[{i}]", e, c) for i, (e, c) in enumerate(zip(expected, came, strict=True))]
    elif isinstance(expected, dict) and isinstance(came, dict):
        if expected.keys() != came.keys():
            return f"{where} has the members {sorted(came)}, expected {sorted(expected)}"
        pairs = [(f"{where}.{key}", value, came[key]) for key, value in expected.items()]
    else:
        return (
            ""
            if _is_equal(expected, came, tolerance)
            else f"{where} is {_truncate(came)}, expected {_truncate(expected)}"
        )
    return next((found for w, e, c in pairs if (found := _find_difference(e, c, tolerance, w))), "")


def _is_equal(expected: Any, came: Any, tolerance: float) -> bool:
    if _is_number(expected) and _is_number(came):
        # not (a > b): a NaN on either side, or a NaN tolerance, is a difference
        return math.isfinite(expected) and math.isfinite(came) and abs(expected - came) <= tolerance
    return type(expected) is type(came) and bool(expected == came)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _truncate(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."
