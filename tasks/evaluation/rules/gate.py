"""The gates: the conditions that an evaluated model must meet before it may be proposed for approval.

They fail closed. A pass needs at least one metric, only finite metrics, every floor and slice within its bound, no
leak, and a comparison that satisfies its rule. The verdict is hold when a value is missing, NaN, infinite or empty.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeGuard

from tasks.evaluation.rules.comparison import ModelComparison
from tasks.evaluation.rules.leaks import LeakFinding
from tasks.evaluation.rules.metrics import SliceResult
from tasks.shared.rules.model.parts import EvaluationSpec, Floor, SliceFloor

GateOutcome = Literal["pass", "hold", "inconclusive"]

FIRST_MODEL = "First model: evaluated against floors only, because there is no champion."


@dataclass(frozen=True)
class Verdict:
    """The result of all gates.

    Attributes:
        outcome: `pass` allows a request for approval; `hold` and `inconclusive` keep the champion.
        reasons: sentences: why the model is held, or what it satisfied.
        notes: sentences about slices that were not evaluated. They decide nothing.
        first_model: whether there was no champion to compare with.
        failed_gates: the gates that failed, by the names under which people may waive them: `minimum_rows`, a floor's
            metric, `<metric> by <column>` of a slice, `comparison`, and the signs of a leak (`leaks.py`). "" is a
            failure that nobody may waive: a proven leak, no metric, a metric that is not a number, no rules.
    """

    outcome: GateOutcome
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    first_model: bool
    failed_gates: tuple[str, ...] = ()


def apply_gate(
    spec: EvaluationSpec,
    *,
    rows: int,
    metrics: Mapping[str, float | None],
    slices: Sequence[SliceResult],
    comparison: ModelComparison | None,
    first_model: bool,
    leaked: int,
    signs_of_leak: Sequence[LeakFinding],
    leaked_words: str = "entities of the holdout were seen in training",
    undefined: Mapping[str, str] | None = None,
) -> Verdict:
    """Return the verdict over what was measured on the holdout.

    Args:
        spec: floors, slices and the least number of rows.
        rows: how many rows of the holdout were measured.
        metrics: all metrics of the challenger by name; each must be finite, with a floor or without.
        slices: the results for the slices of `spec`.
        comparison: challenger against champion; None for a first model only.
        first_model: whether there is no champion.
        leaked: how many entities, groups or rows the holdout shares with training, where none is allowed.
        leaked_words: what they are.
        signs_of_leak: what `search_leaks` and `perfect_metrics` found.
        undefined: why a metric is NaN, by name.
    """
    why = undefined or {}
    failures = [
        *_row_and_leak_reasons(spec, rows, leaked, leaked_words),
        *(("", reason) for reason in _unmeasured_reasons(metrics, why)),
        *(_floor_reason(floor, metrics.get(floor.metric), why.get(floor.metric, "")) for floor in spec.floors),
        *((f"{f.metric} by {f.column}", reason) for f in spec.slices for reason in _slice_reasons(f, slices)),
        *_comparison_reasons(comparison, first_model),
        *((sign.gate, sign.sentence) for sign in signs_of_leak),
    ]
    reasons = tuple(dict.fromkeys(reason for _, reason in failures if reason))
    gates = tuple(dict.fromkeys(gate for gate, reason in failures if reason))
    notes = tuple(dict.fromkeys(note for floor in spec.slices for note in _slice_notes(floor, slices)))
    first = (FIRST_MODEL,) if first_model else ()
    if reasons:
        return Verdict("hold", reasons + first, notes, first_model, gates)
    if comparison is not None and comparison.outcome != "better":
        return Verdict("inconclusive", (comparison.sentence,), notes, first_model, ("comparison",))
    passed_floors = tuple(_floor_kept_sentence(floor, metrics) for floor in spec.floors)
    compared = (comparison.sentence,) if comparison is not None else ()
    return Verdict("pass", passed_floors + compared + first, notes, first_model)


def _row_and_leak_reasons(spec: EvaluationSpec, rows: int, leaked: int, words: str) -> list[tuple[str, str]]:
    """Return gates and reasons of the failures that need no metric: too few rows, no floor, a leak."""
    reasons = []
    least = max(1, spec.minimum_rows)
    if not rows >= least:
        few = f"The holdout has {rows} rows, fewer than the {least} that minimum_rows asks for."
        reasons.append(("minimum_rows" if rows >= 1 else "", few))
    if not spec.floors:
        reasons.append(("", "There is no floor, so nothing would be evaluated: declare one in evaluation.floors."))
    if leaked != 0:  # not `> 0`: a count that is NaN or negative is no proof either
        reasons.append(("", f"{leaked} {words}, where 0 are allowed."))
    return reasons


def _floor_reason(floor: Floor, value: float | None, why: str) -> tuple[str, str]:
    """Return gate and reason of a violated floor. The gate is "" when the value is not finite or there is no bound."""
    is_waivable = not _not_finite(floor.metric, value, why) and not _unbounded_floor(floor, floor.metric)
    return (floor.metric if is_waivable else ""), _floor_violation(floor, value, why)


def _unmeasured_reasons(metrics: Mapping[str, float | None], why: Mapping[str, str]) -> list[str]:
    """Return a reason for each metric that is not a finite number, and one when there is no metric."""
    if not metrics:
        return ["No metric was measured, so nothing can be evaluated."]
    return [_not_finite(name, value, why.get(name, "")) for name, value in metrics.items()]


def _is_number(value: object) -> TypeGuard[float]:
    """Return whether the value is a number, NaN and infinity included. True and False are not numbers."""
    return type(value) is not bool and isinstance(value, Real)


def _not_finite(name: str, value: object, why: str) -> str:
    """Return the sentence about a value that is not a finite number; "" when it is one."""
    if value is None:
        return f"{name} was not measured."
    if not _is_number(value) or math.isnan(value):
        return f"{name} is not a number{': ' + why if why else ''}."
    return f"{name} is infinite ({value})." if math.isinf(value) else ""


def _floor_violation(floor: Floor, value: float | None, why: str, where: str = "") -> str:
    """Return the sentence about a violated floor; "" when the value is within its bound."""
    name = floor.metric + where
    problem = _not_finite(name, value, why) or _unbounded_floor(floor, name)
    if problem or value is None:
        return problem
    if floor.at_least is not None and not value >= floor.at_least:
        shown = _distinguishing_text(value, floor.at_least)
        return f"{name} is {shown}, below its floor of {_exact_text(floor.at_least)}."
    if floor.at_most is not None and not value <= floor.at_most:
        shown = _distinguishing_text(value, floor.at_most)
        return f"{name} is {shown}, above its limit of {_exact_text(floor.at_most)}."
    return ""


def _unbounded_floor(floor: Floor, name: str) -> str:
    """Return the sentence about a floor without a finite bound; "" for a bound that can fail."""
    bounds = [bound for bound in (floor.at_least, floor.at_most) if bound is not None]
    if bounds and all(_is_number(bound) and math.isfinite(bound) for bound in bounds):
        return ""
    return f"{name} has a floor without a finite bound: give at_least or at_most."


def _distinguishing_text(value: float, *bounds: float) -> str:
    """Return the value with 4 digits, or with as many as show on which side of each bound it lies."""
    texts = (f"{value:.{digits}g}" for digits in range(4, 18))
    sides = [(value > bound, value < bound) for bound in bounds]
    fits = (text for text in texts if [(float(text) > each, float(text) < each) for each in bounds] == sides)
    return next(fits, repr(value))


def _exact_text(bound: float) -> str:
    """Return the bound with 6 digits, or with as many as give its exact value."""
    texts = (f"{bound:.{digits}g}" for digits in range(6, 18))
    return next((text for text in texts if float(text) == bound), repr(bound))


def _floor_kept_sentence(floor: Floor, metrics: Mapping[str, float | None]) -> str:
    """Return the sentence about a floor that the value satisfies."""
    named = (("at least", floor.at_least), ("at most", floor.at_most))
    bounds = " and ".join(f"{name} {_exact_text(bound)}" for name, bound in named if bound is not None)
    value = _distinguishing_text(metrics[floor.metric] or 0.0, *(bound for _, bound in named if bound is not None))
    return f"{floor.metric} is {value}, within its bound of {bounds}."


def _slice_results(floor: SliceFloor, slices: Sequence[SliceResult]) -> list[SliceResult]:
    """Return the results for the column and metric of a slice floor."""
    return [each for each in slices if (each.column, each.metric) == (floor.column, floor.metric)]


def _slice_reasons(floor: SliceFloor, slices: Sequence[SliceResult]) -> list[str]:
    """Return why a slice floor fails: a value out of bound or undefined, or no value with enough rows."""
    evaluated = [each for each in _slice_results(floor, slices) if each.rows >= max(1, floor.minimum_rows)]
    if not evaluated:
        return [f"No value of {floor.column} has the {floor.minimum_rows} rows that {floor.metric} by slice needs."]
    return [_floor_violation(floor, each.metric_value, each.undefined_because, f" {each.place}") for each in evaluated]


def _slice_notes(floor: SliceFloor, slices: Sequence[SliceResult]) -> list[str]:
    """Return a note for each value that has too few rows."""
    return [
        f"{each.metric} {each.place} was not evaluated: fewer than {floor.minimum_rows} rows."
        for each in _slice_results(floor, slices)
        if each.rows < max(1, floor.minimum_rows)
    ]


def _comparison_reasons(comparison: ModelComparison | None, first_model: bool) -> list[tuple[str, str]]:
    """Return gate and reason when the comparison fails: worse, missing, or an outcome without an interval."""
    if comparison is None:
        return [] if first_model else [("", "There is a champion, but the challenger was not compared with it.")]
    if first_model:
        return [("", "There is a comparison, but no champion to compare with.")]
    if comparison.outcome == "worse":
        return [("comparison", comparison.sentence)]
    if comparison.outcome == "better" and not math.isfinite(comparison.lower + comparison.upper):
        return [("", f"The comparison on {comparison.metric} finds better without an interval.")]
    return []
