"""Comparison of champion and challenger: the outcome follows from the interval, and claims no more than it."""

import math

import numpy as np
import pytest

from tasks.evaluation.rules.comparison import interval_outcome
from tasks.evaluation.rules.gate import apply_gate
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.rules.model.parts import ComparisonSpec as Terms
from tasks.shared.rules.model.parts import EvaluationSpec, Floor
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.evaluation_cases import BINARY, both, compared, every_metric, models


@every_metric
def test_swapping_the_models_mirrors_the_interval(task, metric):
    classes, truth, champion, challenger = models(task)
    there = compared(task, metric, (classes, truth, champion, challenger))
    back = compared(task, metric, (classes, truth, challenger, champion))
    assert (there.champion_value, there.challenger_value) == (back.challenger_value, back.champion_value)
    mirrored = (-back.difference, -back.upper, -back.lower)
    assert (there.difference, there.lower, there.upper) == pytest.approx(mirrored, abs=1e-9)
    assert there.lower < there.difference < there.upper


@pytest.mark.parametrize("rule", ["superior", "non_inferior"])
@every_metric
def test_identical_predictions_are_no_different_and_nothing_is_nan(task, metric, rule):
    classes, truth, champion, _ = models(task, rows=60)
    found = compared(task, metric, (classes, truth, champion, champion.copy()), rule=rule, margin=0.01)
    assert (found.outcome, found.difference, found.lower, found.upper) == ("no different", 0, 0, 0)
    assert "is no different from" in found.sentence
    assert "+0.0000 to +0.0000" in found.sentence


@every_metric
def test_a_clear_difference_is_better_one_way_and_worse_the_other(task, metric):
    classes, truth, weak, strong = models(task, rows=600, noise=(3.0, 0.1))
    found = compared(task, metric, (classes, truth, weak, strong))
    assert found.outcome == "better"
    assert found.lower > 0
    assert f"is better than the champion ({found.champion_value:.4f})" in found.sentence
    found = compared(task, metric, (classes, truth, strong, weak))
    assert found.outcome == "worse"
    assert found.upper < 0
    assert "is worse than the champion" in found.sentence


@every_metric
def test_a_positive_difference_is_in_the_challengers_favour_whichever_way_the_metric_points(task, metric):
    found = compared(task, metric, models(task, rows=200, noise=(0.1, 1.0)))
    sign = 1 if higher_is_better(metric) else -1
    assert found.difference == pytest.approx(sign * (found.challenger_value - found.champion_value), abs=1e-12)
    assert found.metric == metric
    assert found.rows == 200


DECISIONS = {
    "wholly above 0": (0.001, 0.020, 0.005, "better", "better"),
    "from 0 on": (0.0, 0.020, 0.005, "cannot tell", "better"),
    "from 0 on, within the margin": (0.0, 0.004, 0.005, "no different", "better"),
    "around 0, within the margin": (-0.004, 0.004, 0.005, "no different", "better"),
    "below 0, within the margin": (-0.004, -0.001, 0.005, "worse", "better"),
    "to the margin exactly": (-0.005, 0.005, 0.005, "no different", "no different"),
    "beyond the margin": (-0.006, 0.020, 0.005, "cannot tell", "cannot tell"),
    "wholly below the margin": (-0.020, -0.006, 0.005, "worse", "worse"),
    "no margin, around 0": (-0.001, 0.001, 0.0, "cannot tell", "cannot tell"),
    "no margin, above 0": (0.001, 0.002, 0.0, "better", "better"),
    "exactly 0": (0.0, 0.0, 0.005, "no different", "no different"),
    "lower bound NaN": (math.nan, 0.020, 0.005, "cannot tell", "cannot tell"),
    "upper bound NaN": (0.010, math.nan, 0.005, "cannot tell", "cannot tell"),
    "no upper bound": (0.010, math.inf, 0.005, "cannot tell", "cannot tell"),
    "no lower bound": (-math.inf, 0.010, 0.005, "cannot tell", "cannot tell"),
}


@pytest.mark.parametrize(("lower", "upper", "margin", "superior", "non_inferior"), DECISIONS.values(), ids=DECISIONS)
def test_an_interval_says_what_the_rule_reads_in_it(lower, upper, margin, superior, non_inferior):
    assert interval_outcome(lower, upper, margin, "superior", level_lower=lower) == superior
    assert interval_outcome(lower, upper, margin, "non_inferior", level_lower=lower) == non_inferior


