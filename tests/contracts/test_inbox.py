"""The contract of the inbox, over every adapter: each delivery once, one outcome per attempt, one holder of a lease."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest

from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.database.ledger import Ledger
from blocks.inbox.base import Delivery, Inbox, InboxNote, IncomingDelivery, ProcessingOutcome
from tests.fixtures.deliveries import NOW, PUSH, STARTED
from tests.fixtures.ledgers import again, ledger, postgres

__all__ = ["ledger", "postgres"]  # fixtures


@pytest.fixture
def inbox(ledger: Ledger) -> Inbox:
    return ledger.inbox()


def pushed(name: str, **changes: object) -> Delivery:
    return replace(PUSH, id=f"github:{name}", digest=name * 8, **changes)


def test_a_delivery_is_taken_in_once_and_its_turn_waits(ledger: Ledger, inbox: Inbox) -> None:
    assert (inbox.receive(PUSH).status, inbox.receive(PUSH).status) == ("new", "repeated")
    (turn,) = again(ledger).inbox().pending_attempts()
    assert (turn.delivery, turn.number, turn.key) == (PUSH, 0, "github:a#0")
    assert [(each.turn, each.state) for each in inbox.delivery_statuses()] == [(turn, "open")]
    assert inbox.notes() == ()


def test_a_delivery_keeps_the_seal_that_it_came_with(ledger: Ledger, inbox: Inbox) -> None:
    sealed = replace(PUSH, seal="0123456789abcdef:00ff")
    inbox.receive(sealed)
    inbox.receive(replace(PUSH, seal="of another"))
    assert again(ledger).inbox().pending_attempts()[0].delivery == sealed


def test_several_are_taken_in_at_once_or_none_of_them(inbox: Inbox) -> None:
    naive = replace(pushed("c"), received_at=NOW.replace(tzinfo=None))
    with pytest.raises(Rejected):
        inbox.receive_all([IncomingDelivery(pushed("a")), IncomingDelivery(naive)])
    assert inbox.delivery_statuses() == ()
    given = [
        IncomingDelivery(pushed("a")),
        IncomingDelivery(pushed("b"), ProcessingOutcome("ignored", "a ping")),
        IncomingDelivery(pushed("a")),
    ]
    assert [receipt.status for receipt in inbox.receive_all(given)] == ["new", "new", "repeated"]
    assert [turn.delivery.id for turn in inbox.pending_attempts()] == ["github:a"]


def test_an_id_that_comes_with_another_body_is_noted_and_changes_nothing(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    receipt = inbox.receive(replace(PUSH, digest="e" * 64, commit="f" * 40))
    assert (receipt.status, receipt.recorded) == ("altered", PUSH)
    (note,) = again(ledger).inbox().notes()
    assert (note.subject_id, note.kind, note.at) == ("github:a", "altered", NOW)
    assert "e" * 64 in note.text
    assert len(inbox.pending_attempts()) == 1


def test_a_body_that_came_before_is_noted_unless_its_sender_signs_the_time(inbox: Inbox) -> None:
    inbox.receive(PUSH)
    other = replace(PUSH, id="github:b")
    receipt = inbox.receive(other)
    assert (receipt.status, receipt.recorded.id) == ("replayed", "github:a")
    assert [note.kind for note in inbox.notes()] == ["replayed"]
    assert inbox.receive(other, once_per_body=False).status == "new"
    assert inbox.receive(replace(PUSH, id="gitlab:b", sender="gitlab")).status == "new", "another sender's is another"


def test_what_is_ignored_at_once_never_waits(inbox: Inbox) -> None:
    inbox.receive(PUSH, outcome=ProcessingOutcome("ignored", "a ping"))
    assert inbox.pending_attempts() == ()
    assert inbox.delivery_status("github:a").outcome == ProcessingOutcome("ignored", "a ping")


def test_a_turn_ends_once_with_its_runs_and_the_first_outcome_stays(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    (turn,) = inbox.pending_attempts()
    assert inbox.finish_attempt(turn, STARTED, NOW) == STARTED
    assert again(ledger).inbox().finish_attempt(turn, ProcessingOutcome("refused", "too late"), NOW) == STARTED
    assert inbox.delivery_status("github:a").outcome == STARTED
    assert inbox.pending_attempts() == ()


def test_a_turn_that_nobody_asked_for_cannot_end(inbox: Inbox) -> None:
    inbox.receive(PUSH)
    (turn,) = inbox.pending_attempts()
    with pytest.raises(NotFound, match="turn 7 of 'github:a'"):
        inbox.finish_attempt(replace(turn, number=7), STARTED, NOW)


def test_a_delivery_gets_a_further_turn_only_when_the_last_has_ended(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    with pytest.raises(Conflict, match="waits for the dispatcher already"):
        inbox.request_reprocessing("github:a", "ada", NOW)
    inbox.finish_attempt(inbox.pending_attempts()[0], ProcessingOutcome("ignored", "no rule"), NOW)
    turn = inbox.request_reprocessing("github:a", "ada", NOW + timedelta(hours=1))
    assert (turn.number, turn.requested_by, turn.key) == (1, "ada", "github:a#1")
    assert again(ledger).inbox().pending_attempts() == (turn,)
    assert inbox.delivery_status("github:a").state == "open"
    with pytest.raises(NotFound, match="gateway list"):
        inbox.request_reprocessing("github:ghost", "ada", NOW)


def test_entries_come_newest_first_and_by_state(inbox: Inbox) -> None:
    for name in "abc":
        inbox.receive(pushed(name))
    first, second, _ = inbox.pending_attempts()
    inbox.finish_attempt(first, STARTED, NOW)
    inbox.finish_attempt(second, ProcessingOutcome("refused", "no"), NOW)
    assert [each.turn.delivery.id[-1] for each in inbox.delivery_statuses()] == ["c", "b", "a"]
    assert [each.turn.delivery.id[-1] for each in inbox.delivery_statuses(2)] == ["c", "b"]
    states = {state: [e.turn.delivery.id[-1] for e in inbox.delivery_statuses(state=state)]
              for state in ("open", "started", "refused", "ignored")}  # fmt: skip
    assert states == {"open": ["c"], "started": ["a"], "refused": ["b"], "ignored": []}


def test_open_turns_come_oldest_first_up_to_a_limit(inbox: Inbox) -> None:
    for name in "abc":
        inbox.receive(pushed(name))
    assert [turn.delivery.id[-1] for turn in inbox.pending_attempts(2)] == ["a", "b"]


def test_the_commits_of_a_branch_are_those_that_were_delivered_newest_first(inbox: Inbox) -> None:
    inbox.receive(pushed("a", commit="1" * 40))
    inbox.receive(pushed("b", commit="2" * 40))
    inbox.receive(pushed("x", commit="3" * 40, ref="other"))
    inbox.receive(pushed("p", commit=""))
    assert inbox.commits("acme/models", "main") == ("2" * 40, "1" * 40)


def test_a_run_is_unreported_until_its_end_is_reported(ledger: Ledger, inbox: Inbox) -> None:
    inbox.receive(PUSH)
    inbox.finish_attempt(inbox.pending_attempts()[0], STARTED, NOW)
    assert [(w.run.run_id, w.delivery, w.last_status) for w in inbox.unreported_runs()] == [
        ("run-1", PUSH, ""),
        ("run-2", PUSH, ""),
    ]
    inbox.record_report("run-1", "pending", "", NOW, final=False)
    assert [each.last_status for each in again(ledger).inbox().unreported_runs()] == ["pending", ""]
    inbox.record_report("run-1", "success", "# better", NOW, final=True)
    inbox.record_report("run-1", "failure", "# late", NOW, final=True)
    assert [each.run.run_id for each in inbox.unreported_runs()] == ["run-2"]
    assert (inbox.report_text("run-1"), inbox.report_text("run-2")) == ("# better", "")


def test_notes_come_newest_first(inbox: Inbox) -> None:
    for number in range(3):
        inbox.add_note(InboxNote("github", "forged", f"{number}", NOW))
    assert [note.text for note in inbox.notes(2)] == ["2", "1"]


def test_a_lease_has_one_holder_until_it_runs_out_or_is_let_go(ledger: Ledger, inbox: Inbox) -> None:
    minute = timedelta(minutes=1)
    assert inbox.acquire_lease("dispatch", "one", NOW, NOW + minute) == 1
    assert again(ledger).inbox().acquire_lease("dispatch", "two", NOW, NOW + minute) is None
    assert inbox.acquire_lease("dispatch", "one", NOW, NOW + 2 * minute) == 1, "held on"
    assert inbox.acquire_lease("dispatch", "two", NOW + minute, NOW + 3 * minute) is None
    assert inbox.acquire_lease("dispatch", "two", NOW + 2 * minute, NOW + 3 * minute) == 2, "it ran out"
    inbox.release_lease("dispatch", "one")
    assert inbox.acquire_lease("dispatch", "one", NOW, NOW + minute) is None, "only the holder lets go"
    inbox.release_lease("dispatch", "two")
    assert inbox.acquire_lease("dispatch", "one", NOW, NOW + minute) == 3
    assert inbox.acquire_lease("another", "two", NOW, NOW + minute) == 1


def test_of_eight_threads_one_takes_in_a_delivery_and_one_gets_the_lease(inbox: Inbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: inbox.receive(PUSH).status, range(8)))
        held = list(pool.map(lambda n: inbox.acquire_lease("x", f"h{n}", NOW, NOW + timedelta(hours=1)), range(8)))
    assert sorted(taken) == ["new"] + ["repeated"] * 7
    assert sorted(held, key=str) == [1] + [None] * 7
    assert len(inbox.pending_attempts()) == 1


def test_a_time_without_a_zone_is_refused(inbox: Inbox) -> None:
    with pytest.raises(Rejected, match="has no zone"):
        inbox.receive(replace(PUSH, received_at=NOW.replace(tzinfo=None)))
    assert inbox.pending_attempts() == ()
