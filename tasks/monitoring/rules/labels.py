"""Label shift: the labels that have arrived are of other shares than those that the version was promoted on.

Predictions say so late and in part, since a model sees the label through its columns; labels say it themselves.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tasks.monitoring.rules.columns import number_column
from tasks.monitoring.rules.effects import homogeneity_p_value, stability_index
from tasks.monitoring.rules.findings import Finding, MonitoringRules

_CRITICAL_FACTOR = 4
"""So many times the least change that counts is critical."""


def check_class_shares(
    target: str,
    classes: Sequence[str],
    reference_counts: Sequence[int],
    current_counts: Sequence[int],
    rules: MonitoringRules,
) -> list[Finding]:
    """Return a finding where a class's share differs beyond chance, and by enough points to matter.

    Args:
        target: the column of labels.
        classes: the classes in order; of equal changes the last counts, which is the positive one of two.
        reference_counts: rows by class of what the version was promoted on.
        current_counts: rows by class of the labels that have arrived; enough of them have been looked for.
        rules: the level and the least change.
    """
    if (
        not sum(reference_counts)
        or not sum(current_counts)
        or homogeneity_p_value(reference_counts, current_counts) > rules.label_significance_level
    ):
        return []
    shares = [np.asarray(counts, dtype=np.float64) / sum(counts) for counts in (reference_counts, current_counts)]
    changes = np.abs(shares[1] - shares[0]).round(12)
    most = len(changes) - 1 - int(np.argmax(changes[::-1]))
    if (change := float(changes[most])) < rules.min_label_change:
        return []
    was, found = (f"{float(share[most]):.1%}" for share in shares)
    text = (
        f"On {sum(current_counts):,} rows whose labels have arrived {target} is {classes[most]} in {found}, where it was in {was} "
        f"of the rows that the version was promoted on."
    )
    return [
        _label_finding(
            target, change, text, f"labels of {target} ({classes[most]} {was} → {found})", rules.min_label_change
        )
    ]


def check_label_values(
    target: str, before: npt.NDArray[np.float64], now: npt.NDArray[np.float64], rules: MonitoringRules
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
    if homogeneity_p_value(*counts) > rules.label_significance_level or effect < rules.psi_threshold:
        return []
    changed = f"mean {before.mean():.4g} → {now.mean():.4g}"
    text = (
        f"On {len(now):,} rows whose labels have arrived {target} differs from the holdout at promotion: {changed} "
        f"(population stability index {effect:.2f}, of which {rules.psi_threshold:g} counts)."
    )
    return [
        _label_finding(target, effect, text, f"labels of {target} ({changed}, PSI {effect:.2f})", rules.psi_threshold)
    ]


def _label_finding(target: str, effect: float, text: str, short: str, least: float) -> Finding:
    return Finding(
        "drift", "labels", target, text, effect, "critical" if effect >= _CRITICAL_FACTOR * least else "warning", short
    )
