"""The plot of an evaluation, drawn off-screen. Only this module imports matplotlib, and only when it draws."""

import io
import math
from typing import Any

from tasks.evaluation.rules.curves import Curve
from tasks.evaluation.rules.evaluation import Evaluation

# Okabe and Ito's palette: distinguishable with common colour blindness, and in grey by the line styles.
_STYLE: dict[str, dict[str, Any]] = {
    "champion": {"color": "#56606b", "linestyle": "--", "marker": "s"},
    "challenger": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
}
_OUTCOME_COLOURS = {"better": "#009E73", "worse": "#D55E00", "no different": "#B07D00", "cannot tell": "#B07D00"}
_INK, _FAINT = "#2b2f36", "#c9ced6"


def evaluation_plot(evaluation: Evaluation) -> bytes:
    """Return a PNG of two panels: the models' behaviour, and their difference (first model: calibration)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    inks = {"text.color": _INK, "axes.edgecolor": _FAINT, "axes.labelcolor": _INK}
    with rc_context({"font.size": 9, "text.parse_math": False} | inks):  # a class may be called `$a_$`
        figure = Figure(figsize=(9, 3.9), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        _draw_behaviour(left, evaluation)
        _draw_comparison_panel(right, evaluation)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    return picture.getvalue()


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
    """Return the legend's texts with each model's auc."""
    champion = evaluation.champion_metrics or {}
    values = {"challenger": evaluation.metrics["auc"], "champion": champion.get("auc", math.nan)}
    return {name: f"{name} (auc {value:.4f})" for name, value in values.items()}


def _draw_lines(axes: Any, curves: list[Curve], labels: dict[str, str], *, marked: bool) -> None:
    """Draw curves over the diagonal, the challenger on top."""
    ends = [value for curve in curves for value in (*curve.x, *curve.y)] if marked else [0.0, 1.0]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=_FAINT, linewidth=1, zorder=1)
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
        axes.bar(
            [x + shift for x in curve.x], curve.y, width * 0.92, color=_STYLE[curve.model]["color"], label=curve.model
        )
    if len(classes) <= 12:
        axes.set_xticks(
            range(len(classes)),
            [name if len(name) <= 14 else name[:13] + "…" for name in classes],
            rotation=0 if sum(map(len, classes)) <= 40 else 30,
        )
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
    axes.axvspan(-found.margin, found.margin, color=_FAINT, alpha=0.45, linewidth=0, label=f"margin ±{found.margin:g}")
    for edge in (-found.margin, found.margin):
        axes.axvline(edge, color=_FAINT, linewidth=1)
    axes.axvline(0, color=_INK, linewidth=1)
    reach = [[found.difference - found.lower], [found.upper - found.difference]]
    axes.errorbar(
        [found.difference],
        [0],
        xerr=[[max(0.0, each[0])] for each in reach],
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
    """Write a text in place of a plot that has no data."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, fontsize=11)
