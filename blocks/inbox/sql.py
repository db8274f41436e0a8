"""The inbox in a SQL database: the same statements on SQLite and PostgreSQL, each call one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, RowMapping, Select, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from blocks.common.errors import ConcurrentWrite
from blocks.database.engine import Database
from blocks.database.moments import in_utc
from blocks.database.tables import DELIVERIES, ENDS, LEASES, NOTES, REPORTS, RUNS, TURNS
from blocks.inbox.base import (
    Arrival,
    Delivery,
    DeliveryState,
    Entry,
    Inbox,
    Note,
    Outcome,
    Receipt,
    StartedRun,
    Turn,
    UnreportedRun,
)
from blocks.inbox.rules import altered, no_delivery, no_turn, replayed, still_open

Result = TypeVar("Result")

_IS_ENDED = exists().where(ENDS.c.turn == TURNS.c.sequence)
_TURNS = select(DELIVERIES, TURNS.c.number, TURNS.c.asked_by, TURNS.c.at, TURNS.c.sequence.label("turn")).join(
    TURNS, TURNS.c.delivery == DELIVERIES.c.id
)
"""A row for each turn, with its delivery."""


class SqlInbox(Inbox):
    """Deliveries in a SQL database that several gateways may take in at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def receive_all(self, arrivals: Sequence[Arrival]) -> tuple[Receipt, ...]:
        """Take in deliveries with their first turns, all of them or none, in one transaction."""
        return self._try_twice(lambda connection: tuple(_receive(connection, arrival) for arrival in arrivals))

    def entry(self, delivery_id: str) -> Entry:
        """Return a delivery with its last turn. Raises NotFound."""
        found = self._entries(_last_turns().where(DELIVERIES.c.id == delivery_id))
        if not found:
            raise no_delivery(delivery_id)
        return found[0]

    def entries(self, limit: int = 50, *, state: DeliveryState | None = None) -> tuple[Entry, ...]:
        """Return deliveries, newest first, with the last turn of each; those of one state alone, when given."""
        query = _last_turns()
        if state == "open":
            query = query.where(~_IS_ENDED)
        elif state is not None:
            query = query.where(exists().where(ENDS.c.turn == TURNS.c.sequence, ENDS.c.state == state))
        return tuple(self._entries(query.order_by(DELIVERIES.c.sequence.desc()).limit(limit)))

    def commits(self, repository: str, ref: str) -> tuple[str, ...]:
        """Return the commits of a branch or tag that were delivered, newest delivery first."""
        column = DELIVERIES.c
        query = select(column.commit).where(column.repository == repository, column.ref == ref, column.commit != "")
        rows = self._database.rows(query.order_by(column.sequence.desc()))
        return tuple(row["commit"] for row in rows)

    def ask_again(self, delivery_id: str, by: str, at: datetime) -> Turn:
        """Open a further turn of a delivery. Raises NotFound, or Conflict when its last turn is open still."""
        entry = self.entry(delivery_id)
        if entry.outcome is None:
            raise still_open(delivery_id)
        turn = Turn(entry.turn.delivery, entry.turn.number + 1, by, in_utc(at))
        try:
            self._database.write(lambda connection: _add_turn(connection, turn))
        except IntegrityError as cause:
            raise still_open(delivery_id) from cause
        return turn

    def open_turns(self, limit: int = 100) -> tuple[Turn, ...]:
        """Return the turns that wait for an outcome, oldest first."""
        rows = self._database.rows(_TURNS.where(~_IS_ENDED).order_by(TURNS.c.sequence).limit(limit))
        return tuple(_turn(row) for row in rows)

    def end_turn(self, turn: Turn, outcome: Outcome, at: datetime) -> Outcome:
        """Write down how a turn ended, with its runs; the first outcome stays, and is returned."""

        def work(connection: Connection) -> Outcome:
            where = (TURNS.c.delivery == turn.delivery.id) & (TURNS.c.number == turn.number)
            if (sequence := connection.execute(select(TURNS.c.sequence).where(where)).scalar()) is None:
                raise no_turn(turn)
            if (known := _outcome(connection, sequence)) is not None:
                return known
            _add_outcome(connection, sequence, outcome, at)
            return outcome

        return self._try_twice(work)

    def note(self, note: Note) -> None:
        """Write something down."""
        self._database.write(lambda connection: _add_note(connection, note))

    def notes(self, limit: int = 50) -> tuple[Note, ...]:
        """Return what was written down, newest first."""
        columns = select(NOTES.c.about, NOTES.c.kind, NOTES.c.text, NOTES.c.at)
        return tuple(Note(**row) for row in self._database.rows(columns.order_by(NOTES.c.sequence.desc()).limit(limit)))

    def unreported_runs(self, limit: int = 100) -> tuple[UnreportedRun, ...]:
        """Return the started runs whose end has not been reported, oldest first."""
        last = (
            select(REPORTS.c.said)
            .where(REPORTS.c.run_id == RUNS.c.run_id)
            .order_by(REPORTS.c.sequence.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            select(DELIVERIES, RUNS.c.run_id, RUNS.c.rule, RUNS.c.deployment, last.label("last"))
            .join(TURNS, TURNS.c.sequence == RUNS.c.turn)
            .join(DELIVERIES, DELIVERIES.c.id == TURNS.c.delivery)
            .where(~exists().where(REPORTS.c.run_id == RUNS.c.run_id, REPORTS.c.final.is_(True)))
            .order_by(RUNS.c.sequence)
            .limit(limit)
        )
        return tuple(UnreportedRun(_run(row), _from_row(row), row["last"] or "") for row in self._database.rows(query))

    def report(self, run_id: str, said: str, text: str, at: datetime, *, final: bool) -> None:
        """Write down what was reported of a run; after a final report it is no longer unreported."""
        row = {"run_id": run_id, "said": said, "text": text, "final": final, "at": in_utc(at)}

        def work(connection: Connection) -> None:
            ended = select(REPORTS.c.sequence).where(REPORTS.c.run_id == run_id, REPORTS.c.final.is_(True))
            if connection.execute(ended).first() is None:
                connection.execute(insert(REPORTS), row)

        self._database.write(work)

    def report_text(self, run_id: str) -> str:
        """Return the Markdown of the last report of a run, or ""."""
        query = select(REPORTS.c.text).where(REPORTS.c.run_id == run_id).order_by(REPORTS.c.sequence.desc()).limit(1)
        return self._database.read(lambda connection: connection.execute(query).scalar()) or ""

    def lease(self, name: str, holder: str, now: datetime, until: datetime) -> int | None:
        """Hold `name` until then, alone: return the holder's number, or None when somebody else holds it."""
        mine, free = LEASES.c.holder == holder, LEASES.c.until <= in_utc(now)

        def work(connection: Connection) -> int | None:
            where = LEASES.c.name == name
            longer = update(LEASES).where(where, mine).values(until=in_utc(until))
            taken = update(LEASES).where(where, free).values(
                holder=holder, until=in_utc(until), number=LEASES.c.number + 1
            )  # fmt: skip
            if connection.execute(longer).rowcount or connection.execute(taken).rowcount:
                return int(connection.execute(select(LEASES.c.number).where(where)).scalar_one())
            if connection.execute(select(LEASES.c.number).where(where)).first() is not None:
                return None
            row = {"name": name, "holder": holder, "number": 1, "until": in_utc(until)}
            connection.execute(insert(LEASES), row)
            return 1

        return self._try_twice(work)

    def _try_twice(self, work: Callable[[Connection], Result]) -> Result:
        """Do it again when another process added the same row at the same moment: what is there is read then."""
        for _ in range(2):
            try:
                return self._database.write(work)
            except IntegrityError as cause:
                lost = cause
        raise ConcurrentWrite(
            "inbox: another gateway added the same row twice over; the call may be repeated"
        ) from lost

    def _entries(self, query: Select[Any]) -> list[Entry]:
        def work(connection: Connection) -> list[Entry]:
            rows = list(connection.execute(query).mappings())
            return [Entry(_turn(row), _outcome(connection, row["turn"])) for row in rows]

        return self._database.read(work)


def _receive(connection: Connection, arrival: Arrival) -> Receipt:
    delivery = arrival.delivery
    if (known := _delivery(connection, DELIVERIES.c.id == delivery.id)) is not None:
        if known.digest == delivery.digest:
            return Receipt("repeated", known)
        _add_note(connection, altered(known, delivery))
        return Receipt("altered", known)
    same_body = (DELIVERIES.c.sender == delivery.sender) & (DELIVERIES.c.digest == delivery.digest)
    others = same_body & (DELIVERIES.c.id != delivery.id)  # its own row may have been committed just now
    if arrival.once_per_body and (known := _delivery(connection, others)) is not None:
        _add_note(connection, replayed(known, delivery))
        return Receipt("replayed", known)
    connection.execute(insert(DELIVERIES), {**asdict(delivery), "received_at": in_utc(delivery.received_at)})
    turn = _add_turn(connection, Turn(delivery, 0, "the sender", delivery.received_at))
    if arrival.outcome is not None:
        _add_outcome(connection, turn, arrival.outcome, delivery.received_at)
    return Receipt("new", delivery)


def _last_turns() -> Select[Any]:
    later = TURNS.alias()
    last = select(func.max(later.c.number)).where(later.c.delivery == DELIVERIES.c.id).scalar_subquery()
    return _TURNS.where(TURNS.c.number == last)


def _delivery(connection: Connection, where: Any) -> Delivery | None:
    query = select(DELIVERIES).where(where).order_by(DELIVERIES.c.sequence).limit(1)
    row = connection.execute(query).mappings().first()
    return _from_row(row) if row else None


def _outcome(connection: Connection, turn: int) -> Outcome | None:
    if (end := connection.execute(select(ENDS).where(ENDS.c.turn == turn)).mappings().first()) is None:
        return None
    runs = connection.execute(select(RUNS).where(RUNS.c.turn == turn).order_by(RUNS.c.sequence)).mappings()
    return Outcome(end["state"], end["reason"], tuple(_run(row) for row in runs))


def _add_turn(connection: Connection, turn: Turn) -> int:
    row = {"delivery": turn.delivery.id, "number": turn.number, "asked_by": turn.asked_by, "at": turn.asked_at}
    added = connection.execute(insert(TURNS).returning(TURNS.c.sequence), {**row, "at": in_utc(turn.asked_at)})
    return int(added.scalar_one())


def _add_outcome(connection: Connection, turn: int, outcome: Outcome, at: datetime) -> None:
    end = {"turn": turn, "state": outcome.state, "reason": outcome.reason, "at": in_utc(at)}
    connection.execute(insert(ENDS), end)
    for run in outcome.runs:
        connection.execute(insert(RUNS), {"turn": turn, **asdict(run)})


def _add_note(connection: Connection, note: Note) -> None:
    connection.execute(insert(NOTES), {**asdict(note), "at": in_utc(note.at)})


def _from_row(row: RowMapping) -> Delivery:
    return Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__})


def _turn(row: RowMapping) -> Turn:
    return Turn(_from_row(row), row["number"], row["asked_by"], row["at"])


def _run(row: RowMapping) -> StartedRun:
    return StartedRun(row["run_id"], row["rule"], row["deployment"])
