"""Every ledger keeps alerts alike: each key once, nothing lost, what was not taken is still to be delivered."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from blocks.common.errors import Unavailable
from blocks.ledger.base import Ledger
from blocks.ledger.fake import FakeLedger
from blocks.ledger.outbox import Attempt, Message, Signal
from blocks.ledger.sql import SqlLedger
from tests.contracts.test_ledger import again, make_ledger, postgres  # noqa: F401  a fixture

NOW = datetime(2026, 11, 25, 9, 0, 0, 123456, tzinfo=UTC)
RAISED = Signal("k1", "churn/local/drift", "model.drift.detected", "raised", "churn", "local", "warning", "ann",
                "“tenure” moved by 0.4", NOW, {"run": "http://here/ä"})  # fmt: skip
MESSAGE = Message("m1", RAISED.cause, "new", "team", "warning", "subject", "body\nof lines", NOW)


@pytest.fixture(params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    return make_ledger(request, tmp_path, request.param)


def test_a_signal_comes_back_as_it_was_and_a_repeat_changes_nothing(ledger: Ledger) -> None:
    assert ledger.signal(RAISED) == RAISED
    assert ledger.signal(replace(RAISED, sentence="otherwise")) == RAISED
    assert again(ledger).signals(RAISED.cause) == (RAISED,)
    assert ledger.signals("another/cause") == ()


def test_signals_of_a_cause_come_in_the_order_in_which_they_were_written(ledger: Ledger) -> None:
    later = replace(RAISED, key="k2", state="recovered", at=NOW - timedelta(hours=1))  # a clock that went back
    ledger.signal(RAISED)
    ledger.signal(later)
    assert [signal.key for signal in ledger.signals(RAISED.cause)] == ["k1", "k2"]


def test_causes_are_the_open_ones_and_the_recent_ones(ledger: Ledger) -> None:
    old, week = NOW - timedelta(days=30), NOW - timedelta(days=7)
    for number, (cause, state, at) in enumerate([
        ("open since long", "raised", old), ("over since long", "raised", old), ("over since long", "recovered", old),
        ("looked after", "raised", old), ("looked after", "acknowledged", old),
        ("old news", "news", old), ("fresh news", "news", NOW), ("just over", "raised", old), ("just over", "recovered", NOW),
    ]):  # fmt: skip
        ledger.signal(replace(RAISED, key=f"c{number}", cause=cause, state=state, at=at))
    assert ledger.causes(week) == ("open since long", "looked after", "fresh news", "just over")


def test_a_message_waits_until_a_receiver_has_taken_it(ledger: Ledger) -> None:
    assert ledger.post(MESSAGE) == MESSAGE
    assert ledger.post(replace(MESSAGE, body="otherwise")) == MESSAGE
    ledger.post(replace(MESSAGE, id="m2"))
    failed = ledger.attempted(Attempt("m1", 1, False, "down", NOW))
    assert ledger.attempted(Attempt("m1", 1, True, "", NOW)) == failed
    assert ledger.undelivered() == ((MESSAGE, (failed,)), (replace(MESSAGE, id="m2"), ()))
    ledger.attempted(Attempt("m1", 2, True, "", NOW))
    assert [message.id for message, _ in again(ledger).undelivered()] == ["m2"]
    assert [message.id for message in ledger.messages(RAISED.cause)] == ["m1", "m2"]


def test_of_many_who_say_the_same_at_once_one_is_recorded(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as people:
        said = list(people.map(lambda n: again(ledger).signal(replace(RAISED, sentence=str(n))), range(8)))
    assert len(set(map(str, said))) == 1


def test_what_was_written_cannot_be_changed_or_deleted(tmp_path: Path) -> None:
    ledger = SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    ledger.signal(RAISED)
    ledger.post(MESSAGE)
    ledger.attempted(Attempt("m1", 1, True, "", NOW))
    for statement in (
        "UPDATE ratchet_signals SET sentence = 'x'",
        "DELETE FROM ratchet_messages",
        "DELETE FROM ratchet_attempts",
    ):
        with pytest.raises(Exception, match="only added to"):
            ledger._database().write(lambda connection, sql=statement: connection.execute(text(sql)))


def test_a_ledger_of_an_earlier_release_gets_the_tables_that_it_lacks(tmp_path: Path) -> None:
    before = SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    before.intend("kept", "from before", NOW)
    before._database().write(lambda connection: connection.execute(text("DROP TABLE ratchet_signals")))
    after = SqlLedger(url=f"sqlite:///{tmp_path}/ledger.db")
    assert after.signal(RAISED) == RAISED
    assert after.effect("kept") is not None


def test_a_ledger_that_fails_says_so_and_keeps_nothing_half() -> None:
    ledger = FakeLedger(fail_writes=1)
    with pytest.raises(Unavailable):
        ledger.signal(RAISED)
    assert ledger.signals(RAISED.cause) == ()
