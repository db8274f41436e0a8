"""The report of a monitoring run as Markdown, and its plot: the index of each column, and the largest changes."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from runtime.foreign_text import Markdown, markdown_link, markdown_table
from tasks.monitoring.rules.conclusion import MAX_COLUMNS_NAMED, MonitoringReport
from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.quality import QualityMetric
from tasks.shared.rules.figures import BLUE, INK, RED, drawn_png
from tasks.shared.rules.run_outcomes import outcome_words

_OUTCOME_SYMBOLS = {"no_drift": "🟢", "drift": "🟠", "degraded": "🔴", "not_checked": "⚪"}
_MAX_COLUMNS = 60


def monitoring_markdown(
    report: MonitoringReport, rules: MonitoringRules, *, where: str, links: Mapping[str, str]
) -> Markdown:
    """Return the report as Markdown. `where` is the current data in words, and `links` are addresses by label."""
    return Markdown("\n").join(_lines(report, rules, where, links)) + Markdown("\n")


def _lines(report: MonitoringReport, rules: MonitoringRules, where: str, links: Mapping[str, str]) -> Iterator[str]:
    title = f"{_OUTCOME_SYMBOLS[report.outcome]} {report.model} {report.version}"
    yield Markdown("# {}: {}").format(title, outcome_words(report.outcome))
    yield from ("", Markdown("**{}**").format(report.sentence), "", f"Data: {where}.")
    if report.rows_per_window:
        yield f"Rows per window, newest first: {', '.join(f'{rows:,}' for rows in report.rows_per_window)}."
    if links:
        shown = (markdown_link(name, address) for name, address in links.items() if address)
        yield from ("", Markdown(" · ").join(shown))
    if report.findings:
        rows = [(each.cause, each.column or "–", each.severity, each.text) for each in report.findings]
        yield from ("", Markdown("## Findings"), "", markdown_table(("cause", "column", "severity", ""), rows))
    if report.quality_metrics:
        head = ("metric", "at promotion", "now", "interval (99 %)", "rows", "")
        yield from ("", Markdown("## Quality on labels that have arrived"), "")
        yield markdown_table(head, map(_quality, report.quality_metrics))
    if report.column_drifts:
        title = Markdown("## Columns of the newest window (threshold of the index: {:g})")
        more = len(report.column_drifts) - _MAX_COLUMNS
        drifts = [_column(each) for each in report.column_drifts[:_MAX_COLUMNS]]
        yield from ("", title.format(rules.psi_threshold), "")
        yield markdown_table(
            ("column", "index", "p-value", "change", "missing", ""),
            [*drifts, *([(f"… {more} more", "", "", "", "", "")] if more > 0 else [])],
        )
    if report.notes:
        yield from ("", Markdown("## Not monitored"), "", *(Markdown("- {}").format(note) for note in report.notes))


def _quality(measured: QualityMetric) -> tuple[str, ...]:
    interval = f"{measured.lower:.4f} to {measured.upper:.4f}"
    verdict = Markdown("**worse**") if measured.worse else "unchanged"
    figures = (f"{measured.reference_value:.4f}", f"{measured.current_value:.4f}", interval, f"{measured.rows:,}")
    return (measured.metric, *figures, verdict)


def _column(each: ColumnDrift) -> tuple[str, ...]:
    effect = "–" if math.isnan(each.psi) else f"{each.psi:.3f}"
    missing = f"{each.reference.missing_share:.1%} → {each.current.missing_share:.1%}"
    mark = Markdown("**drift**") if each.drifted else ""
    return each.column.display_name, effect, f"{each.p_value:.2g}", each.change, missing, mark


_THEN = "#9aa3ad"
_MAX_BARS = 12


def monitoring_plot(report: MonitoringReport, rules: MonitoringRules) -> bytes | None:
    """Return a PNG of the index by column, and the shares by bin of the three largest; None without columns."""
    if not report.column_drifts:
        return None
    first = report.column_drifts[:MAX_COLUMNS_NAMED]

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, 1 + len(first), squeeze=False)[0]
        _draw_effects(axes[0], report.column_drifts[:_MAX_BARS], rules)
        for place, compared in zip(axes[1:], first, strict=True):
            _draw_shares(place, compared)

    return drawn_png(draw, (11, 3.6), font_size=8)


def _draw_effects(axes: Any, compared: tuple[ColumnDrift, ...], rules: MonitoringRules) -> None:
    ordered = list(reversed(compared))
    colours = [RED if each.drifted else _THEN for each in ordered]
    names = [_short(each.column.display_name) for each in ordered]
    axes.barh(range(len(ordered)), [each.psi for each in ordered], color=colours)
    axes.set_yticks(range(len(ordered)), names)
    axes.axvline(rules.psi_threshold, color=INK, linewidth=1, linestyle="--")
    axes.set_xlim(0, max(rules.psi_threshold * 1.2, max(each.psi for each in ordered) * 1.05))
    axes.set(title=f"Index by column (threshold {rules.psi_threshold:g})")


def _draw_shares(axes: Any, each: ColumnDrift) -> None:
    filled = [at for at, pair in enumerate(zip(each.reference.bins, each.current.bins, strict=True)) if any(pair)]
    places = range(len(filled))
    for shift, counts, colour, label in ((-0.2, each.reference, _THEN, "reference"), (0.2, each.current, BLUE, "now")):
        known = counts.binned_rows or 1
        shares = [counts.bins[at] / known for at in filled]
        axes.bar([place + shift for place in places], shares, 0.4, color=colour, label=label)
    labels = [_short(each.column.label(at)) for at in filled]
    if len(labels) <= _MAX_BARS:
        axes.set_xticks(list(places), labels, rotation=40, ha="right")
    axes.set(title=f"{_short(each.column.display_name)}: {each.psi:.2f}")
    axes.legend(frameon=False)


def _short(text: str) -> str:
    return text if len(text) <= 22 else text[:21] + "…"
