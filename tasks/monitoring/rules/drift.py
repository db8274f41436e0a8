"""Checks of the current data: schema, rows, freshness, volume, values, and drift of distributions in enough windows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

from tasks.monitoring.rules.columns import BinCounts, MonitoredColumn, WindowCounts
from tasks.monitoring.rules.effects import (
    holm_significant,
    homogeneity_p_value,
    proportions_p_value,
    stability_index,
)
from tasks.monitoring.rules.findings import Finding, FindingSeverity, MonitoringRules

_MIN_USUAL_WINDOWS = 3
_MIN_UNSEEN_ROWS = 5
_NUMBER_TYPES = ("int", "uint", "float", "double", "decimal", "halffloat", "bool")
_TEXT_TYPES = ("string", "large_string", "string_view", "dictionary")
_MIN_SAME_WEEKDAY = 2
_MIN_OTHER_WINDOWS = 3


def check_schema(kinds: Mapping[str, str], column_types: Mapping[str, str], where: str) -> list[Finding]:
    """Return a finding for each monitored column that is missing or has the wrong type.

    Args:
        kinds: the kinds of the monitored columns: number, category or flag.
        column_types: the Arrow types of the rows' columns, as text.
        where: the rows in words.
    """
    findings = []
    for column, kind in kinds.items():
        if column not in column_types:
            text = f"{column} is missing from {where}, so it could not be checked."
            findings.append(
                Finding("impossible", "schema", column, text, severity="critical", summary=f"{column} missing")
            )
        elif not _type_matches(kind, column_types[column]):
            actual = column_types[column]
            text = f"{column} is {actual} in {where}, but a {kind} was expected, so it could not be checked."
            short = f"{column} is {actual}"
            findings.append(Finding("impossible", "type", column, text, severity="critical", summary=short))
    return findings


def check_window_rows(windows: Sequence[int], rules: MonitoringRules) -> list[Finding]:
    """Return a finding when too few windows have enough rows. `windows` are their rows, newest first."""
    large_enough = sum(rows >= rules.minimum_rows for rows in windows)
    if large_enough >= min(rules.min_breached_windows, rules.windows):
        return []
    counted = ", ".join(f"{rows:,}" for rows in windows) or "none"
    text = (
        f"Only {large_enough} of the {rules.windows} newest windows have the required {rules.minimum_rows:,} rows "
        f"(newest first: {counted}), so drift could not be checked."
    )
    return [Finding("impossible", "rows", "", text, severity="warning", summary="too few rows")]


def check_freshness(newest: datetime | None, until: datetime, length: timedelta) -> list[Finding]:
    """Return a finding when the newest row is older than one window."""
    if newest is not None and until - newest <= length:
        return []
    since = f"between {newest:%Y-%m-%d %H:%M} and " if newest else "before "
    text = f"No request was logged {since}{until:%Y-%m-%d %H:%M} UTC, so the newest window could not be checked."
    return [Finding("impossible", "freshness", "", text, severity="critical", summary="no new rows")]


def check_volume(newest: int, earlier: Sequence[int], rules: MonitoringRules) -> list[Finding]:
    """Return a finding when the newest window has far more or far fewer rows than earlier windows."""
    usual = [rows for rows in earlier if rows]
    if len(usual) < _MIN_USUAL_WINDOWS:
        return []
    middle = median(usual)
    if middle / rules.max_volume_factor <= newest <= middle * rules.max_volume_factor:
        return []
    text = f"The newest window has {newest:,} rows; {middle:,.0f} are usual."
    short = f"{newest:,} rows instead of {middle:,.0f}"
    return [Finding("drift", "volume", "", text, newest / middle, "warning", short)]


def check_missing_shares(
    columns: Sequence[MonitoredColumn], reference: WindowCounts, window: WindowCounts, rules: MonitoringRules
) -> list[Finding]:
    """Return a finding for each column whose share of missing values changed significantly and by enough."""
    pairs = {column.name: (reference[column.name], window[column.name]) for column in columns}
    significant = holm_significant(
        {name: _missing_p_value(*pair) for name, pair in pairs.items()}, rules.significance_level
    )
    findings = []
    for name in sorted(significant):
        before, now = (counts.missing_share for counts in pairs[name])
        if abs(now - before) >= rules.min_missing_change:
            text = f"{name} is missing in {now:.1%} of the rows; it was {before:.1%} in the reference."
            severity: FindingSeverity = "critical" if now - before >= 0.5 else "warning"
            short = f"{name} (missing {before:.1%} → {now:.1%})"
            findings.append(Finding("drift", "nulls", name, text, abs(now - before), severity, short))
    return findings


def has_unseen_values(column: MonitoredColumn, counts: BinCounts, rules: MonitoringRules) -> bool:
    """Return whether a window has unseen values of a category in enough rows."""
    return (
        column.has_all_values
        and counts.bins[-1] >= _MIN_UNSEEN_ROWS
        and counts.bins[-1] >= rules.min_unseen_share * counts.rows
    )


def check_unseen_values(
    columns: Sequence[MonitoredColumn], reference: WindowCounts, window: WindowCounts, rules: MonitoringRules
) -> list[Finding]:
    """Return a finding for each category with unseen values in enough rows, and in more than chance explains.

    By chance the share of unseen values is about the share of reference rows whose value occurs once (Good, Biometrika
    1953): each such row would be unseen by the others.
    """
    pairs = {
        column.name: (reference[column.name].bins, window[column.name].bins)
        for column in columns
        if has_unseen_values(column, window[column.name], rules)
    }
    p_values = {
        name: proportions_p_value(before.count(1), sum(before), now[-1], sum(now))
        for name, (before, now) in pairs.items()
        if now[-1] * sum(before) > before.count(1) * sum(now)
    }
    significant = holm_significant(p_values, rules.significance_level)
    findings = []
    for column in columns:
        if column.name in significant:
            counts = window[column.name]
            share = counts.bins[-1] / counts.rows
            values = ", ".join(repr(value) for value, _ in counts.unseen) or "values"
            text = f"{column.name} has values that are not in the reference, in {share:.1%} of the rows: {values}."
            short = f"{column.name} (new: {values}, {share:.1%})"
            findings.append(Finding("drift", "new values", column.name, text, share, "warning", short))
    return findings


def _missing_p_value(before: BinCounts, now: BinCounts) -> float:
    missing = [counts.nulls + counts.not_finite for counts in (before, now)]
    return proportions_p_value(missing[0], before.rows, missing[1], now.rows)


def _type_matches(kind: str, arrow: str) -> bool:
    return arrow.startswith(_NUMBER_TYPES if kind in ("number", "flag") else _TEXT_TYPES)


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
        before, now = (_bin_shares(counts) for counts in (self.reference, self.current))
        largest = max(range(len(before)), key=lambda index: abs(now[index] - before[index]))
        moved = f"{self.column.label(largest)} {before[largest]:.0%} → {now[largest]:.0%}"
        if self.column.kind == "category" or largest < len(self.column.values):
            return moved
        mean = f"mean {self.reference.mean(self.column):.4g} → {self.current.mean(self.column):.4g}"
        return f"{mean}, {moved}" if largest in self.column.point_bins else mean


def column_drifts(
    columns: Sequence[MonitoredColumn], reference: WindowCounts, window: WindowCounts, rules: MonitoringRules
) -> list[ColumnDrift]:
    """Return the comparison of every column of the window."""
    known = [column for column in columns if column.name in window and column.name in reference]
    p_values = {c.name: homogeneity_p_value(reference[c.name].bins, window[c.name].bins) for c in known}
    significant = holm_significant(p_values, rules.significance_level)
    compared = []
    for column in known:
        before, now = reference[column.name], window[column.name]
        effect = stability_index(before.bins, now.bins) if now.binned_rows >= rules.minimum_rows else 0.0
        drifted = column.name in significant and effect >= rules.psi_threshold
        compared.append(ColumnDrift(column, before, now, effect, p_values[column.name], drifted))
    return compared


def window_findings(compared: Sequence[ColumnDrift], rules: MonitoringRules) -> list[Finding]:
    """Return the findings of one window, as if it were the only one. `compared` are all its columns."""
    columns = [each.column for each in compared]
    reference = {each.column.name: each.reference for each in compared}
    window = {each.column.name: each.current for each in compared}
    return [
        *check_missing_shares(columns, reference, window, rules),
        *check_unseen_values(columns, reference, window, rules),
        *(_drift_finding(each, rules) for each in compared if each.drifted),
    ]


def persistent_findings(findings_by_window: Sequence[Sequence[Finding]], rules: MonitoringRules) -> list[Finding]:
    """Return the findings that occur in enough windows, each from its newest window; the most important first.

    With several windows, the summary of a finding says in how many of them it occurs.

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
        _with_window_count(finding, counted[key], len(findings_by_window))
        for key, finding in newest.items()
        if counted[key] >= min(rules.min_breached_windows, rules.windows)
    ]
    return sorted(persistent, key=lambda each: (each.severity != "critical", -each.effect_size, each.key))


def _with_window_count(finding: Finding, count: int, windows: int) -> Finding:
    if windows == 1:
        return finding
    return replace(finding, summary=f"{finding.summary.removesuffix(')')}, in {count} of {windows} windows)")


def is_seasonal(
    window: BinCounts,
    same_weekday: Sequence[BinCounts],
    others: Sequence[BinCounts],
    reference: BinCounts,
    rules: MonitoringRules,
) -> bool:
    """Return whether a window differs from the reference only in the way in which its weekday always differs.

    Args:
        window: the counts of the column that drifted.
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
