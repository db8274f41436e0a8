"""Differences between then and now: of training features, and of a promoted model and its reproduction."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import pandas as pd

MAX_BASELINE_VALUES = 50

ReproductionVerdict = Literal["bit-identical", "metric-identical", "different"]

METRIC_TOLERANCE = 1e-6
"""The largest difference of a metric that still counts as the same."""


def feature_baseline(rows: pd.DataFrame, features: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return a summary of each feature: its nulls, and the deciles of a number or the value shares of a category."""
    return {name: _summary(rows[name], kind) for name, kind in features.items() if name in rows}


def _summary(column: "pd.Series[Any]", kind: str) -> dict[str, Any]:
    known = column.dropna()
    summary: dict[str, Any] = {"kind": kind, "rows": len(column), "nulls": int(column.isna().sum())}
    if kind == "category" or known.empty:
        shares = known.astype(str).value_counts(normalize=True).head(MAX_BASELINE_VALUES)
        return {**summary, "shares": {str(value): round(float(share), 6) for value, share in shares.items()}}
    numbers = known.astype("float64")
    deciles = [float(numbers.quantile(tenth / 10)) for tenth in range(11)]
    return {**summary, "mean": float(numbers.mean()), "deviation": float(numbers.std(ddof=0)), "deciles": deciles}


def baseline_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the changes between two baselines of `feature_baseline`, the largest first.

    Each entry has the feature's name, both shares of nulls, `description` (the change in words), and `change`: for a
    number, of its mean in standard deviations; for a category, the largest one of a value's share; None when only one
    baseline has the feature, or when one of them has only nulls.
    """
    names = sorted({*before, *now})
    differences = [_difference(name, before.get(name), now.get(name)) for name in names]
    return sorted(differences, key=lambda each: -1.0 if each["change"] is None else each["change"], reverse=True)


def _difference(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, Any]:
    nulls = {"nulls_before": _nulls(before), "nulls_now": _nulls(now)}
    if before is None or now is None:
        words = "new" if before is None else "gone"
        return {"feature": name, **nulls, "description": words, "change": None}
    if "mean" in before and "mean" in now:
        distance = abs(now["mean"] - before["mean"])
        scale = before["deviation"] or now["deviation"] or distance or 1.0  # a constant has no deviation
        words = f"mean {before['mean']:.4g} → {now['mean']:.4g}"
        return {"feature": name, **nulls, "description": words, "change": distance / scale}
    if "shares" in before and "shares" in now:
        then, today = before["shares"], now["shares"]
        values = sorted({*then, *today})
        if values:
            changes = {each: abs(today.get(each, 0.0) - then.get(each, 0.0)) for each in values}
            value = max(values, key=lambda each: changes[each])
            share = f"{value}: {then.get(value, 0.0):.1%} → {today.get(value, 0.0):.1%}"
            return {"feature": name, **nulls, "description": share, "change": changes[value]}
    return {"feature": name, **nulls, "description": "cannot be compared", "change": None}


def _nulls(summary: Mapping[str, Any] | None) -> float | None:
    return summary["nulls"] / summary["rows"] if summary and summary["rows"] else None


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
