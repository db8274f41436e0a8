"""The picture of a judgement, drawn off-screen: the columns that matter, and how their shares moved."""

import io
from typing import Any

from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.judgement import MAX_FINDINGS_NAMED, MonitoringReport

# Okabe and Ito's palette, as in the picture of an evaluation.
_THEN, _NOW, _DRIFT, _INK, _FAINT = "#9aa3ad", "#0072B2", "#D55E00", "#2b2f36", "#c9ced6"
_MAX_BARS = 12


def monitoring_plot(report: MonitoringReport, rules: MonitoringRules) -> bytes | None:
    """Return a PNG: the index by column, and the shares by bin of the three furthest; None when none was compared."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not report.column_drifts:
        return None
    inks = {"text.color": _INK, "axes.edgecolor": _FAINT, "axes.labelcolor": _INK}
    with rc_context({"font.size": 8, "text.parse_math": False} | inks):
        figure = Figure(figsize=(11, 3.6), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        first = report.column_drifts[:MAX_FINDINGS_NAMED]
        axes = figure.subplots(1, 1 + len(first), squeeze=False)[0]
        for each in axes:
            each.spines[["top", "right"]].set_visible(False)
        _draw_effects(axes[0], report.column_drifts[:_MAX_BARS], rules)
        for place, compared in zip(axes[1:], first, strict=True):
            _draw_shares(place, compared)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


def _draw_effects(axes: Any, compared: tuple[ColumnDrift, ...], rules: MonitoringRules) -> None:
    ordered = list(reversed(compared))
    colours = [_DRIFT if each.drifted else _THEN for each in ordered]
    names = [_short(each.column.display_name) for each in ordered]
    axes.barh(range(len(ordered)), [each.psi for each in ordered], color=colours)
    axes.set_yticks(range(len(ordered)), names)
    axes.axvline(rules.psi_threshold, color=_INK, linewidth=1, linestyle="--")
    axes.set_xlim(0, max(rules.psi_threshold * 1.2, max(each.psi for each in ordered) * 1.05))
    axes.set(title=f"Index by column ({rules.psi_threshold:g} counts)")


def _draw_shares(axes: Any, each: ColumnDrift) -> None:
    places = range(each.column.bins)
    for shift, counts, colour, label in ((-0.2, each.reference, _THEN, "reference"), (0.2, each.current, _NOW, "now")):
        known = counts.binned_rows or 1
        shares = [found / known for found in counts.bins]
        axes.bar([place + shift for place in places], shares, 0.4, color=colour, label=label)
    labels = [_short(each.column.label(place)) for place in places]
    if len(labels) <= _MAX_BARS:
        axes.set_xticks(list(places), labels, rotation=40, ha="right")
    axes.set(title=f"{_short(each.column.display_name)}: {each.psi:.2f}")
    axes.legend(frameon=False)


def _short(text: str) -> str:
    return text if len(text) <= 22 else text[:21] + "…"
