"""Comparison of champion and challenger on the same rows: the difference of a metric, its interval, the outcome."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tasks.evaluation.rules.intervals import Interval, no_interval, paired_interval
from tasks.evaluation.rules.metrics import compute_metric, higher_is_better
from tasks.evaluation.rules.predictions import FloatArray, Labels, TaskType, check_predictions, encode_truth
from tasks.shared.rules.refusal import Refusal

ComparisonRule = Literal["superior", "non_inferior"]
"""What the challenger has to show: that it is better, or that it is worse by less than the margin."""

ComparisonOutcome = Literal["better", "worse", "no different", "cannot tell"]


@dataclass(frozen=True)
class ModelComparison:
    """How the challenger compares with the champion.

    Attributes:
        difference: in favour of the challenger: positive is better, whichever way the metric points.
        lower: lower bound of the difference; NaN when no interval can be given.
        upper: upper bound; NaN in the same cases.
        confidence: confidence level of the two-sided interval.
        margin: the difference that does not matter, in the unit of the metric.
        rule: what the challenger had to show.
        method: how the interval was computed.
        rows: the rows that both models predicted.
        outcome: `better` satisfies the rule.
        sentence: the result in one sentence.
        level: the one-sided level at which the challenger may be found better; at most (1 - confidence) / 2.
        level_lower: the lower bound at that level, which decides whether it is better.
    """

    metric: str
    champion_value: float
    challenger_value: float
    difference: float
    lower: float
    upper: float
    confidence: float
    margin: float
    rule: ComparisonRule
    method: str
    rows: int
    outcome: ComparisonOutcome
    sentence: str
    level: float
    level_lower: float


def compare_models(
    task: TaskType,
    classes: Sequence[str],
    metric: str,
    truth: Labels,
    *,
    champion: npt.NDArray[Any],
    challenger: npt.NDArray[Any],
    confidence: float,
    margin: float,
    rule: ComparisonRule,
    level: float | None = None,
    training_rows: float = math.inf,
    seed: int = 0,
) -> ModelComparison:
    """Compare two models on the same rows.

    Args:
        classes: labels in the order of the predictions' columns.
        metric: one of the task's metrics.
        truth: (rows,) labels or numbers.
        confidence: confidence level of the two-sided interval, between 0 and 1. With 0.95 the chance of a wrong
            `better` is at most 2.5 %.
        margin: the difference that does not matter, 0 or more, in the unit of the metric.
        rule: `superior` (lower bound above 0) or `non_inferior` (lower bound above -margin).
        level: the chance of a wrong `better` that is left for this comparison, where many are made; None leaves the
            interval's.
        training_rows: the rows that a model trains on, when `level` must also cover the luck of training.
        seed: seed of the bootstrap.

    Raises:
        Refusal: truth or predictions are invalid, or confidence, level, margin or rule are.
    """
    undivided = (1 - confidence) / 2
    level = undivided if level is None else level
    _check_settings(confidence, level, margin, rule)
    codes = encode_truth(task, classes, truth)
    old = check_predictions(task, classes, len(codes), champion, where="champion")
    new = check_predictions(task, classes, len(codes), challenger, where="challenger")
    values = compute_metric(task, metric, codes, old), compute_metric(task, metric, codes, new)
    if np.array_equal(old, new) or not np.isfinite(values).all():
        interval = _degenerate_interval(old, new)
    else:
        interval = paired_interval(
            metric, codes, old, new, confidence=confidence, level=level, training_rows=training_rows, seed=seed
        )
    return _comparison_result(
        metric, values, interval, len(codes), confidence=confidence, level=level, margin=margin, rule=rule
    )


def too_few_rows(
    metric: str,
    rows: int,
    *,
    least: int,
    since: str,
    champion: str,
    confidence: float,
    level: float,
    margin: float,
    rule: ComparisonRule,
) -> ModelComparison:
    """Return the result when fewer than `least` rows are newer than `since`, until when the champion was trained."""
    nan = float("nan")
    sentence = f"Only {rows} rows of the holdout are newer than {since}, until when the champion (version {champion}) "
    sentence += f"was trained, and a comparison needs {least}: it is made when more rows have arrived."
    return ModelComparison(
        metric, nan, nan, nan, nan, nan, confidence, margin, rule, "none", rows, "cannot tell", sentence,
        level, nan,
    )  # fmt: skip


def _check_settings(confidence: float, level: float, margin: float, rule: str) -> None:
    """Refuse an invalid confidence, level, margin or rule."""
    if not 0 < confidence < 1:
        remedy = "Use a number between 0 and 1, such as 0.95."
        raise Refusal("the confidence is not between 0 and 1", where="confidence", value=confidence, remedy=remedy)
    if not 0 <= level <= (1 - confidence) / 2:
        remedy = f"Use a number from 0 to {(1 - confidence) / 2:g}, the chance that the confidence leaves."
        raise Refusal("the level is not one that the confidence leaves", where="level", value=level, remedy=remedy)
    if not 0 <= margin < float("inf"):
        remedy = "Use a number of 0 or more, in the unit of the metric."
        raise Refusal("the margin is not a number of 0 or more", where="margin", value=margin, remedy=remedy)
    if rule not in ("superior", "non_inferior"):
        remedy = "Use superior or non_inferior."
        raise Refusal("there is no such rule", where="rule", value=rule, remedy=remedy)


def _degenerate_interval(old: FloatArray, new: FloatArray) -> Interval:
    """Return the interval of identical predictions, or none when the metric is undefined for either model."""
    if np.array_equal(old, new):
        return no_interval("identical predictions", "", 0.0)
    return no_interval("none", "the metric is not a finite number for both models")


def _comparison_result(
    metric: str,
    values: tuple[float, float],
    interval: Interval,
    rows: int,
    *,
    confidence: float,
    level: float,
    margin: float,
    rule: ComparisonRule,
) -> ModelComparison:
    """Return the result, with the difference and its bounds in favour of the challenger."""
    champion, challenger = values
    sign = 1 if higher_is_better(metric) else -1
    lower, upper = (interval.lower, interval.upper) if sign == 1 else (0 - interval.upper, 0 - interval.lower)
    level_lower = interval.level_lower if sign == 1 else 0 - interval.level_upper
    identical = interval.method == "identical predictions"
    difference = 0.0 if identical else sign * (challenger - champion)
    outcome = interval_outcome(lower, upper, margin, rule, level_lower=level_lower)
    sentence = f"On {metric} the challenger ({_number(challenger)}) {_OUTCOME_VERBS[outcome, rule]} the champion "
    sentence += f"({_number(champion)}), margin {margin:g}: "
    if interval.insufficiency:
        sentence += f"{interval.insufficiency}."
    else:
        sentence += f"{difference:+.4f} in its favour, {confidence:.0%} interval {lower:+.4f} to {upper:+.4f}"
        sentence += f" ({interval.method}, {rows:,} rows)"
        sentence += "." if level_lower == lower else f"; {level_lower:+.4f} is the lower bound that decides."
    return ModelComparison(
        metric,
        champion,
        challenger,
        difference,
        lower,
        upper,
        confidence,
        margin,
        rule,
        interval.method,
        rows,
        outcome,
        sentence,
        level,
        level_lower,
    )


_OUTCOME_VERBS: dict[tuple[ComparisonOutcome, ComparisonRule], str] = {
    ("better", "superior"): "is better than",
    ("better", "non_inferior"): "is not worse, by the margin, than",
    ("worse", "superior"): "is worse than",
    ("worse", "non_inferior"): "is worse than",
    ("no different", "superior"): "is no different from",
    ("no different", "non_inferior"): "is no different from",
    ("cannot tell", "superior"): "cannot be distinguished from",
    ("cannot tell", "non_inferior"): "cannot be distinguished from",
}


def interval_outcome(
    lower: float, upper: float, margin: float, rule: ComparisonRule, *, level_lower: float
) -> ComparisonOutcome:
    """Return the outcome for an interval in favour of the challenger. The first rule that applies decides.

    An interval that is exactly zero: no different. No interval: cannot tell. Lower bound at the comparison's level
    above 0 (superior) or above -margin (non-inferior): better. Upper bound below 0: worse. Wholly within the
    margin: no different. Otherwise: cannot tell.
    """
    if lower == upper == 0:
        return "no different"
    if not (np.isfinite(lower) and np.isfinite(upper)):
        return "cannot tell"
    if level_lower > (0 if rule == "superior" else -margin):
        return "better"
    if upper < 0:
        return "worse"
    return "no different" if -margin <= lower and upper <= margin else "cannot tell"


def _number(value: float) -> str:
    """Return a metric's value for a sentence."""
    return f"{value:.4f}" if np.isfinite(value) else "not a finite number"
