"""The messages of an alert, from its signals: once, reminders while it lasts, and one when it is over."""

import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tasks.notification.rules.kinds import EVENT_KINDS, channel_accepts, event_kind
from tasks.notification.rules.story import (
    due_messages,
    is_alert_open,
    message_body,
    message_id,
    message_subject,
    next_delivery_attempt,
)
from tasks.shared.rules.refusal import Refusal

START = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Happened:
    key: str
    state: str
    severity: str
    at: datetime


def history(*states: str) -> list[Happened]:
    """One signal an hour: "raised", "raised critical", "acknowledged", "recovered", "news"."""
    words = [(*state.split(), "warning")[:2] for state in states]
    return [
        Happened(f"s{hour}", state, severity, START + timedelta(hours=hour))
        for hour, (state, severity) in enumerate(words)
    ]


STORIES = {
    "nothing happened": ((), ()),
    "news is told each time": (("news", "news"), ("news", "news")),
    "a condition is told when it begins": (("raised",), ("new",)),
    "seen again, it is not told again": (("raised", "raised", "raised"), ("new",)),
    "graver, it is told": (("raised", "raised critical", "raised critical"), ("new", "worse")),
    "less grave again is no news": (("raised critical", "raised"), ("new",)),
    "over": (("raised", "recovered"), ("new", "recovered")),
    "over twice is over once": (("raised", "recovered", "recovered"), ("new", "recovered")),
    "over before it began": (("recovered",), ()),
    "again after it was over": (("raised", "recovered", "raised"), ("new", "recovered", "new")),
    "acknowledging says nothing": (("raised", "acknowledged"), ("new",)),
    "acknowledged, and over": (("raised", "acknowledged", "recovered"), ("new", "recovered")),
}


@pytest.mark.parametrize(("states", "told"), STORIES.values(), ids=STORIES)
def test_what_is_told(states: tuple[str, ...], told: tuple[str, ...]) -> None:
    words = due_messages(history(*states), START + timedelta(hours=len(states)), DAY)
    assert tuple(word.occasion for word in words) == told


def test_what_lasts_is_told_again_each_day_and_says_how_often_it_was_seen() -> None:
    lasting = history("raised", "raised", "raised")
    assert [word.occasion for word in due_messages(lasting, START + DAY - timedelta(seconds=1), DAY)] == ["new"]
    first = due_messages(lasting, START + DAY, DAY)[-1]
    assert (first.occasion, first.occurrences, first.since, first.record_index) == ("reminder", 3, START, 2)
    assert due_messages(lasting, START + 1.9 * DAY, DAY)[-1].id_source == first.id_source
    assert due_messages(lasting, START + 2 * DAY, DAY)[-1].id_source != first.id_source


def test_reminders_that_were_missed_are_not_told_late() -> None:
    words = due_messages(history("raised"), START + 10.5 * DAY, DAY)
    assert [word.occasion for word in words] == ["new", "reminder"]


def test_nobody_is_reminded_of_what_somebody_looks_after_until_it_is_graver() -> None:
    after = START + 3 * DAY
    assert "reminder" not in [word.occasion for word in due_messages(history("raised", "acknowledged"), after, DAY)]
    graver = history("raised", "acknowledged", "raised critical")
    assert [word.occasion for word in due_messages(graver, after, DAY)] == ["new", "worse", "reminder"]


def test_without_a_time_to_remind_nobody_is_reminded() -> None:
    assert [word.occasion for word in due_messages(history("raised"), START + 100 * DAY, timedelta(0))] == ["new"]


states = some.sampled_from(["news", "raised", "raised critical", "acknowledged", "recovered"])


@given(some.lists(states, max_size=12), some.integers(0, 12))
def test_what_was_told_stays_told_whatever_happens_later(happened: list[str], until: int) -> None:
    whole = history(*happened)
    now = START + timedelta(hours=len(whole))
    first, then = due_messages(whole[:until], now, timedelta(0)), due_messages(whole, now, timedelta(0))
    assert then[: len(first)] == first
    names = [(word.id_source, word.occasion) for word in then]
    assert len(names) == len(set(names))


