"""The report of an evaluation: the verdict first, nothing omitted, every value escaped, and a small plot."""

import io
import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from tasks.evaluation.rules.gate import FIRST_MODEL
from tasks.evaluation.rules.report import evaluation_markdown, evaluation_plot
from tasks.evaluation.rules.spending import SpentLevel
from tests.fixtures.evaluation_cases import trained

TASKS = ("binary", "multiclass", "regression")
every_task = pytest.mark.parametrize("task", TASKS)
TITLES = {"binary": "Calibration", "multiclass": "Calibration", "regression": "Fit"}


def report(found, model="churn", version="5"):
    return evaluation_markdown(found, model=model, version=version)


def table(text, heading):
    """Return the cells of the table below a heading, one list per row, without the line below its head."""
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in [lines[0], *lines[2:]]]


def cases():
    """Return an evaluation for each verdict."""
    case = trained("binary")
    return {
        "Pass": case.evaluated(champion=case.weak),
        "Hold": case.evaluated(case.weak, case.strong),
        "Inconclusive": case.evaluated(champion=case.strong),
    }


@pytest.mark.parametrize("title", ["Pass", "Hold", "Inconclusive"])
def test_the_verdict_and_every_reason_come_before_any_table(title):
    found = cases()[title]
    lines = report(found).splitlines()
    assert re.fullmatch(rf"# \S+ {title}: churn version 5", lines[0])
    assert (
        lines[2]
        == "284 rows of the holdout, against champion version 4; 0 entities of the holdout were seen in training."
    )
    assert lines[4 : 4 + len(found.verdict.reasons)] == [f"- {reason}" for reason in found.verdict.reasons]
    assert lines.index("## Metrics") > 4


@every_task
def test_a_first_model_has_no_table_against_a_champion_and_says_so(task):
    text = report(trained(task).evaluated())
    assert "## Against the champion" not in text
    assert "against no champion (first model)" in text
    assert f"- {FIRST_MODEL}" in text
    assert {row[2] for row in table(text, "Metrics")[1:]} == {"–"}


@every_task
def test_the_champion_is_shown_metric_by_metric(task):
    case = trained(task)
    found = case.evaluated(champion=case.weak)
    text = report(found)
    for metric, ours, theirs, limits in table(text, "Metrics")[1:]:
        assert float(ours) == pytest.approx(found.metrics[metric], rel=1e-3)
        assert float(theirs) == pytest.approx(found.champion_metrics[metric], rel=1e-3)
        named = [floor for floor in case.spec.floors if floor.metric == metric]
        assert limits == (f"{'≥' if named[0].at_most is None else '≤'} {named[0].bound:g}" if named else "–")


@every_task
def test_the_comparison_is_shown_with_difference_interval_margin_and_finding(task):
    case = trained(task)
    found = case.evaluated(champion=case.weak)
    head, row = table(report(found), "Against the champion")
    assert head == ["metric", "difference", "95% interval", "margin", "rule", "outcome"]
    compared = found.comparison
    assert row[:2] == [compared.metric, f"{compared.difference:+.4f}"]
    assert row[2] == f"{compared.lower:+.4f} to {compared.upper:+.4f}"
    assert row[5] == "**better**"


@every_task
def test_the_bound_that_decides_and_the_state_of_the_error_budget_are_shown(task):
    case, spent = trained(task), SpentLevel(14, "4", 1e-9, 0.031, 0.05)
    found = case.evaluated(champion=case.weak, spent_level=spent, training_rows=1)
    text = report(found)
    assert f"Lower bound that decides: {found.comparison.level_lower:+.4f}. {spent.sentence}" in text
    assert found.comparison.level_lower < 0 < found.comparison.lower
    assert found.verdict.outcome == "inconclusive"
    assert found.verdict.reasons[0].endswith(f"is the lower bound that decides. {spent.sentence}")
    assert (
        case.evaluated(champion=case.weak, spent_level=replace(spent, level=0.025, budget=0.0)).comparison.outcome
        == "better"
    )


def test_each_slice_has_its_row_and_says_whether_its_bound_is_kept():
    case = trained("binary")
    columns = case.columns.copy()
    columns.iloc[:19, 0] = "huge"
    low, high = {"at_least": 0.001, "at_most": None}, {"at_most": 0.03}
    slices = tuple(case.spec.slices[0].model_copy(update=each) for each in (low, high))
    found = case.evaluated(slice_columns=columns, spec=case.spec.model_copy(update={"slices": slices}))
    text = report(found)
    shown = {row[0]: (row[3], row[4], row[5]) for row in table(text, "Slices")[1:]}
    large, small = (f"{each.metric_value:.4g}" for each in found.slices[1:])
    assert shown == {
        "size = huge": ("–", "≥ 0.001, ≤ 0.03", "not evaluated"),
        "size = large": (large, "≥ 0.001, ≤ 0.03", "**out of bounds**"),
        "size = small": (small, "≥ 0.001, ≤ 0.03", "within bounds"),
    }
    assert "## Not evaluated\n\n- brier where size is huge (19 rows) was not evaluated" in text


