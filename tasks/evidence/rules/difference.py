"""How the training rows differ from those of the version before, feature by feature."""

from collections.abc import Mapping
from typing import Any


def baseline_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what changed between two baselines (`baseline.baseline`), the largest change first.

    Each entry has the feature's name, the nulls then and now as shares, what was compared in words, and `moved`: of a
    number by how many of its deviations the mean has moved, of a category by how much the largest share has; None
    where only one of the two has the feature, or one of them nothing but nulls.
    """
    names = sorted({*before, *now})
    found = [_difference(name, before.get(name), now.get(name)) for name in names]
    return sorted(found, key=lambda each: -1.0 if each["moved"] is None else each["moved"], reverse=True)


def _difference(name: str, before: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> dict[str, Any]:
    nulls = {"nulls_before": _nulls(before), "nulls_now": _nulls(now)}
    if before is None or now is None:
        words = "new" if before is None else "gone"
        return {"feature": name, **nulls, "words": words, "moved": None}
    if "mean" in before and "mean" in now:
        distance = abs(now["mean"] - before["mean"])
        scale = before["deviation"] or now["deviation"] or distance or 1.0  # what was constant has no deviation
        words = f"mean {before['mean']:.4g} → {now['mean']:.4g}"
        return {"feature": name, **nulls, "words": words, "moved": distance / scale}
    if "shares" in before and "shares" in now:
        then, today = before["shares"], now["shares"]
        values = sorted({*then, *today})
        if values:
            value = max(values, key=lambda each: abs(today.get(each, 0.0) - then.get(each, 0.0)))
            share = f"{value}: {then.get(value, 0.0):.1%} → {today.get(value, 0.0):.1%}"
            return {
                "feature": name,
                **nulls,
                "words": share,
                "moved": abs(today.get(value, 0.0) - then.get(value, 0.0)),
            }
    return {"feature": name, **nulls, "words": "cannot be compared", "moved": None}


def _nulls(summary: Mapping[str, Any] | None) -> float | None:
    return summary["nulls"] / summary["rows"] if summary and summary["rows"] else None
