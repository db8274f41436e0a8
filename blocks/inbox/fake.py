"""The inbox in memory, for tests: the same rules as in the database, and faults on demand."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import RLock

from blocks.database.common import FailingWrites, to_utc
from blocks.inbox.base import (
    Delivery,
    DeliveryState,
    DeliveryStatus,
    Inbox,
    InboxNote,
    IncomingDelivery,
    ProcessingAttempt,
    ProcessingOutcome,
    Receipt,
    UnreportedRun,
    altered_note,
    replayed_note,
    still_pending_error,
    unknown_attempt_error,
    unknown_delivery_error,
)


@dataclass
class FakeInbox(FailingWrites, Inbox):
    """An inbox that exists as long as the object."""

    _deliveries: dict[str, Delivery] = field(default_factory=dict, init=False)
    _turns: dict[str, tuple[ProcessingAttempt, ProcessingOutcome | None]] = field(default_factory=dict, init=False)
    _notes: list[InboxNote] = field(default_factory=list, init=False)
    _reports: dict[str, list[tuple[str, str, bool]]] = field(default_factory=dict, init=False)
    _leases: dict[str, tuple[str, int, datetime]] = field(default_factory=dict, init=False)
    _lock: RLock = field(default_factory=RLock, init=False)

    def receive_all(self, arrivals: Sequence[IncomingDelivery]) -> tuple[Receipt, ...]:
        """Record deliveries with their first turns, all of them or none."""
        with self._lock:
            self.may_write()
            for arrival in arrivals:
                to_utc(arrival.delivery.received_at)
            return tuple(self._receive(arrival) for arrival in arrivals)

    def _receive(self, arrival: IncomingDelivery) -> Receipt:
        delivery = arrival.delivery
        if (known := self._deliveries.get(delivery.id)) is not None:
            if known.digest == delivery.digest:
                return Receipt("repeated", known)
            self._notes.append(altered_note(known, delivery))
            return Receipt("altered", known)
        body = delivery.sender, delivery.digest
        same = [each for each in self._deliveries.values() if (each.sender, each.digest) == body]
        if arrival.reject_repeated_body and same:
            self._notes.append(replayed_note(same[0], delivery))
            return Receipt("replayed", same[0])
        self._deliveries[delivery.id] = delivery
        turn = ProcessingAttempt(delivery, 0, "the sender", delivery.received_at)
        self._turns[turn.key] = turn, arrival.outcome
        return Receipt("new", delivery)

    def delivery_status(self, delivery_id: str) -> DeliveryStatus:
        """Return a delivery with its last turn. Raises NotFound."""
        found = [each for each in self._turns.values() if each[0].delivery.id == delivery_id]
        if not found:
            raise unknown_delivery_error(delivery_id)
        return DeliveryStatus(*max(found, key=lambda each: each[0].number))

    def delivery_statuses(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[DeliveryStatus, ...]:
        """Return deliveries, newest first, each with its last turn; with `state` only those of that state."""
        found = [self.delivery_status(each) for each in reversed(list(self._deliveries))]
        return tuple(each for each in found if state in {None, each.state})[:limit]

    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the delivered commits of a branch or tag, newest delivery first."""
        found = [each for each in self._deliveries.values() if (each.repository, each.ref) == (repository, ref)]
        return tuple(each.commit for each in reversed(found) if each.commit)

    def request_reprocessing(self, delivery_id: str, by: str, at: datetime) -> ProcessingAttempt:
        """Open another turn of a delivery. Raises NotFound, or Conflict if its last turn is still open."""
        with self._lock:
            self.may_write()
            entry = self.delivery_status(delivery_id)
            if entry.outcome is None:
                raise still_pending_error(delivery_id)
            turn = ProcessingAttempt(entry.turn.delivery, entry.turn.number + 1, by, to_utc(at))
            self._turns[turn.key] = turn, None
            return turn

    def pending_attempts(self, limit: int = 100) -> tuple[ProcessingAttempt, ...]:
        """Return the turns without an outcome, oldest first."""
        return tuple(turn for turn, outcome in list(self._turns.values()) if outcome is None)[:limit]

    def finish_attempt(self, turn: ProcessingAttempt, outcome: ProcessingOutcome, at: datetime) -> ProcessingOutcome:
        """Record how a turn ended, with its runs; the first outcome stays, and is returned."""
        with self._lock:
            self.may_write()
            if turn.key not in self._turns:
                raise unknown_attempt_error(turn)
            asked, known = self._turns[turn.key]
            self._turns[turn.key] = asked, known or outcome
            return known or outcome

    def add_note(self, note: InboxNote) -> None:
        """Add a note."""
        self.may_write()
        self._notes.append(note)

    def notes(self, limit: int = 50) -> tuple[InboxNote, ...]:
        """Return the notes, newest first."""
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

    def record_report(self, run_id: str, status: str, text: str, at: datetime, *, final: bool) -> None:
        """Record what was reported about a run; after a final report it is no longer unreported."""
        with self._lock:
            self.may_write()
            told = self._reports.setdefault(run_id, [])
            if not any(ended for _, _, ended in told):
                told.append((status, text, final))

    def report_text(self, run_id: str) -> str:
        """Return the Markdown of the last report of a run, or ""."""
        told = self._reports.get(run_id, [])
        return told[-1][1] if told else ""

    def acquire_lease(self, name: str, holder: str, now: datetime, until: datetime) -> int | None:
        """Acquire or extend the lease `name`; return its number, or None if somebody else holds it."""
        with self._lock:
            self.may_write()
            held, number, ends = self._leases.get(name, ("", 0, now))
            if held != holder and ends > now:
                return None
            self._leases[name] = holder, number + (held != holder), until
            return self._leases[name][1]
