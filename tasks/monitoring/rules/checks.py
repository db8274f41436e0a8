"""What can simply be wrong with the rows, before any distribution is compared: and what could not be looked at."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from tasks.monitoring.rules.columns import Counts, WatchedColumn, Window
from tasks.monitoring.rules.effects import holm, proportions_chance
from tasks.monitoring.rules.findings import Finding, Severity, WatchRules

_USUAL_WINDOWS = 3
_FEWEST_UNSEEN = 5
_NUMBERS = ("int", "uint", "float", "double", "decimal", "halffloat", "bool")
_TEXTS = ("string", "large_string", "string_view", "dictionary")


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
            found.append(Finding("impossible", "schema", column, text, severity="critical", short=f"{column} missing"))
        elif not _suits(kind, there[column]):
            text = f"{column} is {there[column]} in {where}, where a {kind} was expected, so it could not be checked."
            short = f"{column} is {there[column]}"
            found.append(Finding("impossible", "type", column, text, severity="critical", short=short))
    return found


def check_rows(windows: Sequence[int], rules: WatchRules) -> list[Finding]:
    """Return why too few windows can be judged, given the rows of the newest ones (newest first)."""
    judged = sum(rows >= rules.minimum_rows for rows in windows)
    if judged >= min(rules.needed, rules.windows):
        return []
    counted = ", ".join(f"{rows:,}" for rows in windows) or "none"
    text = (
        f"Only {judged} of the {rules.windows} newest windows have the {rules.minimum_rows:,} rows that are needed "
        f"(newest first: {counted}), so drift could not be checked."
    )
    return [Finding("impossible", "rows", "", text, severity="warning", short="too few rows")]


def check_freshness(newest: datetime | None, until: datetime, length: timedelta) -> list[Finding]:
    """Return whether the newest row is older than one window."""
    if newest is not None and until - newest <= length:
        return []
    since = f"between {newest:%Y-%m-%d %H:%M} and " if newest else "before "
    text = f"No request was logged {since}{until:%Y-%m-%d %H:%M} UTC; nothing of the newest window could be checked."
    return [Finding("impossible", "freshness", "", text, severity="critical", short="no new rows")]


def check_volume(newest: int, earlier: Sequence[int], rules: WatchRules) -> list[Finding]:
    """Return whether the newest window has far more or far fewer rows than the earlier ones usually have."""
    usual = [rows for rows in earlier if rows]
    if len(usual) < _USUAL_WINDOWS:
        return []
    middle = median(usual)
    if middle / rules.volume_factor <= newest <= middle * rules.volume_factor:
        return []
    text = f"The newest window has {newest:,} rows, where {middle:,.0f} are usual."
    short = f"{newest:,} rows for {middle:,.0f}"
    return [Finding("drift", "volume", "", text, newest / middle, "warning", short)]


def check_missing(
    columns: Sequence[WatchedColumn], reference: Window, window: Window, rules: WatchRules
) -> list[Finding]:
    """Return each column whose share of missing values changed, beyond chance and by enough to matter."""
    pairs = {column.name: (reference[column.name], window[column.name]) for column in columns}
    beyond = holm({name: _missing_chance(*pair) for name, pair in pairs.items()}, rules.level)
    found = []
    for name in sorted(beyond):
        before, now = (counts.missing_share for counts in pairs[name])
        if abs(now - before) >= rules.missing_change:
            text = f"{name} has no value in {now:.1%} of the rows, where it was {before:.1%}."
            severity: Severity = "critical" if now - before >= 0.5 else "warning"
            short = f"{name} (missing {before:.1%} → {now:.1%})"
            found.append(Finding("drift", "nulls", name, text, abs(now - before), severity, short))
    return found


def check_unseen(columns: Sequence[WatchedColumn], window: Window, rules: WatchRules) -> list[Finding]:
    """Return each category with values that the reference does not have, in enough rows to matter."""
    found = []
    for column in columns:
        if column.kind != "category" or not column.complete or column.name not in window:
            continue
        counts = window[column.name]
        rows = counts.bins[-1]
        share = rows / counts.rows if counts.rows else 0.0
        if rows >= _FEWEST_UNSEEN and share >= rules.unseen_share:
            named = ", ".join(repr(value) for value, _ in counts.unseen) or "values"
            text = f"{column.name} has values that the reference does not have, in {share:.1%} of the rows: {named}."
            short = f"{column.name} (new: {named}, {share:.1%})"
            found.append(Finding("drift", "new values", column.name, text, share, "warning", short))
    return found


def _missing_chance(before: Counts, now: Counts) -> float:
    missing = [counts.nulls + counts.not_finite for counts in (before, now)]
    return proportions_chance(missing[0], before.rows, missing[1], now.rows)


def _suits(kind: str, arrow: str) -> bool:
    return arrow.startswith(_NUMBERS if kind in ("number", "flag") else _TEXTS)