@given(some.lists(states, max_size=12))
def test_each_beginning_has_at_most_one_end(happened: list[str]) -> None:
    occasions = [word.occasion for word in due_messages(history(*happened), START + DAY, timedelta(0))]
    ends = [occasion for occasion in occasions if occasion in ("new", "recovered")]
    assert ends == ["new", "recovered"] * (len(ends) // 2) + ["new"] * (len(ends) % 2)
    assert is_alert_open(history(*happened)) == (len(ends) % 2 == 1)


def test_a_message_has_one_id_for_each_channel_and_occasion() -> None:
    ids = {message_id(name, occasion, channel) for name in "ab" for occasion in ("new", "worse") for channel in "xy"}
    assert len(ids) == 8
    assert message_id("a", "new", "x") == message_id("a", "new", "x")


def test_a_message_that_failed_is_tried_again_sooner_at_first_and_for_ever() -> None:
    waits = [(next_delivery_attempt(failed, START) - START).total_seconds() / 60 for failed in (1, 2, 3, 4, 5, 100)]
    assert waits == [1, 2, 4, 8, 15, 15]


@dataclass(frozen=True)
class Team:
    name: str = "team"
    min_severity: str = "warning"
    models: tuple[str, ...] = ("*",)
    events: tuple[str, ...] = ("*",)


TAKES = {
    "as grave as asked": (Team(), "warning", True),
    "graver": (Team(), "critical", True),
    "less grave": (Team(), "info", False),
    "of an unknown severity": (Team(min_severity="critical"), "dreadful", True),
    "of another model": (Team(models=("price-*",)), "critical", False),
    "of a model by pattern": (Team(models=("price", "ch*")), "critical", True),
    "of another event": (Team(events=("release.*",)), "critical", False),
    "of an event by pattern": (Team(events=("model.*",)), "critical", True),
}


@pytest.mark.parametrize(("channel", "severity", "told"), TAKES.values(), ids=TAKES)
def test_a_channel_is_told_of_what_it_asked_for(channel: Team, severity: str, told: bool) -> None:
    assert channel_accepts(channel, severity=severity, model="churn", event="model.drift.detected") is told


def test_a_message_says_what_where_since_when_whose_and_what_to_do() -> None:
    assert message_subject("reminder", "critical", "model.monitoring.failed", "churn", "local") == (
        "[critical] churn (local): reminder: monitoring failed"
    )
    assert message_subject("recovered", "critical", "model.drift.detected", "churn", "local").startswith(
        "[recovered] churn"
    )
    text = message_body(
        "It drifts.",
        {"run": "http://here"},
        owner="ann",
        cause="churn/local/x",
        since=START,
        occurrences=3,
        is_open=True,
    )
    for part in (
        "It drifts.",
        "run: http://here",
        "owner: ann",
        "3 times since 2026-11-25 09:00 UTC",
        "python -m ratchet alerts ack --by you -- churn/local/x",
    ):
        assert part in text
    over = message_body("It is over.", {}, owner="ann", cause="c", since=START, occurrences=3, is_open=False)
    assert "alerts ack" not in over


def test_the_name_of_an_alert_is_one_word_of_the_command_that_people_copy() -> None:
    cause = "-x \"$(id)\" `id`; '$(shell id)'\nid"
    body = message_body("It drifts.", {}, owner="ann", cause=cause, since=START, occurrences=1, is_open=True)
    command = body.splitlines()[-1].partition("reminders): ")[2]
    assert shlex.split(command)[-2:] == ["--", cause.replace("\n", " ")]


def test_an_unknown_event_is_refused_with_those_there_are() -> None:
    with pytest.raises(Refusal, match=r"model\.drift\.detected"):
        event_kind("model.drifted")
    assert all(kind.event == name for name, kind in EVENT_KINDS.items())


def test_a_changed_signal_does_not_change_what_others_said() -> None:
    whole = history("raised", "recovered", "raised")
    whole[2] = replace(whole[2], severity="critical")
    assert [word.occasion for word in due_messages(whole, START, DAY)] == ["new", "recovered", "new"]
