"""The report of an evaluation: GitHub Markdown for the artifact and the run, and a plot."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from runtime.foreign_text import Markdown, markdown_table
from tasks.evaluation.rules.curves import Curve
from tasks.evaluation.rules.evaluation import DeclaredBound, Evaluation
from tasks.evaluation.rules.metrics import METRICS, SliceResult
from tasks.shared.rules.figures import BLUE, FAINT, GREY, INK, RED, drawn_png

_VERDICT_TITLES = {"pass": "✅ Pass", "hold": "⛔ Hold", "inconclusive": "🟡 Inconclusive"}


def evaluation_markdown(evaluation: Evaluation, *, model: str, version: str) -> Markdown:
    """Return the evaluation as GitHub Markdown: verdict and reasons first, then the tables."""
    champion = evaluation.champion_version
    against = f"champion version {champion}" if champion else "no champion (first model)"
    verdict = evaluation.verdict
    parts = [
        Markdown("# {}: {} version {}").format(_VERDICT_TITLES[verdict.outcome], model, version),
        f"{evaluation.rows:,} rows of the holdout, against {against}; {evaluation.leaked} {evaluation.leaked_words}.",
        _list(verdict.reasons),
        Markdown("## Metrics"),
        _table(("metric", "challenger", "champion", "bound"), _metric_rows(evaluation)),
        *_comparison_part(evaluation),
        *_slice_part(evaluation),
        *_leak_part(evaluation),
        *_notes_part(evaluation),
        *_curve_part(evaluation),
    ]
    return Markdown("\n\n").join(parts) + Markdown("\n")


def _list(sentences: Iterable[str]) -> Markdown:
    return Markdown("\n").join(Markdown("- {}").format(each) for each in sentences)


def _number(value: float | None) -> str:
    """Return a number with 4 digits; "–" for None, and a text for a number that is not finite."""
    if value is None:
        return "–"
    return f"{value:.4g}" if math.isfinite(value) else Markdown("**not finite**")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markdown:
    """Return a table, the first column to the left, the others to the right."""
    return markdown_table(head, rows, "l" + "r" * (len(head) - 1))


def _bound_text(bound: DeclaredBound) -> str:
    named = (("≥", bound.at_least), ("≤", bound.at_most))
    return " and ".join(f"{sign} {value:g}" for sign, value in named if value is not None)


def _metric_rows(evaluation: Evaluation) -> Iterator[Sequence[str]]:
    champion = evaluation.champion_metrics or {}
    for metric in METRICS[evaluation.task]:
        bounds = [_bound_text(each) for each in evaluation.bounds if each.column is None and each.metric == metric]
        measured = _number(evaluation.metrics.get(metric))
        yield metric, measured, _number(champion.get(metric)), ", ".join(bounds) or "–"


def _comparison_part(evaluation: Evaluation) -> list[Markdown]:
    found = evaluation.comparison
    if found is None:
        return []
    head = ("metric", "difference", f"{found.confidence:.0%} interval", "margin", "rule", "outcome")
    bounds = f"{found.lower:+.4f} to {found.upper:+.4f}" if math.isfinite(found.lower) else "none"
    shown = f"{found.difference:+.4f}" if math.isfinite(found.difference) else "none"
    row = (found.metric, shown, bounds, f"{found.margin:g}", found.rule, Markdown("**{}**").format(found.outcome))
    meaning = Markdown("Positive is in the challenger's favour. Method: {}.").format(found.method)
    if evaluation.spent_level:
        bound = f"{found.level_lower:+.4f}" if math.isfinite(found.level_lower) else "none"
        sentence = evaluation.spent_level.sentence
        meaning += Markdown("\n\nLower bound that decides: {}. {}").format(bound, sentence)
    if evaluation.compared_since:
        meaning += f" Compared on the {found.rows:,} rows newer than {evaluation.compared_since}: neither was trained "
        meaning += "on them. The champion's metrics above are of these rows, too."
    return [Markdown("## Against the champion"), _table(head, [row]), meaning]


def _slice_part(evaluation: Evaluation) -> list[Markdown]:
    if not evaluation.slices:
        return []
    head = ("slice", "metric", "rows", "challenger", "bound", "")
    return [Markdown("## Slices"), _table(head, (_slice_row(each, evaluation.bounds) for each in evaluation.slices))]


def _slice_row(found: SliceResult, bounds: Sequence[DeclaredBound]) -> Sequence[str]:
    declared = [each for each in bounds if (each.column, each.metric) == (found.column, found.metric)]
    applicable = [each for each in declared if found.rows >= each.minimum_rows]
    within = all(_is_within_bound(found.metric_value, each) for each in applicable)
    state = "within bounds" if within else Markdown("**out of bounds**")
    return (
        f"{found.column} = {found.value}",
        found.metric,
        f"{found.rows:,}",
        _number(found.metric_value),
        ", ".join(_bound_text(each) for each in declared),
        state if applicable else "not evaluated",
    )


def _is_within_bound(value: float | None, bound: DeclaredBound) -> bool:
    if value is None or not math.isfinite(value):
        return False
    low = bound.at_least is None or value >= bound.at_least
    return low and (bound.at_most is None or value <= bound.at_most)


def _leak_part(evaluation: Evaluation) -> list[Markdown]:
    """Return the features that predict best alone, and what was not searched for leaks."""
    search = evaluation.leak_search
    measure = "rank correlation" if evaluation.task == "regression" else "auc"
    rows = ((name, _number(power)) for name, power in search.strongest)
    table = [_table(("feature", f"{measure} of it alone"), rows)] if search.strongest else []
    repeats = f"{search.checked_rows:,} holdout rows were compared with training rows." if search.checked_rows else ""
    notes = Markdown("\n\n").join(filter(None, (repeats, *search.notes)))
    return [Markdown("## Signs of a leak"), *table, notes]


def _notes_part(evaluation: Evaluation) -> list[Markdown]:
    notes = evaluation.verdict.notes
    return [Markdown("## Not evaluated"), _list(notes)] if notes else []


def _curve_part(evaluation: Evaluation) -> list[Markdown]:
    """Return the challenger's calibration (regression: fit) as a table by bin, or nothing without one."""
    heads = {
        "calibration": ("Calibration", "mean predicted probability", "observed share"),
        "fit": ("Fit", "mean predicted", "mean actual"),
    }
    found = [each for each in evaluation.curves if each.model == "challenger" and each.kind in heads]
    if not found:
        return []
    title, predicted, observed = heads[found[0].kind]
    points = zip(found[0].rows, found[0].x, found[0].y, strict=True)
    rows = ((f"{count:,}", _number(x), _number(y)) for count, x, y in points)
    return [Markdown("## {} of the challenger").format(title), _table(("rows", predicted, observed), rows)]


