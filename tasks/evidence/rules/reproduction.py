"""What became of training a version again: the same to the bit, the same in its metrics, or different, and by what."""

import math
from collections.abc import Mapping
from typing import Literal

ReproductionVerdict = Literal["bit-identical", "metric-identical", "different"]

METRIC_TOLERANCE = 1e-6
"""By how much a metric may differ and still be called the same."""


def reproduction_verdict(
    *, recorded: Mapping[str, float], current: Mapping[str, float], predictions_then: str, predictions_now: str
) -> ReproductionVerdict:
    """Return how the model that was trained again compares with the one that was promoted.

    Args:
        then, now: metrics on the same holdout rows, by name.
        predictions_then, predictions_now: digests over the predictions of all those rows; "" is unknown, and equals
            nothing.
    """
    if predictions_then and predictions_then == predictions_now:
        return "bit-identical"
    same = bool(recorded) and all(_close(value, current.get(name)) for name, value in recorded.items())
    return "metric-identical" if same else "different"


def differing_inputs(then: Mapping[str, str], now: Mapping[str, str]) -> tuple[str, ...]:
    """Return what was otherwise: a sentence for each input by name, those with a name in only one of both included."""
    names = sorted({*then, *now})
    return tuple(
        f"{name} was {then.get(name) or 'absent'}, is {now.get(name) or 'absent'}"
        for name in names
        if then.get(name) != now.get(name)
    )


def largest_difference(then: Mapping[str, float], now: Mapping[str, float]) -> str:
    """Return the metric that differs most, in words; "" when none does."""
    gaps = {name: abs(value - now.get(name, math.nan)) for name, value in then.items()}
    missing = [name for name, gap in gaps.items() if math.isnan(gap)]
    if missing:
        return f"{missing[0]} was not measured"
    name = max(gaps, key=lambda each: gaps[each], default="")
    return f"{name} differs by {gaps[name]:.3g}" if name and gaps[name] else ""


def _close(then: float, now: float | None) -> bool:
    return now is not None and math.isfinite(then) and math.isfinite(now) and abs(then - now) <= METRIC_TOLERANCE
