"""The verdict of a reproduction: bit-identical, metric-identical or different, and the differences."""

import math
from collections.abc import Mapping
from typing import Literal

ReproductionVerdict = Literal["bit-identical", "metric-identical", "different"]

METRIC_TOLERANCE = 1e-6
"""The largest difference of a metric that still counts as the same."""


def reproduction_verdict(
    *, recorded: Mapping[str, float], current: Mapping[str, float], predictions_then: str, predictions_now: str
) -> ReproductionVerdict:
    """Return how the retrained model compares with the promoted one.

    Args:
        recorded: metrics of the promoted model on the holdout rows, by name.
        current: metrics of the retrained model on the same rows, by name.
        predictions_then: digest of the promoted model's predictions of these rows; "" is unknown and equals nothing.
        predictions_now: digest of the retrained model's predictions.
    """
    if predictions_then and predictions_then == predictions_now:
        return "bit-identical"
    same = bool(recorded) and all(_close(value, current.get(name)) for name, value in recorded.items())
    return "metric-identical" if same else "different"


def differing_inputs(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for each input that differs, including inputs that only one side has."""
    names = sorted({*then, *now})
    return tuple(
        f"{name} was {then.get(name) or 'absent'}, is {now.get(name) or 'absent'}"
        for name in names
        if then.get(name) != now.get(name)
    )


def largest_difference(then: Mapping[str, float], now: Mapping[str, float]) -> str:
    """Return a sentence about the metric that differs most; "" when none differs."""
    gaps = {name: abs(value - now.get(name, math.nan)) for name, value in then.items()}
    missing = [name for name, gap in gaps.items() if math.isnan(gap)]
    if missing:
        return f"{missing[0]} was not measured"
    name = max(gaps, key=lambda each: gaps[each], default="")
    return f"{name} differs by {gaps[name]:.3g}" if name and gaps[name] else ""


def _close(then: float, now: float | None) -> bool:
    return now is not None and math.isfinite(then) and math.isfinite(now) and abs(then - now) <= METRIC_TOLERANCE
