"""Drift: columns whose distribution differs from the reference by enough to matter, in enough windows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tasks.monitoring.rules.checks import check_missing, check_unseen
from tasks.monitoring.rules.columns import Counts, WatchedColumn, Window
from tasks.monitoring.rules.effects import chance, holm, stability_index
from tasks.monitoring.rules.findings import Finding, WatchRules

_LEAST_SAME = 2
_LEAST_OTHERS = 3


@dataclass(frozen=True)
class Compared:
    """One column of one window against the reference: the index, and the probability of it by chance."""

    column: WatchedColumn
    reference: Counts
    current: Counts
    effect: float
    by_chance: float
    drifted: bool

    @property
    def change(self) -> str:
        """What changed most, in a few words."""
        if self.column.kind == "number":
            return f"mean {self.reference.mean(self.column):.4g} → {self.current.mean(self.column):.4g}"
        before, now = (_shares(counts) for counts in (self.reference, self.current))
        most = max(range(len(before)), key=lambda at: abs(now[at] - before[at]))
        return f"{self.column.label(most)} {before[most]:.0%} → {now[most]:.0%}"


def compare_window(
    columns: Sequence[WatchedColumn], reference: Window, window: Window, rules: WatchRules
) -> dict[str, Compared]:
    """Return the comparison of every column that the window has."""
    known = [column for column in columns if column.name in window and column.name in reference]
    chances = {c.name: chance(reference[c.name].bins, window[c.name].bins) for c in known}
    beyond = holm(chances, rules.level)
    compared = {}
    for column in known:
        before, now = reference[column.name], window[column.name]
        effect = stability_index(before.bins, now.bins) if now.known >= rules.minimum_rows else 0.0
        drifted = column.name in beyond and effect >= rules.effect
        compared[column.name] = Compared(column, before, now, effect, chances[column.name], drifted)
    return compared


def window_findings(
    columns: Sequence[WatchedColumn], reference: Window, window: Window, rules: WatchRules
) -> list[Finding]:
    """Return all that is found in one window, as if it were the only one."""
    known = [column for column in columns if column.name in window and column.name in reference]
    compared = compare_window(known, reference, window, rules)
    return [
        *check_missing(known, reference, window, rules),
        *check_unseen(known, window, rules),
        *(_finding(each, rules) for each in compared.values() if each.drifted),
    ]


def lasting(found: Sequence[Sequence[Finding]], rules: WatchRules) -> list[Finding]:
    """Return what was found in enough windows, as the newest of them says it; the most important first.

    Args:
        found: the findings of each judged window, newest first.
        rules: `needed` says how many are enough.
    """
    counted = Counter(key for window in found for key in {finding.key for finding in window})
    newest: dict[str, Finding] = {}
    for window in found:
        for finding in window:
            newest.setdefault(finding.key, finding)
    kept = [finding for key, finding in newest.items() if counted[key] >= min(rules.needed, rules.windows)]
    return sorted(kept, key=lambda each: (each.severity != "critical", -each.effect, each.key))


def is_seasonal(
    column: WatchedColumn,
    window: Counts,
    same: Sequence[Counts],
    others: Sequence[Counts],
    reference: Counts,
    rules: WatchRules,
) -> bool:
    """Tell whether a window differs from the reference only as its weekday always does.

    Args:
        column: the column that drifted.
        window: its counts now.
        same: its counts in windows one, two, … weeks earlier.
        others: its counts in the other windows of those weeks.
        reference: its counts in the reference.
        rules: the least effect and rows.

    Returns:
        True when at least two such windows looked like this one, and the other windows of those weeks looked
        like the reference: so a lasting drift is not excused once it is a week old.
    """
    same = [counts for counts in same if counts.known >= rules.minimum_rows]
    others = [counts for counts in others if counts.known >= rules.minimum_rows]
    if len(same) < _LEAST_SAME or len(others) < _LEAST_OTHERS:
        return False
    pooled = same[0]
    for counts in same[1:]:
        pooled = pooled + counts
    as_then = stability_index(pooled.bins, window.bins) < rules.effect
    usual = median(stability_index(reference.bins, counts.bins) for counts in others)
    return as_then and usual < rules.effect


def _finding(each: Compared, rules: WatchRules) -> Finding:
    column = each.column
    severe = column.prediction or each.effect >= rules.severe
    text = (
        f"{column.shown} differs from the reference: {each.change} "
        f"(population stability index {each.effect:.2f}, of which {rules.effect:g} counts)."
    )
    short = f"{column.shown} ({each.change}, PSI {each.effect:.2f})"
    return Finding("drift", "distribution", column.name, text, each.effect, "critical" if severe else "warning", short)


def _shares(counts: Counts) -> list[float]:
    known = counts.known or 1
    return [found / known for found in counts.bins]
