"""Outcomes of runs: name and message of an ended run, and its outcome read from the tags."""

import pytest

from tasks.shared.rules.run_outcomes import (
    end_text,
    metric_text,
    outcome_message,
    outcome_of,
    outcome_tags,
    run_name,
    versioned,
)

METRICS = {
    "worse": ({"auc": 0.7951}, {"auc": 0.8561}, "auc 0.795 (−0.061)"),
    "better": ({"auc": 0.8561}, {"auc": 0.8444}, "auc 0.856 (+0.012)"),
    "the same": ({"auc": 0.8}, {"auc": 0.8}, "auc 0.800 (+0.000)"),
    "below zero": ({"auc": -0.25}, {}, "auc −0.250"),
    "no champion": ({"auc": 0.8}, {}, "auc 0.800"),
    "not measured": ({"brier": 0.1}, {"auc": 0.8}, ""),
}


@pytest.mark.parametrize(("challenger", "champion", "text"), METRICS.values(), ids=METRICS)
def test_the_deciding_metric_stands_with_its_difference(
    challenger: dict[str, float], champion: dict[str, float], text: str
) -> None:
    assert metric_text("auc", challenger, champion) == text


def test_a_run_is_called_by_model_version_verdict_and_metric() -> None:
    assert run_name(versioned("churn", "4"), "held", "auc 0.795 (−0.061)") == "churn v4 · held · auc 0.795 (−0.061)"
    assert run_name(versioned("churn", "5"), "not promotable (development)", "") == (
        "churn v5 · not promotable (development)"
    )


def test_the_message_begins_with_the_outcome() -> None:
    assert outcome_message("rolled_back", "version 3 serves again") == "Rolled back: version 3 serves again"


def test_a_text_that_begins_with_the_outcome_does_not_say_it_twice() -> None:
    for outcome, text in (("no_drift", "No drift: none of 20 columns."), ("drift", "Drift from the reference data.")):
        assert outcome_message(outcome, text) == text
    assert outcome_message("off", "Offers are off.") == "Off: Offers are off."


TAGS = {
    "an outcome": (["ci", "outcome:held"], "COMPLETED", "held"),
    "of a failure": (["outcome:not_checked"], "FAILED", "not_checked"),
    "of an earlier attempt": (["outcome:not_checked"], "CRASHED", ""),
    "of a run that is tried again": (["outcome:held"], "RUNNING", ""),
    "none": (["ci"], "COMPLETED", ""),
}


@pytest.mark.parametrize(("tags", "state_type", "outcome"), TAGS.values(), ids=TAGS)
def test_an_outcome_is_read_from_the_tags_of_a_run_that_ended_so(
    tags: list[str], state_type: str, outcome: str
) -> None:
    assert outcome_of(tags, state_type) == outcome


def test_a_later_outcome_replaces_the_tag_of_an_earlier_one() -> None:
    assert outcome_tags(["ci", "outcome:held"], "deployed") == ["ci", "outcome:deployed"]


def test_the_end_of_a_run_is_one_line() -> None:
    assert end_text("held", "Completed", "Held: auc is 0.7") == "Held: auc is 0.7"
    assert end_text("", "Failed", "the data is refused") == "Failed: the data is refused"
    assert end_text("", "Crashed", "") == "Crashed"
