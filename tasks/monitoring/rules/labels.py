"""Label shift: the labels that have arrived are of other shares than those that the version was promoted on.

Predictions say so late and in part, since a model sees the label through its columns; labels say it themselves.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.monitoring.rules.columns import number_column
from tasks.monitoring.rules.effects import chance, stability_index
from tasks.monitoring.rules.findings import Finding, WatchRules

_SEVERE = 4
"""So many times the least change that counts is critical."""


def judge_classes(
    target: str, classes: Sequence[str], before: Sequence[int], now: Sequence[int], rules: WatchRules
) -> list[Finding]:
    """Return a finding where a class's share differs beyond chance, and by enough points to matter.

    Args:
        target: the column of labels.
        classes: the classes in order; of equal changes the last counts, which is the positive one of two.
        before: rows by class of what the version was promoted on.
        now: rows by class of the labels that have arrived; enough of them have been looked for.
        rules: the level and the least change.
    """
    if not sum(before) or not sum(now) or chance(before, now) > rules.label_level:
        return []
    shares = [np.asarray(counts, dtype=np.float64) / sum(counts) for counts in (before, now)]
    changes = np.abs(shares[1] - shares[0]).round(12)
    most = len(changes) - 1 - int(np.argmax(changes[::-1]))
    if (change := float(changes[most])) < rules.label_change:
        return []
    was, found = (f"{float(share[most]):.1%}" for share in shares)
    text = (
        f"On {sum(now):,} rows whose labels have arrived {target} is {classes[most]} in {found}, where it was in {was} "
        f"of the rows that the version was promoted on."
    )
    return [_finding(target, change, text, f"labels of {target} ({classes[most]} {was} → {found})", rules.label_change)]


def judge_numbers(
    target: str, before: npt.NDArray[np.float64], now: npt.NDArray[np.float64], rules: WatchRules
) -> list[Finding]:
    """Return a finding where the labels of a regression are distributed otherwise, as a column's values would be.

    Args:
        target: the column of labels.
        before: labels of the holdout at promotion.
        now: the labels that have arrived; enough of them have been looked for.
        rules: the level and the least index.
    """
    if not len(before) or not len(now):
        return []
    column = number_column(target, before)
    counts = [
        np.bincount(np.searchsorted(column.edges, values, side="right"), minlength=column.bins).tolist()
        for values in (before, now)
    ]
    effect = stability_index(*counts)
    if chance(*counts) > rules.label_level or effect < rules.effect:
        return []
    changed = f"mean {before.mean():.4g} → {now.mean():.4g}"
    text = (
        f"On {len(now):,} rows whose labels have arrived {target} differs from the holdout at promotion: {changed} "
        f"(population stability index {effect:.2f}, of which {rules.effect:g} counts)."
    )
    return [_finding(target, effect, text, f"labels of {target} ({changed}, PSI {effect:.2f})", rules.effect)]


def _finding(target: str, effect: float, text: str, short: str, least: float) -> Finding:
    return Finding(
        "drift", "labels", target, text, effect, "critical" if effect >= _SEVERE * least else "warning", short
    )
