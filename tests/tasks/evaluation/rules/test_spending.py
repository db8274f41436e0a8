"""The budget of repeated comparisons: the levels of any 365 days sum to at most the budget, whatever is asked when."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from tasks.evaluation.rules.spending import available, next_level, percent, plan_comparison, spent_level
from tasks.shared.rules.model.parts import ComparisonSpec

START = datetime(2026, 1, 1, 2, tzinfo=UTC)
SPEC = ComparisonSpec(metric="auc", rule="superior", margin=0.005, confidence=0.95)
OFF = SPEC.model_copy(update={"repeated": SPEC.repeated.model_copy(update={"off_because": "two runs a year"})})


def plan(history, at, spec=SPEC, champion="7", version="v", holdout="h", predictions=None):
    """Return the comparison that is recorded after a history, by default one that asks a new question."""
    new = f"p{len(history)}" if predictions is None else predictions
    version = f"{version}{len(history)}" if predictions is None else version
    return plan_comparison(
        history, spec, model="churn", environment="local", champion=champion, version=version, holdout_digest=holdout,
        predictions_digest=new, at=at,
    )  # fmt: skip


def made(days, spec=SPEC, champions=None):
    """Return the comparisons at these days since the start."""
    history = []
    for number, day in enumerate(days):
        champion = champions[number] if champions else "7"
        history.append(plan(history, START + timedelta(days=day), spec, champion))
    return history


def most_in_a_year(history):
    """Return the largest sum of levels within 365 days."""
    year = timedelta(days=365)
    return max(math.fsum(each.level for each in history if first.at <= each.at < first.at + year) for first in history)


@given(
    st.lists(st.tuples(st.floats(0, 500), st.sampled_from("789")), min_size=1, max_size=80),
    st.sampled_from([0.01, 0.05, 0.5]),
    st.sampled_from([0.8, 0.95, 0.99]),
)
def test_the_levels_of_any_365_days_sum_to_at_most_the_budget(asked, budget, confidence):
    repeated = SPEC.repeated.model_copy(update={"error_budget": budget})
    spec = SPEC.model_copy(update={"repeated": repeated, "confidence": confidence})
    history = made(np.cumsum([gap for gap, _ in asked]), spec, [champion for _, champion in asked])
    assert most_in_a_year(history) <= budget * (1 + 1e-9)
    assert all(0 <= each.level <= (1 - confidence) / 2 for each in history)
    totals = [spent_level(history, each, spec).spent for each in history]
    assert max(totals) <= budget * (1 + 1e-9)


def test_nights_without_end_spend_nearly_the_budget_of_each_year_and_no_more():
    history = made(range(3 * 365))
    years = [sum(each.level for each in history[first : first + 365]) for first in (0, 365, 730)]
    assert 0.045 < years[0] <= 0.05
    assert years[1:] == pytest.approx([0.025, 0.025], rel=0.01)
    assert most_in_a_year(history) <= 0.05


LEVELS = {1: 0.013, 2: 0.0012, 30: 0.000128, 180: 0.000068, 365: 0.000068}


@pytest.mark.parametrize(("night", "level"), LEVELS.items())
def test_the_level_of_a_night_is_the_documented_one(night, level):
    assert made(range(night))[-1].level == pytest.approx(level, rel=0.05)


@pytest.mark.parametrize(("every", "level"), [(7, 0.00048), (30, 0.0021)], ids=["weekly", "monthly"])
def test_a_comparison_that_is_made_less_often_has_a_larger_level(every, level):
    assert made(range(0, 3 * 365, every))[-1].level == pytest.approx(level, rel=0.05)


def test_sixty_runs_by_hand_in_one_day_spend_what_one_run_spends():
    nights = list(range(30))
    one = made([*nights, 30])
    sixty = made([*nights, *(29 + each / 60 for each in range(1, 61))])
    assert sum(each.level for each in sixty[30:]) == pytest.approx(one[-1].level, rel=0.05)
    assert max(each.level for each in sixty[30:]) < one[-1].level / 50


def test_a_new_champion_gets_a_larger_share_and_no_new_budget():
    history = made(range(60))
    at = START + timedelta(days=60)
    assert plan(history, at, champion="8").level == pytest.approx(available(history, 0.05, at) * (1 - 0.9**7))
    swaps = made(range(365), champions=[str(number) for number in range(365)])
    assert most_in_a_year(swaps) <= 0.05


def test_new_holdout_rows_refill_nothing():
    history = made(range(60))
    at = START + timedelta(days=60)
    assert plan(history, at, holdout="new").level == plan(history, at).level


def test_the_same_question_again_spends_nothing_and_has_the_level_that_it_had():
    history = made(range(10))
    later = START + timedelta(days=40)
    retried = plan(history, later, version="v3", predictions="computed on other cores")
    assert retried == history[3]
    same_model_again = plan(history, later, version="another", predictions="p4")
    assert same_model_again == history[4]


OTHERS = {
    "another champion": {"champion": "8"},
    "other rows": {"holdout": "new"},
    "another metric": {"spec": SPEC.model_copy(update={"metric": "brier"})},
    "another rule": {"spec": SPEC.model_copy(update={"rule": "non_inferior"})},
    "another margin": {"spec": SPEC.model_copy(update={"margin": 0.02})},
    "another confidence": {"spec": SPEC.model_copy(update={"confidence": 0.9})},
    "without a budget": {"spec": OFF},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_another_question_about_the_same_model_spends_again(changed):
    history = made(range(10))
    found = plan(history, START + timedelta(days=40), **{"version": "v3", "predictions": "p3", **changed})
    assert found.number == 11


def test_a_clock_that_goes_back_earns_nothing():
    history = made(range(30))
    back = plan(history, START - timedelta(days=300))
    assert back.level == 0
    again = plan([*history, back], START + timedelta(days=29))
    assert again.level <= made(range(31))[-1].level


def test_without_a_budget_each_comparison_has_its_own_level_and_later_ones_know_it():
    history = made(range(5), OFF)
    assert {(round(each.level, 12), each.budget) for each in history} == {(0.025, 0.0)}
    told = spent_level(history, history[-1], OFF)
    assert told.sentence.endswith("at a level of 2.5 %, without an error budget: two runs a year.")
    assert plan(history, START + timedelta(days=5)).level < 1e-4  # switched on again: what was spent is spent


def test_the_state_is_said_in_one_sentence():
    history = made(range(14))
    told = spent_level([*history, replace(history[-1], number=15, level=0.02)], history[-1], SPEC)
    assert (told.number, told.champion, told.budget) == (14, "7", 0.05)
    assert told.sentence == (
        "It is comparison 14 with champion 7, at a level of 0.039 %; the levels of 365 days sum to 2.2 %, "
        "of an error budget of 5 %."
    )
    assert percent(0.0000684) == "0.0068 %"


def test_an_unusually_large_budget_never_exceeds_the_comparisons_own_level():
    assert next_level([], champion="7", budget=0.5, undivided=0.025, at=START) == 0.025


@pytest.mark.parametrize(("correlation", "without"), [(0.0, 0.99), (0.5, 0.5), (0.95, 0.08), (1.0, 0.02)])
def test_of_years_of_null_challengers_at_most_one_in_twenty_has_a_promotion(correlation, without):
    levels = np.array([each.level for each in made(range(365))])
    random, years = np.random.default_rng(7), 2_000
    shared, own = random.standard_normal((years, 1)), random.standard_normal((years, 365))
    drawn = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    assert (drawn > norm.isf(levels)).any(axis=1).mean() <= 0.055
    assert (drawn > norm.isf(0.025)).any(axis=1).mean() > without  # a budget
