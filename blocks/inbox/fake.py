"""The inbox in memory, for tests: the same rules as the real one, and faults on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import RLock

from blocks.database.faults import FailingWrites
from blocks.database.moments import in_utc
from blocks.inbox.base import (
    Arrival,
    Delivery,
    DeliveryState,
    Entry,
    Inbox,
    Note,
    Outcome,
    Receipt,
    Turn,
    UnreportedRun,
)
from blocks.inbox.rules import altered, no_delivery, no_turn, replayed, still_open


@dataclass
class FakeInbox(FailingWrites, Inbox):
    """An inbox that lives as long as the object does."""

    _deliveries: dict[str, Delivery] = field(default_factory=dict, init=False)
    _turns: dict[str, tuple[Turn, Outcome | None]] = field(default_factory=dict, init=False)
    _notes: list[Note] = field(default_factory=list, init=False)
    _reports: dict[str, list[tuple[str, str, bool]]] = field(default_factory=dict, init=False)
    _leases: dict[str, tuple[str, int, datetime]] = field(default_factory=dict, init=False)
    _lock: RLock = field(default_factory=RLock, init=False)

    def receive_all(self, arrivals: Sequence[Arrival]) -> tuple[Receipt, ...]:
        """Take in deliveries with their first turns, all of them or none."""
        with self._lock:
            self.may_write()
            for arrival in arrivals:
                in_utc(arrival.delivery.received_at)
            return tuple(self._receive(arrival) for arrival in arrivals)

    def _receive(self, arrival: Arrival) -> Receipt:
        delivery = arrival.delivery
        if (known := self._deliveries.get(delivery.id)) is not None:
            if known.digest == delivery.digest:
                return Receipt("repeated", known)
            self._notes.append(altered(known, delivery))
            return Receipt("altered", known)
        body = delivery.sender, delivery.digest
        same = [each for each in self._deliveries.values() if (each.sender, each.digest) == body]
        if arrival.once_per_body and same:
            self._notes.append(replayed(same[0], delivery))
            return Receipt("replayed", same[0])
        self._deliveries[delivery.id] = delivery
        turn = Turn(delivery, 0, "the sender", delivery.received_at)
        self._turns[turn.key] = turn, arrival.outcome
        return Receipt("new", delivery)

    def entry(self, delivery_id: str) -> Entry:
        """Return a delivery with its last turn. Raises NotFound."""
        found = [each for each in self._turns.values() if each[0].delivery.id == delivery_id]
        if not found:
            raise no_delivery(delivery_id)
        return Entry(*max(found, key=lambda each: each[0].number))

    def entries(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[Entry, ...]:
        """Return deliveries, newest first, with the last turn of each; those of one state alone, when given."""
        found = [self.entry(each) for each in reversed(list(self._deliveries))]
        return tuple(each for each in found if state in {None, each.state})[:limit]

    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the commits of a branch or tag that were delivered, newest delivery first."""
        found = [each for each in self._deliveries.values() if (each.repository, each.ref) == (repository, ref)]
        return tuple(each.commit for each in reversed(found) if each.commit)

    def ask_again(self, delivery_id: str, by: str, at: datetime) -> Turn:
        """Open a further turn of a delivery. Raises NotFound, or Conflict when its last turn is open still."""
        with self._lock:
            self.may_write()
            entry = self.entry(delivery_id)
            if entry.outcome is None:
                raise still_open(delivery_id)
            turn = Turn(entry.turn.delivery, entry.turn.number + 1, by, in_utc(at))
            self._turns[turn.key] = turn, None
            return turn

    def open_turns(self, limit: int = 100) -> tuple[Turn, ...]:
        """Return the turns that wait for an outcome, oldest first."""
        return tuple(turn for turn, outcome in list(self._turns.values()) if outcome is None)[:limit]

    def end_turn(self, turn: Turn, outcome: Outcome, at: datetime) -> Outcome:
        """Write down how a turn ended, with its runs; the first outcome stays, and is returned."""
        with self._lock:
            self.may_write()
            if turn.key not in self._turns:
                raise no_turn(turn)
            asked, known = self._turns[turn.key]
            self._turns[turn.key] = asked, known or outcome
            return known or outcome

    def note(self, note: Note) -> None:
        """Write something down."""
        self.may_write()
        self._notes.append(note)

    def notes(self, limit: int = 50) -> tuple[Note, ...]:
        """Return what was written down, newest first."""
        return tuple(reversed(self._notes))[:limit]

    def unreported_runs(self, limit: int = 100) -> tuple[UnreportedRun, ...]:
        """Return the started runs whose end has not been reported, oldest first."""
        found = []
        for turn, outcome in list(self._turns.values()):
            for run in outcome.runs if outcome else ():
                told = self._reports.get(run.run_id, [])
                if not any(final for _, _, final in told):
                    found.append(UnreportedRun(run, turn.delivery, told[-1][0] if told else ""))
        return tuple(found[:limit])

    def report(self, run_id: str, said: str, text: str, at: datetime, *, final: bool) -> None:
        """Write down what was reported of a run; after a final report it is no longer unreported."""
        with self._lock:
            self.may_write()
            told = self._reports.setdefault(run_id, [])
            if not any(ended for _, _, ended in told):
                told.append((said, text, final))

    def report_text(self, run_id: str) -> str:
        """Return the Markdown of the last report of a run, or ""."""
        told = self._reports.get(run_id, [])
        return told[-1][1] if told else ""

    def lease(self, name: str, holder: str, now: datetime, until: datetime) -> int | None:
        """Hold `name` until then, alone: return the holder's number, or None when somebody else holds it."""
        with self._lock:
            self.may_write()
            held, number, ends = self._leases.get(name, ("", 0, now))
            if held != holder and ends > now:
                return None
            self._leases[name] = holder, number + (held != holder), until
            return self._leases[name][1]