def test_a_margin_lets_a_slightly_different_model_pass_as_not_inferior_only():
    drawn = models("binary", rows=2_000, noise=(0.30, 0.33))
    assert compared("binary", "auc", drawn, margin=0.03, rule="superior").outcome == "no different"
    found = compared("binary", "auc", drawn, margin=0.03, rule="non_inferior")
    assert found.outcome == "better"
    assert "is not worse, by the margin, than the champion" in found.sentence
    assert compared("binary", "auc", drawn, margin=0.0, rule="non_inferior").outcome == "cannot tell"


@pytest.mark.slow
def test_of_equally_good_models_at_most_one_in_twenty_is_found_better():
    """400 pairs at a one-sided error of 2.5 %: the chance of more than 20 found better is below 0.2 %."""
    drawn = (models("binary", rows=300, seed=1_000 + pair) for pair in range(400))
    findings = [compared("binary", "auc", each).outcome for each in drawn]
    assert len(findings) == 400
    assert findings.count("better") <= 20
    assert findings.count("worse") <= 20


def few(rows, positives, differing):
    """Return binary models over this many rows, of which few are positive and few predicted differently."""
    truth = np.array(["yes"] * positives + ["no"] * (rows - positives))
    champion = np.linspace(0.1, 0.8, rows)
    challenger = champion.copy()
    challenger[:differing] += 0.1
    return BINARY, truth, both(champion), both(challenger)


TOO_LITTLE = {
    "one row": (few(1, 1, 1), "not a finite number"),
    "a single class": (few(200, 0, 200), "not a finite number"),
    "all positive": (few(200, 200, 200), "not a finite number"),
    "nine positives": (few(200, 9, 200), "a class has 9 rows, fewer than 10"),
    "nine differing rows": (few(200, 100, 9), "the models differ on 9 of 200 rows, fewer than 10"),
}


@pytest.mark.parametrize("rule", ["superior", "non_inferior"])
@pytest.mark.parametrize(("drawn", "said"), TOO_LITTLE.values(), ids=TOO_LITTLE)
def test_too_little_to_compare_gives_no_interval_and_does_not_pass_the_gate(drawn, said, rule):
    found = compared("binary", "auc", drawn, rule=rule, margin=0.5)
    assert found.outcome == "cannot tell"
    assert math.isnan(found.lower)
    assert math.isnan(found.upper)
    assert said in found.sentence
    terms = Terms(metric="auc", rule=rule, margin=0.5, confidence=0.95)
    spec = EvaluationSpec(minimum_rows=1, floors=(Floor(metric="accuracy", at_least=0.1),), comparison=terms)
    verdict = apply_gate(
        spec,
        rows=200,
        metrics={"accuracy": 1.0},
        slices=(),
        comparison=found,
        first_model=False,
        leaked=0,
        signs_of_leak=(),
    )
    assert verdict.outcome == "inconclusive"


REFUSED = {
    "confidence of 0": ({"confidence": 0.0}, "confidence.*0.0.*between 0 and 1"),
    "confidence of 1": ({"confidence": 1.0}, "confidence.*1.0"),
    "confidence in percent": ({"confidence": 95.0}, "confidence.*95.0"),
    "confidence NaN": ({"confidence": math.nan}, "confidence.*nan"),
    "margin below 0": ({"margin": -0.01}, "margin.*-0.01.*0 or more"),
    "margin NaN": ({"margin": math.nan}, "margin.*nan"),
    "margin without end": ({"margin": math.inf}, "margin.*inf"),
    "unknown rule": ({"rule": "equal"}, "rule.*'equal'.*superior or non_inferior"),
}


@pytest.mark.parametrize(("terms", "said"), REFUSED.values(), ids=REFUSED)
def test_terms_that_mean_nothing_are_refused(terms, said):
    with pytest.raises(Refusal, match=said):
        compared("binary", "auc", models("binary", rows=50), **terms)


def test_a_metric_of_another_task_is_refused_with_those_of_this_one():
    with pytest.raises(Refusal, match="'rmse'.*binary task has auc"):
        compared("binary", "rmse", models("binary", rows=50))


@pytest.mark.parametrize("which", ["champion", "challenger"])
def test_predictions_that_cannot_be_read_are_refused_under_the_models_name(which):
    classes, truth, *predictions = models("binary", rows=50)
    named = dict(zip(("champion", "challenger"), predictions, strict=True))
    named[which] = named[which] * math.nan
    with pytest.raises(Refusal, match=f"{which}, row 0 .one of 50.*not finite"):
        compared("binary", "auc", (classes, truth, named["champion"], named["challenger"]))
