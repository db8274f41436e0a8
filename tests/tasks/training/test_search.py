"""Hyperparameter search: trials stay within `search` of model.yaml, and one seed gives the same trials."""

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.shared.records import Trial
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.model.parts import SearchChoices, SearchRange
from tasks.shared.rules.refusal import Refusal
from tasks.training.trials import experiment_markdown, suggest_parameters
from tests.fixtures.approval_requests import DATA

optuna.logging.set_verbosity(optuna.logging.WARNING)

SPACE = {
    "trees": SearchRange(low=50, high=300),
    "leaves": SearchRange(low=1, high=1024, log=True),
    "rate": SearchRange(low=0.01, high=0.2, log=True),
    "mixed": SearchRange(low=0, high=1.5),
    "loss": SearchChoices(choices=("squared", "absolute")),
    "depth": SearchChoices(choices=(3, 5, 9)),
    "early": SearchChoices(choices=(True, False)),
}


def tried(space, trials=40, seed=7):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return [suggest_parameters(study.ask(), space) for _ in range(trials)]


def test_every_value_is_in_its_range_and_of_its_kind():
    for values in tried(SPACE):
        assert set(values) == set(SPACE)
        assert type(values["trees"]) is int and 50 <= values["trees"] <= 300
        assert type(values["leaves"]) is int and 1 <= values["leaves"] <= 1024
        assert type(values["rate"]) is float and 0.01 <= values["rate"] <= 0.2
        assert type(values["mixed"]) is float and 0 <= values["mixed"] <= 1.5
        assert values["loss"] in ("squared", "absolute")
        assert type(values["depth"]) is int and values["depth"] in (3, 5, 9)
        assert type(values["early"]) is bool


def test_trials_differ_and_choices_are_all_tried():
    trials = tried(SPACE)
    assert len({values["trees"] for values in trials}) > 20
    assert {values["loss"] for values in trials} == {"squared", "absolute"}
    assert {values["depth"] for values in trials} == {3, 5, 9}


def test_a_logarithmic_range_is_tried_evenly_by_order_of_magnitude():
    logs = [math.log2(values["leaves"]) for values in tried(SPACE, trials=400)]
    assert 0.35 < sum(log < 5 for log in logs) / len(logs) < 0.65
    plain = [values["leaves"] for values in tried({"leaves": SearchRange(low=1, high=1024)}, trials=400)]
    assert sum(leaves < 32 for leaves in plain) / len(plain) < 0.1


def test_the_same_seed_tries_the_same_however_the_file_is_ordered():
    assert tried(SPACE) == tried(dict(reversed(SPACE.items())))
    assert tried(SPACE) != tried(SPACE, seed=8)


def test_nothing_to_try_is_refused():
    with pytest.raises(Refusal, match=r"^search: there is nothing to try"):
        suggest_parameters(optuna.create_study().ask(), {})


@settings(max_examples=25)
@given(st.integers(-1000, 1000), st.integers(1, 1000), st.booleans())
def test_any_range_is_kept(low, width, whole):
    space = SearchRange(low=low if whole else float(low), high=low + width)
    (values,) = tried({"x": space}, trials=1)
    assert low <= values["x"] <= low + width
    assert type(values["x"]) is (int if whole else float)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"validation_rows": 1200}, "Measured on 1,200 validation rows, divided as the holdout is.", id="ours"),
        pytest.param({"holdout_rule": HoldoutRule("time", 0.2, time="sold_at").text}, "Declare training.validation_share",
                     id="its own beside a holdout by time"),
        pytest.param({}, "The program divided its training rows itself. No trial read a holdout row", id="its own"),
    ],
)  # fmt: skip
def test_the_report_says_which_rows_measured_the_trials(changes, says):
    trial = Trial(number=0, parameters={"trees": 10}, value=0.8, run_id="r", run_url="fake://r")
    assert says in experiment_markdown("price", DATA.model_copy(update=changes), [trial], 1, "auc")
