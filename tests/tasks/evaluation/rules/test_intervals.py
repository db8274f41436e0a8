"""Confidence intervals: equal to slow, independent computations (DeLong's from all pairs; a plain bootstrap)."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from tasks.evaluation.rules.intervals import bounds_at
from tasks.evaluation.rules.metrics import compute_metric, higher_is_better
from tasks.evaluation.rules.predictions import encode_truth
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.evaluation_cases import compared, every_metric, models


def slow_delong(positive, champion, challenger):
    """Return the difference of the AUCs and its error by DeLong's formulas, from all pairs of rows."""
    placed = []
    for scores in (champion, challenger):
        gap = scores[positive][:, None] - scores[~positive][None, :]
        wins = (gap > 0) + 0.5 * (gap == 0)
        placed.append((wins.mean(axis=1), wins.mean(axis=0)))
    (old_up, old_down), (new_up, new_down) = placed
    up, down = np.cov(old_up, new_up), np.cov(old_down, new_down)
    covariance = up / positive.sum() + down / (~positive).sum()
    return new_up.mean() - old_up.mean(), math.sqrt(np.array([-1, 1]) @ covariance @ np.array([-1, 1]))


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(40, 120), st.sampled_from([0.8, 0.9, 0.95, 0.99]), st.booleans())
def test_the_interval_of_auc_is_delongs_from_all_pairs_of_rows(seed, rows, confidence, ties):
    drawn = models("binary", rows, seed, noise=(1.0, 0.5), ties=ties)
    positive = drawn[1] == "yes"
    assume(10 <= positive.sum() <= rows - 10)
    found = compared("binary", "auc", drawn, confidence=confidence)
    difference, error = slow_delong(positive, drawn[2][:, 1], drawn[3][:, 1])
    reach = {0.8: 1.2815515655, 0.9: 1.6448536270, 0.95: 1.9599639845, 0.99: 2.5758293035}[confidence] * error
    assert found.method == "DeLong"
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert (found.lower, found.upper) == pytest.approx((difference - reach, difference + reach), abs=1e-9)


ROW_LOSSES = {
    ("binary", "log_loss"): lambda y, p: -np.log(p[np.arange(len(y)), y]),
    ("binary", "brier"): lambda y, p: (p[:, 1] - y) ** 2,
    ("multiclass", "accuracy"): lambda y, p: 1.0 * (p.argmax(axis=1) != y),
    ("regression", "mae"): lambda y, p: np.abs(p - y),
}


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("task", "metric"), ROW_LOSSES, ids=map("-".join, ROW_LOSSES))
def test_the_interval_of_a_mean_is_students(task, metric, confidence):
    classes, truth, champion, challenger = models(task, rows=800, noise=(0.9, 0.6))
    codes, loss = encode_truth(task, classes, truth), ROW_LOSSES[task, metric]
    gained = loss(codes, champion) - loss(codes, challenger)
    found = compared(task, metric, (classes, truth, champion, challenger), confidence=confidence)
    lower, upper = stats.t.interval(confidence, len(gained) - 1, gained.mean(), stats.sem(gained))
    assert (found.lower, found.upper) == pytest.approx((lower, upper), abs=0.06 * (upper - lower))


def plain_bootstrap(task, metric, drawn, resamples=120):
    """Return the bounds of the difference over resampled rows; the metric is computed again for each resample."""
    classes, truth, champion, challenger = drawn
    codes, rng, differences = encode_truth(task, classes, truth), np.random.default_rng(9), []
    for _ in range(resamples):
        rows = rng.integers(0, len(truth), len(truth))
        old, new = (compute_metric(task, metric, codes[rows], each[rows]) for each in (champion, challenger))
        differences.append(new - old if higher_is_better(metric) else old - new)
    return np.quantile(differences, [0.025, 0.975])


@pytest.mark.slow
@every_metric
def test_the_interval_agrees_with_a_plain_bootstrap_of_the_rows(task, metric):
    drawn = models(task, rows=500, noise=(0.9, 0.6))
    found = compared(task, metric, drawn)
    lower, upper = plain_bootstrap(task, metric, drawn)
    assert (found.lower, found.upper) == pytest.approx((lower, upper), abs=0.15 * (upper - lower))


