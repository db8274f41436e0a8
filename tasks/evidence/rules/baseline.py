"""What the training rows looked like: the baseline that drift is measured against."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

MAX_BASELINE_VALUES = 50


def feature_baseline(rows: pd.DataFrame, features: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return a summary of each feature: nulls, and deciles of a number or the shares of a category's values."""
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
