"""The report of an evaluation: GitHub Markdown for the artifact and the run, and a plot."""

import html
import math
import re
from collections.abc import Iterator, Sequence

from tasks.evaluation.rules.evaluation import DeclaredBound, Evaluation
from tasks.evaluation.rules.metrics import METRICS, SliceResult
from tasks.evaluation.rules.plot import evaluation_plot

__all__ = ["evaluation_markdown", "evaluation_plot"]

_VERDICT_TITLES = {"pass": "✅ Pass", "hold": "⛔ Hold", "inconclusive": "🟡 Inconclusive"}


def evaluation_markdown(evaluation: Evaluation, *, model: str, version: str, champion_version: str | None) -> str:
    """Return the evaluation as GitHub Markdown: verdict and reasons first, then the tables.

    Args:
        evaluation: the result.
        model: the model's name.
        version: the challenger's version.
        champion_version: the champion's; None or empty when there is none.
    """
    against = f"champion version {_cell(champion_version)}" if champion_version else "no champion (first model)"
    verdict = evaluation.verdict
    parts = [
        f"# {_VERDICT_TITLES[verdict.outcome]}: {_cell(model)} version {_cell(version)}",
        f"{evaluation.rows:,} rows of the holdout, against {against}; "
        f"{evaluation.leaked} entities of the holdout seen in training.",
        "\n".join(f"- {_cell(reason)}" for reason in verdict.reasons),
        "## Metrics",
        _table(("metric", "challenger", "champion", "bound"), _metric_rows(evaluation)),
        *_comparison_part(evaluation),
        *_slice_part(evaluation),
        *_notes_part(evaluation),
        *_curve_part(evaluation),
    ]
    return "\n\n".join(parts) + "\n"


def _cell(text: object) -> str:
    """Return text escaped for a table cell, so that it never becomes markup, a link or an image."""
    flat = " ".join(str(text).split())
    marked = re.sub(r"([\\`*\[\]|~#!])|((?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))", r"\\\g<0>", flat)
    return html.escape(marked, quote=False).replace("://", "&#58;//").replace("@", "&#64;")


def _number(value: float | None) -> str:
    """Return a number with 4 digits; "–" for None, and a text for a number that is not finite."""
    if value is None:
        return "–"
    return f"{value:.4g}" if math.isfinite(value) else "**not finite**"


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """Return a table, the first column to the left, the others to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bound_text(bound: DeclaredBound) -> str:
    """Return a bound as a sign and a number."""
    named = (("≥", bound.at_least), ("≤", bound.at_most))
    return " and ".join(f"{sign} {value:g}" for sign, value in named if value is not None)


def _metric_rows(evaluation: Evaluation) -> Iterator[Sequence[str]]:
    """Yield metric, challenger, champion and the floors on it."""
    champion = evaluation.champion_metrics or {}
    for metric in METRICS[evaluation.task]:
        bounds = [_bound_text(each) for each in evaluation.bounds if each.column is None and each.metric == metric]
        measured = _number(evaluation.metrics.get(metric))
        yield metric, measured, _number(champion.get(metric)), ", ".join(bounds) or "–"


def _comparison_part(evaluation: Evaluation) -> list[str]:
    """Return the comparison with its interval, or nothing for a first model."""
    found = evaluation.comparison
    if found is None:
        return []
    head = ("metric", "difference", f"{found.confidence:.0%} interval", "margin", "rule", "outcome")
    bounds = f"{found.lower:+.4f} to {found.upper:+.4f}" if math.isfinite(found.lower) else "none"
    shown = f"{found.difference:+.4f}" if math.isfinite(found.difference) else "none"
    row = (found.metric, shown, bounds, f"{found.margin:g}", found.rule, f"**{found.outcome}**")
    meaning = f"Positive is in the challenger's favour. Method: {found.method}."
    return ["## Against the champion", _table(head, iter([row])), meaning]


def _slice_part(evaluation: Evaluation) -> list[str]:
    """Return the table of slices, or nothing when none is declared."""
    if not evaluation.slices:
        return []
    head = ("slice", "metric", "rows", "challenger", "bound", "")
    return ["## Slices", _table(head, (_slice_row(each, evaluation.bounds) for each in evaluation.slices))]


def _slice_row(found: SliceResult, bounds: Sequence[DeclaredBound]) -> Sequence[str]:
    """Return one row of the table of slices; the last cell tells whether the value is within its bounds."""
    declared = [each for each in bounds if (each.column, each.metric) == (found.column, found.metric)]
    applicable = [each for each in declared if found.rows >= each.minimum_rows]
    state = (
        "within bounds"
        if all(_is_within_bound(found.metric_value, each) for each in applicable)
        else "**out of bounds**"
    )
    return (
        f"{_cell(found.column)} = {_cell(found.value)}",
        found.metric,
        f"{found.rows:,}",
        _number(found.metric_value),
        ", ".join(_bound_text(each) for each in declared),
        state if applicable else "not evaluated",
    )


def _is_within_bound(value: float | None, bound: DeclaredBound) -> bool:
    """Return whether a value is a number within the bound."""
    if value is None or not math.isfinite(value):
        return False
    low = bound.at_least is None or value >= bound.at_least
    return low and (bound.at_most is None or value <= bound.at_most)


def _notes_part(evaluation: Evaluation) -> list[str]:
    """Return the slices that were not evaluated, or nothing."""
    notes = evaluation.verdict.notes
    return ["## Not evaluated", "\n".join(f"- {_cell(note)}" for note in notes)] if notes else []


def _curve_part(evaluation: Evaluation) -> list[str]:
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
    return [f"## {title} of the challenger", _table(("rows", predicted, observed), rows)]
