"""What can simply be wrong with the rows, before any distribution is compared: and what could not be looked at."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from tasks.monitoring.rules.columns import BinCounts, MonitoredColumn, WindowCounts
from tasks.monitoring.rules.effects import holm_significant, proportions_p_value
from tasks.monitoring.rules.findings import Finding, FindingSeverity, MonitoringRules

_MIN_USUAL_WINDOWS = 3
_MIN_UNSEEN_ROWS = 5
_NUMBER_TYPES = ("int", "uint", "float", "double", "decimal", "halffloat", "bool")
_TEXT_TYPES = ("string", "large_string", "string_view", "dictionary")


def check_schema(kinds: Mapping[str, str], there: Mapping[str, str], where: str) -> list[Finding]:
    """Return a finding for each watched column that is missing, or is of another type than it is read as.

    Args:
        kinds: the watched columns with their kinds: number, category or flag.
        there: the columns of the rows with their Arrow types as text.
        where: the rows in words.
    """
    found = []
    for column, kind in kinds.items():
        if column not in there:
            text = f"{column} is missing from {where}, so it could not be checked."
            found.append(
                Finding("impossible", "schema", column, text, severity="critical", summary=f"{column} missing")
            )
        elif not _type_matches(kind, there[column]):
            text = f"{column} is {there[column]} in {where}, where a {kind} was expected, so it could not be checked."
            short = f"{column} is {there[column]}"
            found.append(Finding("impossible", "type", column, text, severity="critical", summary=short))
    return found


def check_window_rows(windows: Sequence[int], rules: MonitoringRules) -> list[Finding]:
    """Return why too few windows can be judged, given the rows of the newest ones (newest first)."""
    judged = sum(rows >= rules.minimum_rows for rows in windows)
    if judged >= min(rules.min_breached_windows, rules.windows):
        return []
    counted = ", ".join(f"{rows:,}" for rows in windows) or "none"
    text = (
        f"Only {judged} of the {rules.windows} newest windows have the {rules.minimum_rows:,} rows that are needed "
        f"(newest first: {counted}), so drift could not be checked."
    )
    return [Finding("impossible", "rows", "", text, severity="warning", summary="too few rows")]


def check_freshness(newest: datetime | None, until: datetime, length: timedelta) -> list[Finding]:
    """Return whether the newest row is older than one window."""
    if newest is not None and until - newest <= length:
        return []
    since = f"between {newest:%Y-%m-%d %H:%M} and " if newest else "before "
    text = f"No request was logged {since}{until:%Y-%m-%d %H:%M} UTC; nothing of the newest window could be checked."
    return [Finding("impossible", "freshness", "", text, severity="critical", summary="no new rows")]


def check_volume(newest: int, earlier: Sequence[int], rules: MonitoringRules) -> list[Finding]:
    """Return whether the newest window has far more or far fewer rows than the earlier ones usually have."""
    usual = [rows for rows in earlier if rows]
    if len(usual) < _MIN_USUAL_WINDOWS:
        return []
    middle = median(usual)
    if middle / rules.max_volume_factor <= newest <= middle * rules.max_volume_factor:
        return []
    text = f"The newest window has {newest:,} rows, where {middle:,.0f} are usual."
    short = f"{newest:,} rows for {middle:,.0f}"
    return [Finding("drift", "volume", "", text, newest / middle, "warning", short)]


def check_missing_shares(
    columns: Sequence[MonitoredColumn], reference: WindowCounts, window: WindowCounts, rules: MonitoringRules
) -> list[Finding]:
    """Return each column whose share of missing values changed, beyond chance and by enough to matter."""
    pairs = {column.name: (reference[column.name], window[column.name]) for column in columns}
    beyond = holm_significant({name: _missing_p_value(*pair) for name, pair in pairs.items()}, rules.significance_level)
    found = []
    for name in sorted(beyond):
        before, now = (counts.missing_share for counts in pairs[name])
        if abs(now - before) >= rules.min_missing_change:
            text = f"{name} has no value in {now:.1%} of the rows, where it was {before:.1%}."
            severity: FindingSeverity = "critical" if now - before >= 0.5 else "warning"
            short = f"{name} (missing {before:.1%} → {now:.1%})"
            found.append(Finding("drift", "nulls", name, text, abs(now - before), severity, short))
    return found


def check_unseen_values(
    columns: Sequence[MonitoredColumn], window: WindowCounts, rules: MonitoringRules
) -> list[Finding]:
    """Return each category with values that the reference does not have, in enough rows to matter."""
    found = []
    for column in columns:
        if column.kind != "category" or not column.has_all_values or column.name not in window:
            continue
        counts = window[column.name]
        rows = counts.bins[-1]
        share = rows / counts.rows if counts.rows else 0.0
        if rows >= _MIN_UNSEEN_ROWS and share >= rules.min_unseen_share:
            named = ", ".join(repr(value) for value, _ in counts.unseen) or "values"
            text = f"{column.name} has values that the reference does not have, in {share:.1%} of the rows: {named}."
            short = f"{column.name} (new: {named}, {share:.1%})"
            found.append(Finding("drift", "new values", column.name, text, share, "warning", short))
    return found


def _missing_p_value(before: BinCounts, now: BinCounts) -> float:
    missing = [counts.nulls + counts.not_finite for counts in (before, now)]
    return proportions_p_value(missing[0], before.rows, missing[1], now.rows)


def _type_matches(kind: str, arrow: str) -> bool:
    return arrow.startswith(_NUMBER_TYPES if kind in ("number", "flag") else _TEXT_TYPES)