_STYLE: dict[str, dict[str, Any]] = {
    "champion": {"color": GREY, "linestyle": "--", "marker": "s"},
    "challenger": {"color": BLUE, "linestyle": "-", "marker": "o"},
}
_OUTCOME_COLOURS = {"better": "#009E73", "worse": RED, "no different": "#B07D00", "cannot tell": "#B07D00"}


def evaluation_plot(evaluation: Evaluation) -> bytes:
    """Return a PNG of two panels: the models' behaviour, and their difference (first model: calibration)."""

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        _draw_behaviour(left, evaluation)
        _draw_comparison_panel(right, evaluation)

    return drawn_png(draw, (9, 3.9), font_size=9)


def _draw_behaviour(axes: Any, evaluation: Evaluation) -> None:
    """Draw the ROC curves, the recall by class, or predicted against actual."""
    kind = {"binary": "roc", "multiclass": "recall", "regression": "fit"}[evaluation.task]
    curves = [each for each in evaluation.curves if each.kind == kind]
    if not curves:
        _draw_text(axes, "No curve: the rows hold a single class.")
    elif kind == "recall":
        _draw_bars(axes, curves, evaluation.classes)
    elif kind == "roc":
        _draw_lines(axes, curves, _auc_labels(evaluation), marked=False)
        axes.set(title="ROC on the holdout", xlabel="False positive rate", ylabel="True positive rate")
    else:
        _draw_lines(axes, curves, {}, marked=True)
        axes.set(title="Predicted against actual, by tenth", xlabel="Mean predicted", ylabel="Mean actual")