@pytest.mark.parametrize(("task", "title"), list(TITLES.items()), ids=TITLES)
def test_the_calibration_or_fit_is_shown_for_every_row_of_the_holdout(task, title):
    case = trained(task)
    _, *rows = table(report(case.evaluated()), f"{title} of the challenger")
    assert sum(int(row[0]) for row in rows) == len(case.truth)


def undefined(task, with_champion):
    """Return an evaluation with a holdout on which some metrics are NaN."""
    case = trained(task)
    same = np.full(len(case.truth), case.truth[0])
    return case.evaluated(champion=case.weak if with_champion else None, truth=same)


@every_task
def test_a_metric_that_is_no_number_is_marked_and_there_is_no_interval(task):
    found = undefined(task, True)
    text = report(found)
    rows = {row[0]: row for row in table(text, "Metrics")}
    assert rows["r2" if task == "regression" else "auc"][1:3] == ["**not finite**"] * 2
    assert "nan" not in text
    without = replace(found.comparison, difference=math.nan, lower=math.nan, upper=math.nan)
    row = table(report(replace(found, comparison=without)), "Against the champion")[1]
    assert row[1:3] == ["none", "none"]


NASTY = {
    "pipe": ("a | b", "a &#124; b"),
    "escaped pipe": ("a \\| b", r"a \\&#124; b"),
    "html": ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
    "entity": ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
    "newline": ("a\n\n# b", r"a \# b"),
    "code": ("`rm`", r"\`rm\`"),
    "link": ("[click](http://evil)", r"\[click\](http&#58;//evil)"),
    "picture": ("![x](y)", r"\!\[x\](y)"),
    "bold": ("**kept**", r"\*\*kept\*\*"),
    "mention": ("@team", "&#64;team"),
    "name with a line": ("month_to_month", "month_to_month"),
}


@pytest.mark.parametrize(("value", "shown"), NASTY.values(), ids=NASTY)
def test_no_value_of_the_data_becomes_markup_or_breaks_its_table(value, shown):
    case = trained("binary")
    columns = pd.DataFrame({"size": np.where(case.columns["size"] == "large", value, "z")})
    tight = tuple(floor.model_copy(update={"at_most": 0.001}) for floor in case.spec.slices)
    found = case.evaluated(slice_columns=columns, spec=case.spec.model_copy(update={"slices": tight}))
    text = report(found, model=value, version=value)
    assert text.splitlines()[0].endswith(f"Hold: {shown} version {shown}")
    assert any(line.startswith("- brier where size is") and shown in line for line in text.splitlines())
    rows = table(text, "Slices")
    assert f"size = {shown}" in [row[0] for row in rows]
    assert {len(row) for row in rows} == {6}


def decoded(picture):
    """Return the pixels of a picture, which must be a PNG and small."""
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(picture) < 80_000
    pixels = image.imread(io.BytesIO(picture), format="png")
    assert pixels.shape == (390, 900, 4)
    assert pixels.std() > 0.02, "the picture is blank"
    return pixels


@pytest.mark.parametrize("with_champion", [False, True], ids=["alone", "with champion"])
@pytest.mark.parametrize("defined", [True, False], ids=["measured", "with NaN"])
@every_task
def test_the_picture_is_a_small_png_whatever_was_found(task, defined, with_champion):
    case = trained(task)
    usual = case.evaluated(champion=case.weak if with_champion else None)
    decoded(evaluation_plot(usual if defined else undefined(task, with_champion)))


def test_the_picture_shows_what_was_found_and_is_the_same_every_time():
    case = trained("binary")
    pictures = [evaluation_plot(case.evaluated(case.strong, champion)) for champion in (case.weak, case.weak, None)]
    assert pictures[0] == pictures[1]
    assert not np.array_equal(decoded(pictures[0]), decoded(pictures[2]))


CLASSES = {
    "formulas": ("$a_$", "$\\frac$", "^$_"),
    "long": ("a" * 300, "b" * 300, "c" * 300),
    "markup": ("<b>", "_x", "50 %"),
}


@pytest.mark.parametrize("classes", CLASSES.values(), ids=CLASSES)
def test_no_name_of_a_class_breaks_the_picture(classes):
    case = trained("multiclass")
    names = dict(zip(case.classes, classes, strict=True))
    truth = np.array([names[each] for each in case.truth])
    decoded(evaluation_plot(case.evaluated(champion=case.weak, classes=classes, truth=truth)))


def test_a_picture_of_many_classes_stays_small():
    classes, rows = tuple(f"class {each}" for each in range(60)), 1_200
    weights = np.random.default_rng(0).random((rows, 60)) + 20 * np.eye(60)[np.arange(rows) % 60]
    truth, columns = np.array(classes)[np.arange(rows) % 60], pd.DataFrame({"size": ["any"] * rows})
    predicted = weights / weights.sum(axis=1, keepdims=True)
    found = trained("multiclass").evaluated(predicted, classes=classes, truth=truth, slice_columns=columns)
    decoded(evaluation_plot(found))
