"""The inbox in a SQL database: the same statements on SQLite and PostgreSQL, each call one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, RowMapping, Select, bindparam, exists, func, insert, select, text, true
from sqlalchemy.exc import IntegrityError

from blocks.common.errors import ConcurrentWrite
from blocks.database.common import to_utc
from blocks.database.engine import Database
from blocks.database.tables import (
    DELIVERIES,
    NOTES,
    PROCESSING_ATTEMPTS,
    PROCESSING_OUTCOMES,
    RUN_REPORTS,
    STARTED_RUNS,
    UtcTimestamp,
)
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
    StartedRun,
    UnreportedRun,
    altered_note,
    replayed_note,
    still_pending_error,
    unknown_attempt_error,
    unknown_delivery_error,
)

Result = TypeVar("Result")

_IS_FINISHED = exists().where(PROCESSING_OUTCOMES.c.turn == PROCESSING_ATTEMPTS.c.sequence)
_ATTEMPT_ROWS = select(
    DELIVERIES,
    PROCESSING_ATTEMPTS.c.number,
    PROCESSING_ATTEMPTS.c.requested_by,
    PROCESSING_ATTEMPTS.c.at,
    PROCESSING_ATTEMPTS.c.sequence.label("turn"),
).join(PROCESSING_ATTEMPTS, PROCESSING_ATTEMPTS.c.delivery == DELIVERIES.c.id)
"""A row for each turn, with its delivery."""

_ACQUIRE_LEASE = text(
    """
    INSERT INTO ratchet_leases (name, holder, number, until) VALUES (:name, :holder, 1, :until)
    ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
        number = ratchet_leases.number + CASE WHEN ratchet_leases.holder = excluded.holder THEN 0 ELSE 1 END
    WHERE ratchet_leases.holder = excluded.holder OR ratchet_leases.until <= :now
    RETURNING number
    """
).bindparams(bindparam("until", type_=UtcTimestamp), bindparam("now", type_=UtcTimestamp))


class SqlInbox(Inbox):
    """Deliveries in a SQL database; several gateways may record them at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def receive_all(self, arrivals: Sequence[IncomingDelivery]) -> tuple[Receipt, ...]:
        """Record deliveries with their first turns, all of them or none, in one transaction."""
        return self._retry_on_conflict(lambda connection: tuple(_receive(connection, arrival) for arrival in arrivals))

    def delivery_status(self, delivery_id: str) -> DeliveryStatus:
        """Return a delivery with its last turn. Raises NotFound."""
        found = self._entries(_last_attempts().where(DELIVERIES.c.id == delivery_id))
        if not found:
            raise unknown_delivery_error(delivery_id)
        return found[0]

    def delivery_statuses(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[DeliveryStatus, ...]:
        """Return deliveries, newest first, each with its last turn; with `state` only those of that state."""
        query = _last_attempts()
        if state == "open":
            query = query.where(~_IS_FINISHED)
        elif state is not None:
            query = query.where(_IS_FINISHED.where(PROCESSING_OUTCOMES.c.state == state))
        return tuple(self._entries(query.order_by(DELIVERIES.c.sequence.desc()).limit(limit)))

    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the delivered commits of a branch or tag, newest delivery first."""
        column = DELIVERIES.c
        query = select(column.commit).where(column.repository == repository, column.ref == ref, column.commit != "")
        rows = self._database.rows(query.order_by(column.sequence.desc()))
        return tuple(row["commit"] for row in rows)

    def request_reprocessing(self, delivery_id: str, by: str, at: datetime) -> ProcessingAttempt:
        """Open another turn of a delivery. Raises NotFound, or Conflict if its last turn is still open."""
        entry = self.delivery_status(delivery_id)
        if entry.outcome is None:
            raise still_pending_error(delivery_id)
        turn = ProcessingAttempt(entry.turn.delivery, entry.turn.number + 1, by, to_utc(at))
        try:
            self._database.write(lambda connection: _add_attempt(connection, turn))
        except IntegrityError as cause:
            raise still_pending_error(delivery_id) from cause
        return turn

    def pending_attempts(self, limit: int = 100) -> tuple[ProcessingAttempt, ...]:
        """Return the turns without an outcome, oldest first."""
        query = _ATTEMPT_ROWS.where(~_IS_FINISHED).order_by(PROCESSING_ATTEMPTS.c.sequence).limit(limit)
        return tuple(_attempt_from_row(row) for row in self._database.rows(query))

    def finish_attempt(self, turn: ProcessingAttempt, outcome: ProcessingOutcome, at: datetime) -> ProcessingOutcome:
        """Record how a turn ended, with its runs; the first outcome stays, and is returned."""

        def work(connection: Connection) -> ProcessingOutcome:
            where = (PROCESSING_ATTEMPTS.c.delivery == turn.delivery.id) & (PROCESSING_ATTEMPTS.c.number == turn.number)
            if (sequence := connection.execute(select(PROCESSING_ATTEMPTS.c.sequence).where(where)).scalar()) is None:
                raise unknown_attempt_error(turn)
            if (known := _outcome(connection, sequence)) is not None:
                return known
            _add_outcome(connection, sequence, outcome, at)
            return outcome

        return self._retry_on_conflict(work)

    def add_note(self, note: InboxNote) -> None:
        """Add a note."""
        self._database.write(lambda connection: _add_note(connection, note))

    def notes(self, limit: int = 50) -> tuple[InboxNote, ...]:
        """Return the notes, newest first."""
        return self._database.records(InboxNote, select(NOTES).order_by(NOTES.c.sequence.desc()).limit(limit))

    def unreported_runs(self, limit: int = 100) -> tuple[UnreportedRun, ...]:
        """Return the started runs whose end has not been reported, oldest first."""
        last = (
            select(RUN_REPORTS.c.status)
            .where(RUN_REPORTS.c.run_id == STARTED_RUNS.c.run_id)
            .order_by(RUN_REPORTS.c.sequence.desc())
            .limit(1)
            .scalar_subquery()
        )
        run = (STARTED_RUNS.c.run_id, STARTED_RUNS.c.rule, STARTED_RUNS.c.deployment)
        query = (
            select(DELIVERIES, *run, last.label("last"))
            .join(PROCESSING_ATTEMPTS, PROCESSING_ATTEMPTS.c.sequence == STARTED_RUNS.c.turn)
            .join(DELIVERIES, DELIVERIES.c.id == PROCESSING_ATTEMPTS.c.delivery)
            .where(~exists().where(RUN_REPORTS.c.run_id == STARTED_RUNS.c.run_id, RUN_REPORTS.c.final.is_(true())))
            .order_by(STARTED_RUNS.c.sequence)
            .limit(limit)
        )
        return tuple(
            UnreportedRun(_run_from_row(row), _delivery_from_row(row), row["last"] or "")
            for row in self._database.rows(query)
        )

    def record_report(self, run_id: str, status: str, text: str, at: datetime, *, final: bool) -> None:
        """Record what was reported about a run; after a final report it is no longer unreported."""
        row = {"run_id": run_id, "status": status, "text": text, "final": final, "at": to_utc(at)}

        def work(connection: Connection) -> None:
            reports = select(RUN_REPORTS.c.sequence).where(RUN_REPORTS.c.run_id == run_id)
            ended = reports.where(RUN_REPORTS.c.final.is_(true()))
            if connection.execute(ended).first() is None:
                connection.execute(insert(RUN_REPORTS), row)

        self._database.write(work)

    def report_text(self, run_id: str) -> str:
        """Return the Markdown of the last report of a run, or ""."""
        texts = select(RUN_REPORTS.c.text).where(RUN_REPORTS.c.run_id == run_id)
        last = texts.order_by(RUN_REPORTS.c.sequence.desc()).limit(1)
        return self._database.read(lambda connection: connection.execute(last).scalar()) or ""

    def acquire_lease(self, name: str, holder: str, now: datetime, until: datetime) -> int | None:
        """Acquire or extend the lease `name`; return its number, or None if somebody else holds it."""
        values = {"name": name, "holder": holder, "until": to_utc(until), "now": to_utc(now)}
        number = self._database.write(lambda connection: connection.execute(_ACQUIRE_LEASE, values).scalar())
        return None if number is None else int(number)

    def _retry_on_conflict(self, work: Callable[[Connection], Result]) -> Result:
        """Do the work again if another process added the same row at the same time: it then finds that row."""
        for _ in range(2):
            try:
                return self._database.write(work)
            except IntegrityError as cause:
                lost = cause
        raise ConcurrentWrite("inbox: another gateway added the same row twice; the call may be repeated") from lost

    def _entries(self, query: Select[Any]) -> list[DeliveryStatus]:
        def work(connection: Connection) -> list[DeliveryStatus]:
            rows = list(connection.execute(query).mappings())
            return [DeliveryStatus(_attempt_from_row(row), _outcome(connection, row["turn"])) for row in rows]

        return self._database.read(work)


def _receive(connection: Connection, arrival: IncomingDelivery) -> Receipt:
    delivery = arrival.delivery
    if (known := _delivery(connection, DELIVERIES.c.id == delivery.id)) is not None:
        if known.digest == delivery.digest:
            return Receipt("repeated", known)
        _add_note(connection, altered_note(known, delivery))
        return Receipt("altered", known)
    same_body = (DELIVERIES.c.sender == delivery.sender) & (DELIVERIES.c.digest == delivery.digest)
    others = same_body & (DELIVERIES.c.id != delivery.id)  # its own row may have been committed just now
    if arrival.reject_repeated_body and (known := _delivery(connection, others)) is not None:
        _add_note(connection, replayed_note(known, delivery))
        return Receipt("replayed", known)
    connection.execute(insert(DELIVERIES), {**asdict(delivery), "received_at": to_utc(delivery.received_at)})
    turn = _add_attempt(connection, ProcessingAttempt(delivery, 0, "the sender", delivery.received_at))
    if arrival.outcome is not None:
        _add_outcome(connection, turn, arrival.outcome, delivery.received_at)
    return Receipt("new", delivery)


def _last_attempts() -> Select[Any]:
    later = PROCESSING_ATTEMPTS.alias()
    last = select(func.max(later.c.number)).where(later.c.delivery == DELIVERIES.c.id).scalar_subquery()
    return _ATTEMPT_ROWS.where(PROCESSING_ATTEMPTS.c.number == last)


def _delivery(connection: Connection, where: Any) -> Delivery | None:
    query = select(DELIVERIES).where(where).order_by(DELIVERIES.c.sequence).limit(1)
    row = connection.execute(query).mappings().first()
    return _delivery_from_row(row) if row else None


def _outcome(connection: Connection, turn: int) -> ProcessingOutcome | None:
    outcome = select(PROCESSING_OUTCOMES).where(PROCESSING_OUTCOMES.c.turn == turn)
    if (end := connection.execute(outcome).mappings().first()) is None:
        return None
    runs = select(STARTED_RUNS).where(STARTED_RUNS.c.turn == turn).order_by(STARTED_RUNS.c.sequence)
    started = tuple(_run_from_row(row) for row in connection.execute(runs).mappings())
    return ProcessingOutcome(end["state"], end["reason"], started)


def _add_attempt(connection: Connection, turn: ProcessingAttempt) -> int:
    values = {"delivery": turn.delivery.id, "number": turn.number, "requested_by": turn.requested_by}
    added = insert(PROCESSING_ATTEMPTS).values(**values, at=to_utc(turn.requested_at))
    return int(connection.execute(added.returning(PROCESSING_ATTEMPTS.c.sequence)).scalar_one())


def _add_outcome(connection: Connection, turn: int, outcome: ProcessingOutcome, at: datetime) -> None:
    end = {"turn": turn, "state": outcome.state, "reason": outcome.reason, "at": to_utc(at)}
    connection.execute(insert(PROCESSING_OUTCOMES), end)
    for run in outcome.runs:
        connection.execute(insert(STARTED_RUNS), {"turn": turn, **asdict(run)})


def _add_note(connection: Connection, note: InboxNote) -> None:
    connection.execute(insert(NOTES), {**asdict(note), "at": to_utc(note.at)})


def _delivery_from_row(row: RowMapping) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})


def _attempt_from_row(row: RowMapping) -> ProcessingAttempt:
    return ProcessingAttempt(_delivery_from_row(row), row["number"], row["requested_by"], row["at"])


def _run_from_row(row: RowMapping) -> StartedRun:
    return StartedRun(row["run_id"], row["rule"], row["deployment"])