def _auc_labels(evaluation: Evaluation) -> dict[str, str]:
    champion = evaluation.champion_metrics or {}
    values = {"challenger": evaluation.metrics["auc"], "champion": champion.get("auc", math.nan)}
    return {name: f"{name} (auc {value:.4f})" for name, value in values.items()}


def _draw_lines(axes: Any, curves: list[Curve], labels: dict[str, str], *, marked: bool) -> None:
    ends = [value for curve in curves for value in (*curve.x, *curve.y)] if marked else [0.0, 1.0]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=FAINT, linewidth=1, zorder=1)
    for curve in sorted(curves, key=lambda each: each.model, reverse=True):
        style = _STYLE[curve.model] | ({"markersize": 4} if marked else {"marker": ""})
        label = labels.get(curve.model, curve.model)
        axes.plot(curve.x, curve.y, label=label, linewidth=1.8, zorder=3, **style)
    axes.legend(frameon=False, loc="lower right")


def _draw_bars(axes: Any, curves: list[Curve], classes: tuple[str, ...]) -> None:
    """Draw the recall of each class, a bar a model; beyond 12 classes the names are left out."""
    ordered = sorted(curves, key=lambda each: each.model, reverse=True)
    width = 0.8 / len(ordered)
    for place, curve in enumerate(ordered):
        shift = (place - (len(ordered) - 1) / 2) * width
        shifted = [x + shift for x in curve.x]
        axes.bar(shifted, curve.y, width * 0.92, color=_STYLE[curve.model]["color"], label=curve.model)
    if len(classes) <= 12:
        names = [name if len(name) <= 14 else name[:13] + "…" for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=0 if sum(map(len, classes)) <= 40 else 30)
    axes.set(title="Recall by class on the holdout", xlabel="Class", ylabel="Share of the class found", ylim=(0, 1.18))
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _draw_comparison_panel(axes: Any, evaluation: Evaluation) -> None:
    """Draw the difference with its interval; without a champion the calibration."""
    if evaluation.comparison is not None:
        _draw_difference(axes, evaluation)
        return
    curves = [each for each in evaluation.curves if each.kind == "calibration"]
    if curves:
        _draw_lines(axes, curves, {}, marked=True)
        axes.set(
            title="Calibration (first model: no champion)", xlabel="Mean predicted probability", ylabel="Observed share"
        )
    else:
        _draw_text(axes, "First model: no champion\nto compare with.")


def _draw_difference(axes: Any, evaluation: Evaluation) -> None:
    """Draw one point with its interval, the line of no difference and the margin on either side."""
    found = evaluation.comparison
    if found is None or not (math.isfinite(found.lower) and math.isfinite(found.upper)):
        _draw_text(axes, "No interval: the rows are too few\nto compare the models.")
        return
    colour = _OUTCOME_COLOURS[found.outcome]
    axes.axvspan(-found.margin, found.margin, color=FAINT, alpha=0.45, linewidth=0, label=f"margin ±{found.margin:g}")
    for edge in (-found.margin, found.margin):
        axes.axvline(edge, color=FAINT, linewidth=1)
    axes.axvline(0, color=INK, linewidth=1)
    reach = (found.difference - found.lower, found.upper - found.difference)
    axes.errorbar(
        [found.difference],
        [0],
        xerr=[[max(0.0, each)] for each in reach],
        fmt="o",
        color=colour,
        markersize=8,
        capsize=6,
        linewidth=2.2,
        label=f"difference, {found.confidence:.0%} interval",
    )
    text = f"{found.difference:+.4f}\n[{found.lower:+.4f}, {found.upper:+.4f}]"
    axes.annotate(text, (found.difference, 0), (0, 14), textcoords="offset points", ha="center", color=colour)
    widest = 1.25 * max(abs(found.lower), abs(found.upper), abs(found.difference), found.margin, 1e-9)
    axes.set(
        title=f"Challenger − champion: {found.outcome}",
        xlim=(-widest, widest),
        ylim=(-1, 1),
        yticks=[],
        xlabel=f"◀ champion better     difference in {found.metric}     challenger better ▶",
    )
    axes.spines["left"].set_visible(False)
    axes.legend(frameon=False, loc="upper center", ncols=2)


def _draw_text(axes: Any, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=11)
