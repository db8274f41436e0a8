"""The contract of the outbox, over every adapter: each key once, nothing lost, undelivered messages stay queued."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from blocks.common.errors import Unavailable
from blocks.database.ledger import Ledger
from blocks.outbox.base import Outbox, SendAttempt
from blocks.outbox.fake import FakeOutbox
from tests.fixtures.alert_records import MESSAGE, NOW, RAISED
from tests.fixtures.ledgers import again, ledger, postgres

__all__ = ["ledger", "postgres"]  # fixtures


@pytest.fixture
def outbox(ledger: Ledger) -> Outbox:
    return ledger.outbox()


def test_a_signal_comes_back_as_it_was_and_a_repeat_changes_nothing(ledger: Ledger, outbox: Outbox) -> None:
    assert outbox.record_signal(RAISED) == RAISED
    assert outbox.record_signal(replace(RAISED, summary="otherwise")) == RAISED
    assert again(ledger).outbox().signals(RAISED.cause) == (RAISED,)
    assert outbox.signals("another/cause") == ()


def test_signals_of_a_cause_come_in_the_order_in_which_they_were_written(outbox: Outbox) -> None:
    later = replace(RAISED, key="k2", state="recovered", at=NOW - timedelta(hours=1))  # a clock that was set back
    outbox.record_signal(RAISED)
    outbox.record_signal(later)
    assert [signal.key for signal in outbox.signals(RAISED.cause)] == ["k1", "k2"]


def test_causes_are_the_open_ones_and_the_recent_ones(outbox: Outbox) -> None:
    old, week = NOW - timedelta(days=30), NOW - timedelta(days=7)
    for number, (cause, state, at) in enumerate([
        ("open since long", "raised", old), ("over since long", "raised", old), ("over since long", "recovered", old),
        ("looked after", "raised", old), ("looked after", "acknowledged", old),
        ("old news", "news", old), ("fresh news", "news", NOW), ("just over", "raised", old), ("just over", "recovered", NOW),
    ]):  # fmt: skip
        outbox.record_signal(replace(RAISED, key=f"c{number}", cause=cause, state=state, at=at))
    assert outbox.active_causes(week) == ("open since long", "looked after", "fresh news", "just over")


def test_a_message_waits_until_a_receiver_has_taken_it(ledger: Ledger, outbox: Outbox) -> None:
    assert outbox.add_message(MESSAGE) == MESSAGE
    assert outbox.add_message(replace(MESSAGE, body="otherwise")) == MESSAGE
    outbox.add_message(replace(MESSAGE, id="m2"))
    failed = outbox.record_attempt(SendAttempt("m1", 1, False, "down", NOW))
    assert outbox.record_attempt(SendAttempt("m1", 1, True, "", NOW)) == failed
    assert outbox.undelivered() == ((MESSAGE, (failed,)), (replace(MESSAGE, id="m2"), ()))
    outbox.record_attempt(SendAttempt("m1", 2, True, "", NOW))
    assert [message.id for message, _ in again(ledger).outbox().undelivered()] == ["m2"]


def test_of_many_who_say_the_same_at_once_one_is_recorded(ledger: Ledger, outbox: Outbox) -> None:
    with ThreadPoolExecutor(8) as people:
        said = list(
            people.map(lambda n: again(ledger).outbox().record_signal(replace(RAISED, summary=str(n))), range(8))
        )
    assert len(set(map(str, said))) == 1


def test_a_ledger_that_fails_says_so_and_keeps_nothing_half() -> None:
    outbox = FakeOutbox(fail_writes=1)
    with pytest.raises(Unavailable):
        outbox.record_signal(RAISED)
    assert outbox.signals(RAISED.cause) == ()