def test_the_same_seed_gives_the_same_bootstrap_and_another_one_nearly_the_same():
    drawn = models("binary")
    first, again, other = (compared("binary", "brier", drawn, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.lower != other.lower
    assert first.lower == pytest.approx(other.lower, abs=0.1 * (first.upper - first.lower))


def test_the_order_of_the_rows_does_not_change_delongs_interval():
    classes, truth, champion, challenger = models("binary")
    order = np.random.default_rng(4).permutation(len(truth))
    first = compared("binary", "auc", (classes, truth, champion, challenger))
    shuffled = compared("binary", "auc", (classes, truth[order], champion[order], challenger[order]))
    assert (shuffled.lower, shuffled.upper) == pytest.approx((first.lower, first.upper), abs=1e-12)


@pytest.mark.slow
def test_delong_answers_for_two_hundred_thousand_rows():
    classes, truth, champion, challenger = models("binary", rows=200_000, noise=(0.6, 0.5))
    found = compared("binary", "auc", (classes, truth, champion, challenger))
    tenth = compared("binary", "auc", (classes, truth[::10], champion[::10], challenger[::10]))
    assert found.outcome == "better"
    assert found.difference == pytest.approx(found.challenger_value - found.champion_value)
    assert tenth.upper - tenth.lower == pytest.approx(math.sqrt(10) * (found.upper - found.lower), rel=0.05)


SMALL_LEVELS = ((1 - 0.95) / 2, 0.01, 0.001, 1e-4, 1e-6, 0.0)


@pytest.mark.parametrize("training_rows", [math.inf, 1_000.0])
@every_metric
def test_the_smaller_the_level_the_lower_the_bound_that_decides(task, metric, training_rows):
    drawn = models(task, rows=400, noise=(0.9, 0.6))
    found = [compared(task, metric, drawn, level=level, training_rows=training_rows) for level in SMALL_LEVELS]
    bounds = [each.level_lower for each in found]
    assert bounds == sorted(bounds, reverse=True)
    assert all(each.level_lower <= each.lower for each in found)
    assert {(each.lower, each.upper, each.difference) for each in found} == {
        (found[0].lower, found[0].upper, found[0].difference)
    }
    assert (found[0].level_lower == found[0].lower) == math.isinf(training_rows)
    assert found[-1].level_lower == -math.inf and found[-1].outcome != "better"


@every_metric
def test_a_bound_at_a_small_level_is_about_as_far_as_students_quantile_says(task, metric):
    drawn = models(task, rows=800, noise=(0.9, 0.6))
    found = compared(task, metric, drawn, level=1e-4)
    reach = (found.difference - found.level_lower) / (found.difference - found.lower)
    expected = stats.t.isf(1e-4, 799) / stats.t.isf(0.025, 799)
    assert expected * 0.85 < reach < expected * 1.35


@every_metric
def test_the_luck_of_training_widens_the_bound_that_decides(task, metric):
    drawn = models(task, rows=400, noise=(0.9, 0.6))
    without, few = (compared(task, metric, drawn, level=1e-4, training_rows=rows) for rows in (math.inf, 800))
    ratio = (few.difference - few.level_lower) / (without.difference - without.level_lower)
    assert ratio == pytest.approx(math.sqrt(2), rel=1e-6)  # 1 + 2 · 400 / 800


@pytest.mark.parametrize("skewed", [-1, 1], ids=["rare large losses", "rare large gains"])
@pytest.mark.parametrize("level", [0.01, 0.001])
def test_the_bound_is_wrong_as_often_as_its_level_allows_for_skewed_rows_too(skewed, level):
    random, rows, draws = np.random.default_rng(7), 400, 4_000
    drawn = skewed * (random.lognormal(0, 1, (draws, rows)) - math.exp(0.5))
    means = drawn.mean(axis=1)
    centred = drawn - means[:, None]
    wrong = sum(bounds_at(level, float(m), each)[0] > 0 for m, each in zip(means, centred, strict=True))
    student = (means / drawn.std(axis=1) * math.sqrt(rows) > stats.t.isf(level, rows - 1)).sum()
    allowed = level * draws + 3 * math.sqrt(level * draws)
    assert wrong <= (3 * allowed if skewed < 0 else allowed)
    assert wrong <= student


@pytest.mark.parametrize("level", [-0.01, 0.03, math.nan])
def test_a_level_that_the_confidence_does_not_leave_is_refused(level):
    with pytest.raises(Refusal, match="level is not one that the confidence leaves"):
        compared("binary", "auc", models("binary"), level=level)


def test_what_the_budget_forbids_is_not_better_and_the_sentence_says_which_bound_decides():
    drawn = models("binary", rows=600, noise=(1.3, 0.6))
    alone = compared("binary", "auc", drawn)
    at_night = compared("binary", "auc", drawn, level=1e-9, margin=0.0)
    assert (alone.outcome, at_night.outcome) == ("better", "cannot tell")
    assert alone.lower == at_night.lower > 0 > at_night.level_lower
    assert at_night.sentence.endswith(f"; {at_night.level_lower:+.4f} is the lower bound that decides.")
    lenient = compared("binary", "auc", drawn, level=1e-9, margin=0.5, rule="non_inferior")
    assert lenient.outcome == "better"
    strict = compared("binary", "auc", drawn, level=1e-9, margin=-at_night.level_lower - 1e-6, rule="non_inferior")
    assert strict.outcome != "better"
