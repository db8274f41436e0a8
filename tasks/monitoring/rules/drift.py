"""Drift: columns whose distribution differs enough from the reference, in enough windows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tasks.monitoring.rules.checks import check_missing_shares, check_unseen_values
from tasks.monitoring.rules.columns import BinCounts, MonitoredColumn, WindowCounts
from tasks.monitoring.rules.effects import holm_significant, homogeneity_p_value, stability_index
from tasks.monitoring.rules.findings import Finding, MonitoringRules

_MIN_SAME_WEEKDAY = 2
_MIN_OTHER_WINDOWS = 3


@dataclass(frozen=True)
class ColumnDrift:
    """The comparison of one column of one window with the reference: the index, and its p-value."""

    column: MonitoredColumn
    reference: BinCounts
    current: BinCounts
    psi: float
    p_value: float
    drifted: bool

    @property
    def change(self) -> str:
        """The largest change, in a few words."""
        if self.column.kind == "number":
            return f"mean {self.reference.mean(self.column):.4g} → {self.current.mean(self.column):.4g}"
        before, now = (_bin_shares(counts) for counts in (self.reference, self.current))
        largest = max(range(len(before)), key=lambda index: abs(now[index] - before[index]))
        return f"{self.column.label(largest)} {before[largest]:.0%} → {now[largest]:.0%}"


def column_drifts(
    columns: Sequence[MonitoredColumn], reference: WindowCounts, window: WindowCounts, rules: MonitoringRules
) -> dict[str, ColumnDrift]:
    """Return the comparison of every column of the window."""
    known = [column for column in columns if column.name in window and column.name in reference]
    p_values = {c.name: homogeneity_p_value(reference[c.name].bins, window[c.name].bins) for c in known}
    significant = holm_significant(p_values, rules.significance_level)
    compared = {}
    for column in known:
        before, now = reference[column.name], window[column.name]
        effect = stability_index(before.bins, now.bins) if now.binned_rows >= rules.minimum_rows else 0.0
        drifted = column.name in significant and effect >= rules.psi_threshold
        compared[column.name] = ColumnDrift(column, before, now, effect, p_values[column.name], drifted)
    return compared


def window_findings(
    columns: Sequence[MonitoredColumn], reference: WindowCounts, window: WindowCounts, rules: MonitoringRules
) -> list[Finding]:
    """Return the findings of one window, as if it were the only one."""
    known = [column for column in columns if column.name in window and column.name in reference]
    compared = column_drifts(known, reference, window, rules)
    return [
        *check_missing_shares(known, reference, window, rules),
        *check_unseen_values(known, window, rules),
        *(_drift_finding(each, rules) for each in compared.values() if each.drifted),
    ]


def persistent_findings(findings_by_window: Sequence[Sequence[Finding]], rules: MonitoringRules) -> list[Finding]:
    """Return the findings that occur in enough windows, each from its newest window; the most important first.

    Args:
        findings_by_window: the findings of each compared window, newest first.
        rules: `min_breached_windows` is the required number of windows.
    """
    counted = Counter(key for window in findings_by_window for key in {finding.key for finding in window})
    newest: dict[str, Finding] = {}
    for window in findings_by_window:
        for finding in window:
            newest.setdefault(finding.key, finding)
    persistent = [
        finding for key, finding in newest.items() if counted[key] >= min(rules.min_breached_windows, rules.windows)
    ]
    return sorted(persistent, key=lambda each: (each.severity != "critical", -each.effect_size, each.key))


def is_seasonal(
    column: MonitoredColumn,
    window: BinCounts,
    same_weekday: Sequence[BinCounts],
    others: Sequence[BinCounts],
    reference: BinCounts,
    rules: MonitoringRules,
) -> bool:
    """Return whether a window differs from the reference only in the way in which its weekday always differs.

    Args:
        column: the column that drifted.
        window: its counts in the window.
        same_weekday: its counts in the same window one, two, … weeks earlier.
        others: its counts in the other windows of those weeks.
        reference: its counts in the reference.
        rules: the thresholds of the index and of the rows.

    Returns:
        True when at least two earlier windows of this weekday are like this one, and the other windows are like the
        reference. So a lasting drift does not count as seasonal once it is a week old.
    """
    same_weekday = [counts for counts in same_weekday if counts.binned_rows >= rules.minimum_rows]
    others = [counts for counts in others if counts.binned_rows >= rules.minimum_rows]
    if len(same_weekday) < _MIN_SAME_WEEKDAY or len(others) < _MIN_OTHER_WINDOWS:
        return False
    pooled = same_weekday[0]
    for counts in same_weekday[1:]:
        pooled = pooled + counts
    like_earlier = stability_index(pooled.bins, window.bins) < rules.psi_threshold
    usual = median(stability_index(reference.bins, counts.bins) for counts in others)
    return like_earlier and usual < rules.psi_threshold


def _drift_finding(each: ColumnDrift, rules: MonitoringRules) -> Finding:
    column = each.column
    critical = column.is_prediction or each.psi >= rules.critical_psi
    text = (
        f"{column.display_name} differs from the reference: {each.change} "
        f"(population stability index {each.psi:.2f}, threshold {rules.psi_threshold:g})."
    )
    short = f"{column.display_name} ({each.change}, PSI {each.psi:.2f})"
    return Finding("drift", "distribution", column.name, text, each.psi, "critical" if critical else "warning", short)


def _bin_shares(counts: BinCounts) -> list[float]:
    known = counts.binned_rows or 1
    return [found / known for found in counts.bins]
