"""Evaluation on the holdout: from predictions to a verdict and a strict record, on real models of all three tasks."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tasks.evaluation.rules.evaluation import Leak, count_leaked, record_json
from tasks.evaluation.rules.gate import FIRST_MODEL
from tasks.evaluation.rules.metrics import METRICS
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.evaluation_cases import BINARY, both, measured, models, trained

TASKS = ("binary", "multiclass", "regression")
every_task = pytest.mark.parametrize("task", TASKS)
with_and_without_champion = pytest.mark.parametrize("with_champion", [False, True], ids=["alone", "with champion"])


@every_task
def test_a_first_model_that_keeps_its_floors_passes_without_a_comparison(task):
    case = trained(task)
    found = case.evaluated()
    assert found.verdict.outcome == "pass"
    assert found.verdict.reasons[-1] == FIRST_MODEL
    assert (found.comparison, found.champion_metrics, found.champion_version) == (None, None, "")
    assert found.metrics == measured(task, case.classes, case.truth, case.strong)
    assert found.rows == len(case.truth)
    assert {curve.model for curve in found.curves} == {"challenger"}


@every_task
def test_a_model_that_beats_its_champion_passes_and_names_the_comparison(task):
    case = trained(task)
    found = case.evaluated(champion=case.weak)
    assert found.verdict.outcome == "pass"
    assert found.verdict.reasons[-1] == found.comparison.sentence
    assert found.comparison.outcome == "better"
    assert found.comparison.metric == case.spec.comparison.metric
    assert found.champion_metrics == measured(task, case.classes, case.truth, case.weak)
    assert found.champion_version == "4"
    assert {curve.model for curve in found.curves} == {"challenger", "champion"}


@every_task
def test_a_model_that_is_worse_than_its_champion_is_held(task):
    case = trained(task)
    lenient = case.spec.model_copy(update={"floors": (case.spec.floors[0].model_copy(update={"at_least": -1.0}),)})
    found = case.evaluated(case.weak, case.strong, spec=lenient.model_copy(update={"slices": ()}))
    assert found.verdict.outcome == "hold"
    assert found.verdict.reasons == (found.comparison.sentence,)
    assert "is worse than the champion" in found.comparison.sentence


@every_task
def test_a_model_that_predicts_what_its_champion_does_is_inconclusive(task):
    case = trained(task)
    found = case.evaluated(champion=case.strong.copy())
    assert found.verdict.outcome == "inconclusive"
    assert "is no different from the champion" in found.verdict.reasons[0]


@every_task
def test_a_weak_model_is_held_by_its_floors_and_slices_without_a_champion(task):
    case = trained(task)
    tight = tuple(floor.model_copy(update={"at_most": floor.at_most / 2}) for floor in case.spec.slices)
    found = case.evaluated(case.weak, spec=case.spec.model_copy(update={"slices": tight}))
    assert found.verdict.outcome == "hold"
    metric, least = case.spec.floors[0].metric, case.spec.floors[0].at_least
    assert f"{metric} is {found.metrics[metric]:.4g}, below its floor of {least:g}." in found.verdict.reasons
    assert any(" where size is large (" in reason for reason in found.verdict.reasons)


@every_task
def test_one_leaked_entity_holds_what_would_pass(task):
    found = trained(task).evaluated(leak=Leak(1))
    assert found.verdict.outcome == "hold"
    assert "1 entities of the holdout were seen in training, where 0 are allowed." in found.verdict.reasons
    assert found.leaked == 1


@with_and_without_champion
@every_task
def test_a_holdout_of_a_single_class_or_value_holds_and_is_recorded(task, with_champion):
    case = trained(task)
    same = np.full(len(case.truth), case.truth[0])
    found = case.evaluated(champion=case.weak if with_champion else None, truth=same)
    assert found.verdict.outcome == "hold"
    because = "the target is the same in every row" if task == "regression" else "the rows hold a single class"
    assert any(reason.endswith(f"is not a number: {because}.") for reason in found.verdict.reasons)
    assert strict(record_json(found))["metrics"]["r2" if task == "regression" else "auc"] is None


def test_too_few_rows_hold():
    case = trained("binary")
    found = case.evaluated(case.strong[:20], truth=case.truth[:20], slice_columns=case.columns[:20])
    assert found.verdict.outcome == "hold"
    assert "The holdout has 20 rows, fewer than the 50 that minimum_rows asks for." in found.verdict.reasons


@every_task
def test_a_slice_is_the_metric_over_its_rows_and_rows_without_a_value_are_one(task):
    case = trained(task)
    columns = case.columns.copy()
    columns.iloc[::3, 0] = None
    found = case.evaluated(slice_columns=columns)
    assert [each.value for each in found.slices] == ["(null)", "large", "small"]
    for each in found.slices:
        rows = columns["size"].isna() if each.value == "(null)" else columns["size"] == each.value
        expected = measured(task, case.classes, case.truth[rows], case.strong[rows])[each.metric]
        assert each.rows == rows.sum()
        assert each.metric_value == pytest.approx(expected)


def test_a_slice_with_too_few_rows_is_not_measured():
    case = trained("binary")
    columns = case.columns.copy()
    columns.iloc[:39, 0] = ["huge"] * 19 + ["big"] * 20
    found = case.evaluated(slice_columns=columns)
    assert [each.value for each in found.slices if each.metric_value is None] == ["huge"]
    assert found.verdict.outcome == "pass"
    assert "brier where size is huge (19 rows) was not evaluated: fewer than 20 rows." in found.verdict.notes


IDS = pd.DataFrame({"size": [f"row {row}" for row in range(1_001)]})
SCORES = both(np.linspace(0, 1, 1_001))
REFUSED = {
    "champion without version": (
        {"champion": SCORES, "champion_version": ""},
        "only one of champion and champion_version is given",
    ),
    "version without champion": (
        {"champion_version": "4"},
        "champion_version.*only one of champion and champion_version is given.*'4'",
    ),
    "champion of other rows": ({"champion": SCORES[1:]}, "champion.*another shape"),
    "challenger NaN": ({"challenger": SCORES * math.nan}, "challenger, row 0.*not finite"),
    "slice column missing": ({"slice_columns": IDS.rename(columns={"size": "x"})}, "slices, size.*not in the holdout"),
    "slice column shorter": ({"slice_columns": IDS[1:]}, "size.*another length.*1000.*1001 rows"),
    "slice column of names": ({"slice_columns": IDS}, "size.*too many values.*1001"),
    "no rows": ({"truth": np.array([]), "challenger": SCORES[:0]}, "truth.*not one column of rows"),
}


@pytest.mark.parametrize(("changes", "said"), REFUSED.values(), ids=REFUSED)
def test_an_evaluation_of_what_does_not_fit_together_is_refused(changes, said):
    usual = {"classes": BINARY, "truth": np.array(["no", "yes"] * 501)[:1_001], "challenger": SCORES}
    usual |= {"slice_columns": IDS.assign(size="one")}
    with pytest.raises(Refusal, match=said):
        trained("binary").evaluated(**usual | changes)


LEAKS = {
    "none": ([1, 2, 3], [4, 5], 0),
    "one": ([1, 2, 3], [3, 4, 5], 1),
    "one, many rows": ([1, 3, 3, 3], [3, 3, 4], 1),
    "all": (["a", "b"], ["b", "a"], 2),
    "numbers and text": (np.array([1, 2, 3]), pd.Series(["3", "03", "2.0"]), 1),
    "spaces and case": (["a"], ["A", "a ", " a"], 0),
    "arrays of numpy": (np.array([2**60 + 1]), np.array([2**60, 2**60 + 1]), 1),
}


@pytest.mark.parametrize(("training", "holdout", "leaked"), LEAKS.values(), ids=LEAKS)
def test_leaked_entities_are_counted_once_each_by_their_text(training, holdout, leaked):
    assert count_leaked(training, holdout) == count_leaked(holdout, training) == leaked


@settings(max_examples=100)
@given(st.lists(st.integers(0, 50), min_size=1), st.lists(st.integers(0, 50), min_size=1))
def test_the_count_of_leaked_entities_is_the_size_of_the_intersection(training, holdout):
    assert count_leaked(np.array(training), [str(key) for key in holdout]) == len(set(training) & set(holdout))


UNPROVED = {
    "no training keys": ([], ["a"], "training keys.*no keys"),
    "no holdout keys": (["a"], [], "holdout keys.*no keys"),
    "null key": (["a"], ["a", None], "holdout keys.*neither"),
    "decimals": ([1.0, 2.0], [1], "training keys.*neither.*1.0"),
    "NaN": ([1], [1, math.nan], "holdout keys.*neither"),
    "flags": ([True], [1], "training keys.*neither.*True"),
}


@pytest.mark.parametrize(("training", "holdout", "said"), UNPROVED.values(), ids=UNPROVED)
def test_keys_that_prove_nothing_are_refused(training, holdout, said):
    with pytest.raises(Refusal, match=said):
        count_leaked(training, holdout)


def strict(text):
    """Parse JSON by the standard: no NaN, no Infinity."""

    def refuse(literal):
        raise AssertionError(f"{literal} is no JSON")

    return json.loads(text, parse_constant=refuse)


@with_and_without_champion
@every_task
def test_the_record_is_strict_json_that_reads_back_as_what_was_found(task, with_champion):
    case = trained(task)
    found = case.evaluated(champion=case.weak if with_champion else None)
    text = record_json(found)
    record = strict(text)
    assert record == json.loads(json.dumps(asdict(found)))
    assert (list(record), list(record["metrics"])) == (sorted(record), sorted(METRICS[task]))
    assert text == record_json(case.evaluated(champion=case.weak if with_champion else None))
    assert len(text) < 20_000


def test_what_is_not_finite_is_null_in_the_record_however_deep():
    found = trained("binary").evaluated()
    slices = (replace(found.slices[0], metric_value=-math.inf),)
    record = strict(record_json(replace(found, metrics={"auc": math.inf}, slices=slices)))
    assert (record["metrics"], record["slices"][0]["metric_value"]) == ({"auc": None}, None)


def test_the_roc_curve_runs_from_corner_to_corner_and_has_the_area_of_auc():
    classes, truth, champion, challenger = models("binary", rows=3_000)
    case = replace(trained("binary"), classes=classes, truth=truth, columns=pd.DataFrame({"size": ["any"] * 3_000}))
    found = case.evaluated(challenger, champion)
    (roc,) = [each for each in found.curves if (each.kind, each.model) == ("roc", "challenger")]
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert len(roc.x) == len(roc.y) <= 120
    assert sk.auc(roc.x, roc.y) == pytest.approx(found.metrics["auc"], abs=0.002)


@every_task
def test_the_curves_account_for_every_row(task):
    case = trained(task)
    for curve in case.evaluated(champion=case.weak).curves:
        assert len(curve.x) == len(curve.y)
        assert curve.kind == "roc" or sum(curve.rows) == len(case.truth)
        assert all(math.isfinite(value) for value in (*curve.x, *curve.y))


def test_the_recall_of_each_class_is_the_share_that_was_found():
    case = trained("multiclass")
    recall, _ = case.evaluated(case.weak).curves
    chosen = np.array(case.classes)[case.weak.argmax(axis=1)]
    assert recall.y == pytest.approx([np.mean(chosen[case.truth == name] == name) for name in case.classes], abs=1e-6)


def test_the_fit_of_a_regression_passes_through_the_means_of_its_bins():
    case = trained("regression")
    (fit,) = case.evaluated().curves
    assert len(fit.rows) == 10
    assert np.average(fit.y, weights=fit.rows) == pytest.approx(case.truth.mean(), rel=1e-4)
    assert np.average(fit.x, weights=fit.rows) == pytest.approx(case.strong.mean(), rel=1e-4)
