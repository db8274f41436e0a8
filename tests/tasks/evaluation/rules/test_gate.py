"""The gate: a version passes only when all values are measured, finite and within bounds; a failure has its reasons."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.evaluation.rules.comparison import ModelComparison
from tasks.evaluation.rules.gate import FIRST_MODEL, apply_gate
from tasks.evaluation.rules.metrics import SliceResult
from tasks.shared.rules.model.parts import ComparisonSpec as Terms
from tasks.shared.rules.model.parts import EvaluationSpec, Floor, SliceFloor

BETTER = ModelComparison(
    "auc", 0.80, 0.84, 0.04, 0.01, 0.07, 0.95, 0.005, "superior", "DeLong", 500, "better", "On auc 0.84 beats 0.80.",
    0.025, 0.01,
)  # fmt: skip
FLOORS = (Floor(metric="auc", at_least=0.8), Floor(metric="brier", at_most=0.2))
PLANS = (SliceFloor(column="plan", metric="auc", at_least=0.6, minimum_rows=50),)
SLICES = (SliceResult("plan", "gold", "auc", 90, 0.7), SliceResult("plan", "free", "auc", 20, None))


def rules(minimum_rows=100, floors=FLOORS, slices=PLANS):
    """Return a specification, including one that `model.yaml` may not contain."""
    terms = Terms(metric="auc", rule="superior", margin=0.005, confidence=0.95)
    return EvaluationSpec.model_construct(minimum_rows=minimum_rows, floors=floors, slices=slices, comparison=terms)


def bound(metric, at_least=None, at_most=None):
    """Return a floor without validation."""
    return Floor.model_construct(metric=metric, at_least=at_least, at_most=at_most)


def measured(auc=0.85, brier=0.1, **others):
    return {"auc": auc, "brier": brier, **others}


def plan(value, rows=90):
    """Return the results of one slice."""
    return (SliceResult("plan", "gold", "auc", rows, value),)


def judged(spec=None, **changes):
    """Evaluate a challenger that passes, except for the changes."""
    good = {"rows": 500, "metrics": measured(), "slices": SLICES, "comparison": BETTER}
    return apply_gate(spec or rules(), **good | {"first_model": False, "leaked": 0, "signs_of_leak": ()} | changes)


def found(finding, lower, upper):
    return replace(BETTER, outcome=finding, lower=lower, upper=upper, sentence=f"On auc it is {finding}, margin 0.005.")


FIRST = {"comparison": None, "first_model": True}
PASSING = {
    "with a champion": ({}, ["auc is 0.85, within its bound of at least 0.8.", BETTER.sentence]),
    "first model": (FIRST, ["brier is 0.1, within its bound of at most 0.2.", FIRST_MODEL]),
    "on every bound": ({"metrics": measured(0.8, 0.2), "slices": plan(0.6, 50), "rows": 100}, ["auc is 0.8, within"]),
    "without slices": ({"spec": rules(slices=()), "slices": ()}, ["auc is 0.85"]),
    "numpy's numbers": ({"metrics": measured(np.float64(0.85), np.float32(0.1))}, ["brier is 0.1"]),
    "a metric without a floor": ({"metrics": measured(accuracy=0.1)}, ["auc is 0.85"]),
}


@pytest.mark.parametrize(("changes", "said"), PASSING.values(), ids=PASSING)
def test_what_is_measured_and_within_every_bound_passes_and_says_so(changes, said):
    verdict = judged(**changes)
    assert verdict.outcome == "pass"
    assert verdict.first_model == changes.get("first_model", False)
    assert (FIRST_MODEL in verdict.reasons) == verdict.first_model
    assert all(any(each in reason for reason in verdict.reasons) for each in said)


UNJUDGED = "No value of plan has the 50 rows that auc by slice needs."
NO_INTERVAL = "The comparison on auc finds better without an interval."
HELD = {
    "auc NaN": ({"metrics": measured(math.nan)}, "auc is not a number."),
    "auc +inf": ({"metrics": measured(math.inf)}, "auc is infinite (inf)."),
    "auc -inf": ({"metrics": measured(-math.inf)}, "auc is infinite (-inf)."),
    "brier -inf": ({"metrics": measured(brier=-math.inf)}, "brier is infinite (-inf)."),
    "auc None": ({"metrics": measured(None)}, "auc was not measured."),
    "auc missing": ({"metrics": {"brier": 0.1}}, "auc was not measured."),
    "auc a flag": ({"metrics": measured(True)}, "auc is not a number."),
    "NaN without a floor": ({"metrics": measured(accuracy=math.nan)}, "accuracy is not a number."),
    "auc below": ({"metrics": measured(0.7)}, "auc is 0.7, below its floor of 0.8."),
    "auc just below": ({"metrics": measured(0.79999999)}, "auc is 0.79999999, below its floor of 0.8."),
    "brier above": ({"metrics": measured(brier=0.3)}, "brier is 0.3, above its limit of 0.2."),
    "no floor": ({"spec": rules(floors=())}, "There is no floor, so nothing would be evaluated"),
    "floor without bound": ({"spec": rules(floors=(bound("auc"),))}, "auc has a floor without a finite bound"),
    "floor of -inf": ({"spec": rules(floors=(bound("auc", -math.inf),))}, "auc has a floor without a finite"),
    "too few rows": ({"rows": 99}, "The holdout has 99 rows, fewer than the 100 that minimum_rows asks for."),
    "no rows": ({"rows": 0, "spec": rules(minimum_rows=0)}, "The holdout has 0 rows, fewer than the 1 that"),
    "rows NaN": ({"rows": math.nan}, "The holdout has nan rows, fewer than the 100"),
    "one leak": ({"leaked": 1}, "1 entities of the holdout were seen in training, where 0 are allowed."),
    "leak unknown": ({"leaked": math.nan}, "nan entities of the holdout were seen in training"),
    "slice below": ({"slices": plan(0.5)}, "auc where plan is gold (90 rows) is 0.5, below its floor of 0.6."),
    "slice NaN": ({"slices": plan(math.nan)}, "auc where plan is gold (90 rows) is not a number."),
    "slice infinite": ({"slices": plan(math.inf)}, "auc where plan is gold (90 rows) is infinite (inf)."),
    "slice not measured": ({"slices": plan(None)}, "auc where plan is gold (90 rows) was not measured."),
    "slices all small": ({"slices": plan(0.9, 49)}, UNJUDGED),
    "slices missing": ({"slices": ()}, UNJUDGED),
    "slices of brier alone": ({"slices": (replace(SLICES[0], metric="brier"),)}, UNJUDGED),
    "worse": ({"comparison": found("worse", -0.07, -0.01)}, "On auc it is worse, margin 0.005."),
    "not compared": ({"comparison": None}, "There is a champion, but the challenger was not compared with it."),
    "compared with nobody": ({"first_model": True}, "There is a comparison, but no champion to compare with."),
    "better, from NaN": ({"comparison": found("better", math.nan, 0.07)}, NO_INTERVAL),
    "better, to NaN": ({"comparison": found("better", 0.01, math.nan)}, NO_INTERVAL),
    "first model, auc below": (FIRST | {"metrics": measured(0.7)}, "auc is 0.7, below its floor of 0.8."),
}


@pytest.mark.parametrize(("changes", "said"), HELD.values(), ids=HELD)
def test_what_is_missing_broken_or_not_finite_holds_with_its_reason(changes, said):
    verdict = judged(**changes)
    assert verdict.outcome == "hold"
    reason, *more = verdict.reasons
    assert reason.startswith(said)
    assert more == ([FIRST_MODEL] if verdict.first_model else [])
    assert verdict.first_model == changes.get("first_model", False)


INCONCLUSIVE = {
    "no different": found("no different", -0.001, 0.001),
    "cannot tell": found("cannot tell", -0.02, 0.03),
    "no interval": found("cannot tell", math.nan, math.nan),
}


@pytest.mark.parametrize("comparison", INCONCLUSIVE.values(), ids=INCONCLUSIVE)
def test_a_comparison_that_shows_nothing_is_inconclusive(comparison):
    verdict = judged(comparison=comparison)
    assert (verdict.outcome, verdict.reasons) == ("inconclusive", (comparison.sentence,))


@pytest.mark.parametrize("comparison", INCONCLUSIVE.values(), ids=INCONCLUSIVE)
def test_a_broken_floor_holds_though_the_comparison_shows_nothing(comparison):
    assert judged(comparison=comparison, metrics=measured(0.7)).outcome == "hold"


def test_a_metric_that_the_rows_do_not_define_holds_once_and_says_why():
    why = {"auc": "the rows hold a single class"}
    verdict = judged(metrics=measured(math.nan), undefined=why)
    assert verdict.reasons == ("auc is not a number: the rows hold a single class.",)


def test_all_that_is_wrong_is_said_at_once():
    verdict = judged(rows=5, leaked=2, metrics=measured(0.7, math.nan), slices=plan(0.1))
    assert verdict.outcome == "hold"
    assert [reason.split()[0] for reason in verdict.reasons] == ["The", "2", "brier", "auc", "auc"]
    nothing = (
        "No metric was measured, so nothing can be evaluated.",
        "auc was not measured.",
        "brier was not measured.",
    )
    assert judged(metrics={}).reasons == nothing


def test_a_slice_that_is_too_small_is_noted_and_decides_nothing():
    assert judged().notes == ("auc where plan is free (20 rows) was not evaluated: fewer than 50 rows.",)


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=300)
@given(st.floats(0, 1) | FINITE, st.floats(0, 1) | FINITE, st.booleans())
def test_the_sentence_on_a_floor_shows_a_value_on_the_side_of_the_bound_it_speaks_of(value, limit, low):
    floor = bound("r2", at_least=limit) if low else bound("r2", at_most=limit)
    verdict = judged(rules(floors=(floor,), slices=()), metrics={"r2": value})
    said = r"r2 is (\S+), (below its floor|above its limit|within its bound) of (?:at \w+ )?(\S+)\."
    shown = re.fullmatch(said, verdict.reasons[0])
    kept = value >= limit if low else value <= limit
    assert shown[2] == ("within its bound" if kept else "below its floor" if low else "above its limit")
    assert float(shown[3]) == limit
    assert (float(shown[1]) > limit, float(shown[1]) < limit) == (value > limit, value < limit)


def mostly(good, *bad):
    """Return a strategy that draws each good value twelve times as often as each bad one."""
    return st.sampled_from([good] * 12 + list(bad)).flatmap(lambda each: each)


STRANGE = st.sampled_from([None, math.nan, math.inf, -math.inf])
VALUES = mostly(st.floats(0.8, 1), st.floats(0, 1), STRANGE)
BOUNDS = st.tuples(mostly(st.floats(0.5, 0.8), st.floats(), st.none()), mostly(st.none(), st.floats(0, 1)))
NAMES = mostly(st.sampled_from(["auc", "accuracy"]), st.just("f1_macro"))
RESULTS = st.tuples(mostly(st.just("auc"), NAMES), mostly(st.integers(50, 200), st.integers(0, 50)), VALUES)
FINDINGS = st.sampled_from(["better", "worse", "no different", "cannot tell"])
ENDS = st.floats(-0.1, 0.1) | st.sampled_from([math.nan, math.inf, -math.inf])
COMPARISONS = mostly(st.just(BETTER), st.builds(found, FINDINGS, ENDS, ENDS))
CASES = st.fixed_dictionaries(
    {
        "minimum_rows": st.integers(0, 100),
        "rows": mostly(st.integers(100, 10_000), st.integers(0, 100)),
        "floors": st.lists(st.tuples(NAMES, BOUNDS), max_size=3),
        "metrics": st.fixed_dictionaries({"auc": VALUES, "accuracy": VALUES}, optional={"f1_macro": VALUES}),
        "slices": st.just(()) | st.lists(st.tuples(NAMES, BOUNDS), max_size=2),
        "results": st.lists(RESULTS, max_size=3),
        "comparison": mostly(COMPARISONS, *[st.none()] * 4),
        "first_model": mostly(st.none(), st.booleans()),
        "leaked": mostly(st.just(0), st.integers(-1, 3)),
    }
)


def finite(*values):
    return all(value is not None and math.isfinite(value) for value in values)


def keeps(value, limits):
    """Return whether the value is finite and within its limits, of which there is at least one."""
    given_limits = [each for each in limits if each is not None]
    low, high = (each if each is not None else value for each in limits)
    return len(given_limits) > 0 and finite(value, *given_limits) and low <= value <= high


def may_pass(case, first_model):
    """Return whether a case may pass, by the definition of the gate."""
    compared, sliced = case["comparison"], []
    for name, limits in case["slices"]:
        values = [value for metric, rows, value in case["results"] if metric == name and rows >= 50]
        sliced.append(bool(values) and all(keeps(value, limits) for value in values))
    return (
        case["rows"] >= max(1, case["minimum_rows"])
        and case["leaked"] == 0
        and len(case["floors"]) > 0
        and finite(*case["metrics"].values())
        and all(keeps(case["metrics"].get(name), limits) for name, limits in case["floors"])
        and all(sliced)
        and (compared is None) == first_model
        and (compared is None or (compared.outcome == "better" and finite(compared.lower, compared.upper)))
    )


@pytest.mark.slow
@settings(max_examples=2_000)
@given(CASES)
def test_the_gate_passes_exactly_what_is_finite_within_its_bounds_and_better(case):
    first_model = case["comparison"] is None if case["first_model"] is None else case["first_model"]
    floors = [bound(name, *limits) for name, limits in case["floors"]]
    slices = [
        SliceFloor.model_construct(column="plan", metric=name, minimum_rows=50, at_least=low, at_most=high)
        for name, (low, high) in case["slices"]
    ]
    verdict = apply_gate(
        rules(case["minimum_rows"], floors, slices),
        rows=case["rows"],
        metrics=case["metrics"],
        slices=[SliceResult("plan", "gold", *each) for each in case["results"]],
        comparison=case["comparison"],
        first_model=first_model,
        leaked=case["leaked"],
        signs_of_leak=(),
    )
    assert (verdict.outcome == "pass") == may_pass(case, first_model)
    assert verdict.reasons
    assert all(re.fullmatch(r"\S.*\.", each) for each in (*verdict.reasons, *verdict.notes))
