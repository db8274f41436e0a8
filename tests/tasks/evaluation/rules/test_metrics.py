"""Metrics: each equals the value of scikit-learn or a manual calculation; invalid predictions are refused."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tasks.evaluation.rules.metrics import (
    METRICS,
    calibration_bins,
    higher_is_better,
    undefined_reason,
)
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.evaluation_cases import BINARY, PAIRS, THREE, both, measured


def sample(task, rows=500, seed=3):
    """Return labels and predictions that correlate with them, with many ties."""
    rng = np.random.default_rng(seed)
    if task == "regression":
        truth = rng.normal(50, 10, rows)
        return (), truth, (truth + rng.normal(0, 6, rows)).round()
    classes = BINARY if task == "binary" else THREE
    codes = rng.integers(0, len(classes), rows)
    weights = rng.integers(1, 6, (rows, len(classes))) + 4.0 * (np.arange(len(classes)) == codes[:, None])
    return classes, np.array(classes)[codes], weights / weights.sum(axis=1, keepdims=True)


def mean_f1(truth, chosen):
    """Return the mean over classes of F1, from counts."""
    members = [(truth == name, chosen == name) for name in THREE]
    return np.mean([2 * np.sum(real & said) / (real.sum() + said.sum()) for real, said in members])


def slow_calibration_error(positive, scores):
    """Return the mean gap of ten bins of equal counts, for scores without ties."""
    bins = np.array_split(np.argsort(scores), 10)
    return sum(len(each) / len(scores) * abs(positive[each].mean() - scores[each].mean()) for each in bins)


REFERENCES = {
    ("binary", "auc"): lambda y, p: sk.roc_auc_score(y == "yes", p[:, 1]),
    ("binary", "average_precision"): lambda y, p: sk.average_precision_score(y == "yes", p[:, 1]),
    ("binary", "log_loss"): lambda y, p: sk.log_loss(y, p, labels=BINARY),
    ("binary", "brier"): lambda y, p: sk.brier_score_loss(y == "yes", p[:, 1]),
    ("binary", "accuracy"): lambda y, p: np.mean((p[:, 1] > 0.5) == (y == "yes")),
    ("multiclass", "auc"): lambda y, p: sk.roc_auc_score(y, p, multi_class="ovr", labels=THREE),
    ("multiclass", "log_loss"): lambda y, p: sk.log_loss(y, p, labels=THREE),
    ("multiclass", "accuracy"): lambda y, p: np.mean(np.array(THREE)[p.argmax(axis=1)] == y),
    ("multiclass", "f1_macro"): lambda y, p: mean_f1(y, np.array(THREE)[p.argmax(axis=1)]),
    ("regression", "rmse"): lambda y, p: math.sqrt(np.mean((y - p) ** 2)),
    ("regression", "mae"): lambda y, p: np.mean(np.abs(y - p)),
    ("regression", "r2"): lambda y, p: 1 - np.sum((y - p) ** 2) / np.sum((y - y.mean()) ** 2),
}


@pytest.mark.parametrize(("task", "metric"), REFERENCES, ids=map("-".join, REFERENCES))
def test_a_metric_is_what_an_independent_computation_says(task, metric):
    classes, truth, predictions = sample(task)
    expected = REFERENCES[task, metric](truth, predictions)
    assert measured(task, classes, truth, predictions)[metric] == pytest.approx(expected, abs=1e-9)


def test_the_calibration_error_is_the_mean_gap_of_ten_bins_of_equal_counts():
    rng = np.random.default_rng(5)
    scores = rng.random(1_000)
    positive = rng.random(1_000) < scores**2
    found = measured("binary", BINARY, np.where(positive, "yes", "no"), both(scores))["calibration_error"]
    assert found == pytest.approx(slow_calibration_error(positive, scores), abs=1e-9)
    assert found > 0.1


def test_every_metric_but_the_calibration_error_has_a_reference_here():
    assert set(PAIRS) - set(REFERENCES) == {("binary", "calibration_error")}


HALF = np.array(["no", "yes"] * 50)
SIGN = (HALF == "yes").astype(float)
LABELS = np.array(THREE * 30)
CERTAIN = np.eye(3)[np.arange(90) % 3]
NUMBERS = np.arange(100.0)
ENDS = {
    "binary-perfect": (
        ("binary", BINARY, HALF, both(SIGN)),
        {"auc": 1, "average_precision": 1, "log_loss": 0, "brier": 0, "accuracy": 1, "calibration_error": 0},
    ),
    "binary-reversed": (
        ("binary", BINARY, HALF, both(1 - SIGN)),
        {"auc": 0, "average_precision": 0.5, "brier": 1, "accuracy": 0, "calibration_error": 1},
    ),
    "binary-constant": (
        ("binary", BINARY, HALF, both(np.full(100, 0.5))),
        {"auc": 0.5, "average_precision": 0.5, "log_loss": math.log(2), "brier": 0.25, "calibration_error": 0},
    ),
    "multiclass-perfect": (
        ("multiclass", THREE, LABELS, CERTAIN),
        {"auc": 1, "log_loss": 0, "accuracy": 1, "f1_macro": 1},
    ),
    "multiclass-reversed": (("multiclass", THREE, LABELS, (1 - CERTAIN) / 2), {"auc": 0, "accuracy": 0, "f1_macro": 0}),
    "multiclass-constant": (
        ("multiclass", THREE, LABELS, np.full((90, 3), 1 / 3)),
        {"auc": 0.5, "log_loss": math.log(3), "accuracy": 1 / 3, "f1_macro": 1 / 6},
    ),
    "regression-perfect": (("regression", (), NUMBERS, NUMBERS), {"rmse": 0, "mae": 0, "r2": 1}),
    "regression-reversed": (("regression", (), NUMBERS, NUMBERS[::-1]), {"mae": 50, "r2": -3}),
    "regression-constant": (("regression", (), NUMBERS, np.full(100, 49.5)), {"mae": 25, "r2": 0}),
}


@pytest.mark.parametrize(("given_", "expected"), ENDS.values(), ids=ENDS)
def test_perfect_reversed_and_constant_predictions_get_the_values_of_the_textbook(given_, expected):
    found = measured(*given_)
    assert tuple(found) == METRICS[given_[0]]
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)


UNDEFINED = {
    "binary, one class": ("binary", BINARY, ["no"] * 20, both(np.linspace(0, 1, 20)), {"auc", "average_precision"}),
    "binary, one row": ("binary", BINARY, ["yes"], both([0.7]), {"auc", "average_precision"}),
    "three, one class": ("multiclass", THREE, ["ant"] * 20, np.full((20, 3), 1 / 3), {"auc"}),
    "three, two found": ("multiclass", THREE, ["ant", "bee"] * 10, np.full((20, 3), 1 / 3), {"auc"}),
    "regression, constant": ("regression", (), np.full(20, 3.0), np.linspace(0, 1, 20), {"r2"}),
}


@pytest.mark.parametrize(("task", "classes", "truth", "predictions", "undefined"), UNDEFINED.values(), ids=UNDEFINED)
def test_a_metric_that_the_rows_do_not_define_is_nan_and_the_others_are_numbers(
    task, classes, truth, predictions, undefined
):
    found = measured(task, classes, np.array(truth), predictions)
    assert {name for name, value in found.items() if math.isnan(value)} == undefined
    assert all(math.isfinite(value) for name, value in found.items() if name not in undefined)


REASONS = {
    "one class": ("binary", "auc", [0, 0], 2, "the rows hold a single class"),
    "a class missing": ("multiclass", "auc", [0, 1], 3, "the rows hold 2 of 3 classes"),
    "a constant target": ("regression", "r2", [1.5, 1.5], 2, "the target is the same in every row"),
    "both classes": ("binary", "auc", [0, 1], 2, ""),
    "no ranking": ("binary", "brier", [0, 0], 2, ""),
}


@pytest.mark.parametrize(("task", "metric", "codes", "classes", "reason"), REASONS.values(), ids=REASONS)
def test_an_undefined_metric_has_its_reason(task, metric, codes, classes, reason):
    assert undefined_reason(task, metric, np.array(codes), classes=classes) == reason


def test_a_class_that_neither_occurs_nor_is_predicted_does_not_count_in_f1():
    found = measured("multiclass", THREE, np.array(["ant", "bee"]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0]]))
    assert found["f1_macro"] == 1


def test_an_overflow_is_infinite_and_never_a_finite_number():
    found = measured("regression", (), np.arange(20.0), np.full(20, 1e200))
    assert found["rmse"] == math.inf
    assert not math.isfinite(found["r2"])


GOOD = both([0.2, 0.8, 0.5])
WORDS = ["no", "yes", "no"]


def changed(row, values):
    """Return the good predictions with one row replaced."""
    copy = GOOD.copy()
    copy[row] = values
    return copy


REFUSED = {
    "no rows": (("binary", BINARY, [], np.empty((0, 2))), "truth.*not one column"),
    "truth in two columns": (("binary", BINARY, np.array([WORDS]), GOOD), "truth.*not one column"),
    "null label": (("binary", BINARY, ["no", None, "yes"], GOOD), "truth, row 1.*null.*Drop or quarantine"),
    "NaN target": (("regression", (), [1.0, math.nan], np.ones(2)), "truth, row 1.*null"),
    "infinite target": (("regression", (), [1.0, math.inf], np.ones(2)), "truth, row 1.*not finite"),
    "text as target": (("regression", (), ["1", "2"], np.ones(2)), "not a number"),
    "flag as target": (("regression", (), [True, False], np.ones(2)), "not a number"),
    "unknown label": (("binary", BINARY, ["no", "Yes", "no"], GOOD), "outside the classes.*'Yes'.*no, yes"),
    "three classes for two": (("binary", THREE, WORDS, GOOD), "classes do not fit"),
    "one class for many": (("multiclass", ("no",), ["no"], np.ones((1, 1))), "classes do not fit"),
    "a class named twice": (("multiclass", ("no", "no", "yes"), WORDS, np.eye(3)), "classes do not fit"),
    "fewer predictions": (("binary", BINARY, WORDS, GOOD[:2]), r"another shape.*\(2, 2\).*\(3, 2\)"),
    "one column for two": (("binary", BINARY, WORDS, GOOD[:, 1]), "one probability a row.*in the order no, yes"),
    "scores of one class": (("binary", BINARY, WORDS, 3.5 * GOOD[:, 1]), r"another shape.*\(3,\).*\(3, 2\)"),
    "codes of labels": (("binary", BINARY, WORDS, np.array([0.0, 1.0, 0.0])), "labels, not prob.*predict_proba"),
    "flags": (("binary", BINARY, WORDS, np.array([[False], [True], [False]])), "labels, not prob.*predict_proba"),
    "labels": (("multiclass", THREE, ["ant"] * 3, np.array(["ant", "bee", "cow"])), "labels, not prob.*predict_proba"),
    "labels as objects": (("binary", BINARY, WORDS, np.array(WORDS, dtype=object)), "labels.*'no', 'yes', 'no'"),
    "one more class": (("multiclass", THREE, ["ant"] * 3, GOOD), r"another shape.*\(3, 2\).*\(3, 3\)"),
    "a column too many": (("regression", (), [1.0, 2.0], np.ones((2, 1))), r"another shape.*\(2, 1\).*\(2,\)"),
    "NaN": (("binary", BINARY, WORDS, changed(1, math.nan)), "row 1 .one of 1.*not finite"),
    "infinity": (("binary", BINARY, WORDS, changed(2, [-math.inf, math.inf])), "row 2.*not finite"),
    "NaN in a regression": (("regression", (), [1.0, 2.0], np.array([1, math.nan])), "row 1.*not finite"),
    "above 1": (("binary", BINARY, WORDS, changed(0, [-0.5, 1.5])), "row 0.*outside 0 to 1.*1.5"),
    "below 0": (("multiclass", THREE, ["ant"], np.array([[-0.2, 0.6, 0.6]])), "row 0.*outside 0 to 1.*-0.2"),
    "sum below 1": (("binary", BINARY, WORDS, changed(1, [0.3, 0.3])), "row 1.*not sum to 1.*0.3"),
    "labels instead": (("binary", BINARY, WORDS, np.array([WORDS, WORDS]).T), "labels, not prob"),
    "flags instead": (("binary", BINARY, WORDS, GOOD > 0.5), "not numbers.*bool"),
}


@pytest.mark.parametrize(("given_", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_with_place_value_and_remedy(given_, said):
    task, classes, truth, predictions = given_
    truth = pd.Series(truth, dtype=object if not len(truth) else None) if np.ndim(truth) == 1 else truth
    with pytest.raises(Refusal, match=f"(?s){said}") as refused:
        measured(task, classes, truth, predictions)
    assert refused.value.remedy


@pytest.mark.parametrize("values", [[0, 1, 1, 0], [False, True, True, False]], ids=["integers", "flags"])
def test_labels_are_compared_by_their_text(values):
    classes = tuple(str(each) for each in sorted(set(values)))
    found = measured("binary", classes, np.array(values), both([0.1, 0.9, 0.8, 0.3]))
    assert found["auc"] == found["accuracy"] == 1


def test_the_last_class_is_the_positive_one_whatever_its_name():
    found = measured("binary", ("yes", "no"), HALF, both(1 - SIGN))
    assert found["auc"] == found["accuracy"] == 1


BETTER_HIGH = {"auc", "average_precision", "accuracy", "f1_macro", "r2"}


@pytest.mark.parametrize("metric", sorted({metric for _, metric in PAIRS}))
def test_every_metric_says_which_way_is_better(metric):
    assert higher_is_better(metric) == (metric in BETTER_HIGH)


def test_an_unknown_metric_is_refused_with_those_that_exist():
    with pytest.raises(Refusal, match="'acuracy'.*accuracy, auc, average_precision"):
        higher_is_better("acuracy")


@settings(max_examples=100)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]), min_size=1, max_size=60), st.randoms())
def test_the_order_of_the_rows_changes_no_bin_and_equal_scores_share_one(scores, random):
    order = random.sample(range(len(scores)), len(scores))
    bins = calibration_bins(np.array(scores))
    assert calibration_bins(np.array(scores)[order]).tolist() == bins[order].tolist()
    assert len(set(zip(scores, bins.tolist(), strict=True))) == len(set(scores))
    assert 0 <= bins.min() <= bins.max() <= 9


@settings(max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=60))
def test_no_binary_predictions_get_a_metric_outside_its_range(rows):
    truth = np.array([BINARY[positive] for positive, _ in rows])
    found = measured("binary", BINARY, truth, both([score for _, score in rows]))
    undefined = {name for name, value in found.items() if math.isnan(value)}
    assert undefined == ({"auc", "average_precision"} if len(set(truth)) == 1 else set())
    assert all(-1e-12 <= found[name] <= 1 + 1e-12 for name in set(found) - undefined - {"log_loss"})
    assert 0 <= found["log_loss"] < 40
