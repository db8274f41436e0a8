"""Every inbox keeps the same promises: each delivery once, each turn one outcome, one holder of a lease."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.database.ledger import Ledger
from blocks.inbox.base import Arrival, Delivery, Inbox, Note, Outcome
from tests.fixtures.deliveries import NOW, PUSH, STARTED
from tests.fixtures.ledgers import again, ledger, postgres

__all__ = ["ledger", "postgres"]  # fixtures


@pytest.fixture
def inbox(ledger: Ledger) -> Inbox:
    return ledger.inbox()


def pushed(name: str, **changes: object) -> Delivery:
    return replace(PUSH, id=f"github:{name}", digest=name * 8, **changes)


def test_a_delivery_is_taken_in_once_and_its_turn_waits(ledger: Ledger, inbox: Inbox) -> None:
    assert (inbox.receive(PUSH).how, inbox.receive(PUSH).how) == ("new", "repeated")
    (turn,) = again(ledger).inbox().open_turns()
    assert (turn.delivery, turn.number, turn.key) == (PUSH, 0, "github:a#0")
    assert [(each.turn, each.state) for each in inbox.entries()] == [(turn, "open")]
    assert inbox.notes() == ()


def test_several_are_taken_in_at_once_or_none_of_them(inbox: Inbox) -> None:
    naive = replace(pushed("c"), received_at=NOW.replace(tzinfo=None))
    with pytest.raises(Rejected):
        inbox.receive_all([Arrival(pushed("a")), Arrival(naive)])
    assert inbox.entries() == ()
    given = [Arrival(pushed("a")), Arrival(pushed("b"), Outcome("ignored", "a ping")), Arrival(pushed("a"))]
    assert [receipt.how for receipt in inbox.receive_all(given)] == ["new", "new", "repeated"]
    assert [turn.delivery.id for turn in inbox.open_turns()] == ["github:a"]


def test_an_id_that_comes_with_another_body_is_noted_and_changes_nothing(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    receipt = inbox.receive(replace(PUSH, digest="e" * 64, commit="f" * 40))
    assert (receipt.how, receipt.recorded) == ("altered", PUSH)
    (note,) = again(ledger).inbox().notes()
    assert (note.about, note.kind, note.at) == ("github:a", "altered", NOW)
    assert "e" * 64 in note.text
    assert len(inbox.open_turns()) == 1


def test_a_body_that_came_before_is_noted_unless_its_sender_signs_the_time(inbox: Inbox) -> None:
    inbox.receive(PUSH)
    other = replace(PUSH, id="github:b")
    receipt = inbox.receive(other)
    assert (receipt.how, receipt.recorded.id) == ("replayed", "github:a")
    assert [note.kind for note in inbox.notes()] == ["replayed"]
    assert inbox.receive(other, once_per_body=False).how == "new"
    assert inbox.receive(replace(PUSH, id="gitlab:b", sender="gitlab")).how == "new", "another sender's is another"


def test_what_is_ignored_at_once_never_waits(inbox: Inbox) -> None:
    inbox.receive(PUSH, outcome=Outcome("ignored", "a ping"))
    assert inbox.open_turns() == ()
    assert inbox.entry("github:a").outcome == Outcome("ignored", "a ping")


def test_a_turn_ends_once_with_its_runs_and_the_first_outcome_stays(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    (turn,) = inbox.open_turns()
    assert inbox.end_turn(turn, STARTED, NOW) == STARTED
    assert again(ledger).inbox().end_turn(turn, Outcome("refused", "too late"), NOW) == STARTED
    assert inbox.entry("github:a").outcome == STARTED
    assert inbox.open_turns() == ()


def test_a_turn_that_nobody_asked_for_cannot_end(inbox: Inbox) -> None:
    inbox.receive(PUSH)
    (turn,) = inbox.open_turns()
    with pytest.raises(NotFound, match="turn 7 of 'github:a'"):
        inbox.end_turn(replace(turn, number=7), STARTED, NOW)


def test_a_delivery_gets_a_further_turn_only_when_the_last_has_ended(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    with pytest.raises(Conflict, match="waits for the dispatcher already"):
        inbox.ask_again("github:a", "ada", NOW)
    inbox.end_turn(inbox.open_turns()[0], Outcome("ignored", "no rule"), NOW)
    turn = inbox.ask_again("github:a", "ada", NOW + timedelta(hours=1))
    assert (turn.number, turn.asked_by, turn.key) == (1, "ada", "github:a#1")
    assert again(ledger).inbox().open_turns() == (turn,)
    assert inbox.entry("github:a").state == "open"
    with pytest.raises(NotFound, match="gateway list"):
        inbox.ask_again("github:ghost", "ada", NOW)


def test_entries_come_newest_first_and_by_state(inbox: Inbox) -> None:
    for name in "abc":
        inbox.receive(pushed(name))
    first, second, _ = inbox.open_turns()
    inbox.end_turn(first, STARTED, NOW)
    inbox.end_turn(second, Outcome("refused", "no"), NOW)
    assert [each.turn.delivery.id[-1] for each in inbox.entries()] == ["c", "b", "a"]
    assert [each.turn.delivery.id[-1] for each in inbox.entries(2)] == ["c", "b"]
    states = {state: [e.turn.delivery.id[-1] for e in inbox.entries(state=state)]
              for state in ("open", "started", "refused", "ignored")}  # fmt: skip
    assert states == {"open": ["c"], "started": ["a"], "refused": ["b"], "ignored": []}


def test_open_turns_come_oldest_first_up_to_a_limit(inbox: Inbox) -> None:
    for name in "abc":
        inbox.receive(pushed(name))
    assert [turn.delivery.id[-1] for turn in inbox.open_turns(2)] == ["a", "b"]


def test_the_commits_of_a_branch_are_those_that_were_delivered_newest_first(inbox: Inbox) -> None:
    inbox.receive(pushed("a", commit="1" * 40))
    inbox.receive(pushed("b", commit="2" * 40))
    inbox.receive(pushed("x", commit="3" * 40, ref="other"))
    inbox.receive(pushed("p", commit=""))
    assert inbox.commits("acme/models", "main") == ("2" * 40, "1" * 40)


def test_a_run_is_unreported_until_its_end_is_reported(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    inbox.end_turn(inbox.open_turns()[0], STARTED, NOW)
    assert [(w.run.run_id, w.delivery, w.last) for w in inbox.unreported_runs()] == [
        ("run-1", PUSH, ""),
        ("run-2", PUSH, ""),
    ]
    inbox.report("run-1", "pending", "", NOW, final=False)
    assert [each.last for each in again(ledger).inbox().unreported_runs()] == ["pending", ""]
    inbox.report("run-1", "success", "# better", NOW, final=True)
    inbox.report("run-1", "failure", "# late", NOW, final=True)
    assert [each.run.run_id for each in inbox.unreported_runs()] == ["run-2"]
    assert (inbox.report_text("run-1"), inbox.report_text("run-2")) == ("# better", "")


def test_notes_come_newest_first(inbox: Inbox) -> None:
    for number in range(3):
        inbox.note(Note("github", "forged", f"{number}", NOW))
    assert [note.text for note in inbox.notes(2)] == ["2", "1"]


def test_a_lease_has_one_holder_until_it_runs_out_or_is_let_go(ledger: Ledger, inbox: Inbox) -> None:
    minute = timedelta(minutes=1)
    assert inbox.lease("dispatch", "one", NOW, NOW + minute) == 1
    assert again(ledger).inbox().lease("dispatch", "two", NOW, NOW + minute) is None
    assert inbox.lease("dispatch", "one", NOW, NOW + 2 * minute) == 1, "held on"
    assert inbox.lease("dispatch", "two", NOW + minute, NOW + 3 * minute) is None
    assert inbox.lease("dispatch", "two", NOW + 2 * minute, NOW + 3 * minute) == 2, "it ran out"
    inbox.release("dispatch", "one")
    assert inbox.lease("dispatch", "one", NOW, NOW + minute) is None, "only the holder lets go"
    inbox.release("dispatch", "two")
    assert inbox.lease("dispatch", "one", NOW, NOW + minute) == 3
    assert inbox.lease("another", "two", NOW, NOW + minute) == 1


def test_of_eight_threads_one_takes_in_a_delivery_and_one_gets_the_lease(inbox: Inbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: inbox.receive(PUSH).how, range(8)))
        held = list(pool.map(lambda n: inbox.lease("x", f"h{n}", NOW, NOW + timedelta(hours=1)), range(8)))
    assert sorted(taken) == ["new"] + ["repeated"] * 7
    assert sorted(held, key=str) == [1] + [None] * 7
    assert len(inbox.open_turns()) == 1


def test_a_time_without_a_zone_is_refused(inbox: Inbox) -> None:
    with pytest.raises(Rejected, match="has no zone"):
        inbox.receive(replace(PUSH, received_at=NOW.replace(tzinfo=None)))
    assert inbox.open_turns() == ()
