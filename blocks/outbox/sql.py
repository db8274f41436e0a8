"""Alerts in a SQL database. Which of two writers is first is decided by a unique column: the other reads its row."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby

from sqlalchemy import RowMapping, and_, func, or_, select

from blocks.database.engine import Database, fields_of
from blocks.database.tables import ATTEMPTS, MESSAGES, SIGNALS
from blocks.outbox.base import Attempt, Message, Outbox, Signal


class SqlOutbox(Outbox):
    """Signals, messages and attempts as rows that any number of processes add to at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def signal(self, signal: Signal) -> Signal:
        """Write down that something happened, or return what is there under the key."""
        self._database.add(SIGNALS, asdict(signal))
        return Signal(**fields_of(self._database.rows(select(SIGNALS).where(SIGNALS.c.key == signal.key))[0]))

    def signals(self, cause: str) -> tuple[Signal, ...]:
        """Return all signals of a cause, oldest first."""
        rows = self._database.rows(select(SIGNALS).where(SIGNALS.c.cause == cause).order_by(SIGNALS.c.sequence))
        return tuple(Signal(**fields_of(row)) for row in rows)

    def causes(self, since: datetime) -> tuple[str, ...]:
        """Return the causes that are open, and those with a signal since then, in the order of their first signal."""
        turns = select(func.max(SIGNALS.c.sequence)).where(SIGNALS.c.state.in_(("raised", "recovered")))
        last = turns.group_by(SIGNALS.c.cause)
        still = and_(SIGNALS.c.sequence.in_(last), SIGNALS.c.state == "raised")
        told = select(SIGNALS.c.cause).where(or_(still, SIGNALS.c.at >= since))
        first = func.min(SIGNALS.c.sequence)
        query = select(SIGNALS.c.cause).where(SIGNALS.c.cause.in_(told)).group_by(SIGNALS.c.cause).order_by(first)
        return tuple(str(row["cause"]) for row in self._database.rows(query))

    def post(self, message: Message) -> Message:
        """Add a message to be delivered, or return the one with that id."""
        self._database.add(MESSAGES, asdict(message))
        return Message(**fields_of(self._database.rows(select(MESSAGES).where(MESSAGES.c.id == message.id))[0]))

    def undelivered(self) -> tuple[tuple[Message, tuple[Attempt, ...]], ...]:
        """Return the messages that no receiver has taken yet, oldest first, each with its attempts."""
        taken = select(ATTEMPTS.c.message_id).where(ATTEMPTS.c.delivered)
        waiting = self._database.rows(select(MESSAGES).where(MESSAGES.c.id.not_in(taken)).order_by(MESSAGES.c.sequence))
        tried = select(ATTEMPTS).where(ATTEMPTS.c.message_id.not_in(taken))
        attempts = _by_message(self._database.rows(tried.order_by(ATTEMPTS.c.message_id, ATTEMPTS.c.number)))
        return tuple((Message(**fields_of(row)), attempts.get(row["id"], ())) for row in waiting)

    def attempted(self, attempt: Attempt) -> Attempt:
        """Write down an attempt, or return the one with that number."""
        self._database.add(ATTEMPTS, asdict(attempt))
        same = (ATTEMPTS.c.message_id == attempt.message_id, ATTEMPTS.c.number == attempt.number)
        return Attempt(**fields_of(self._database.rows(select(ATTEMPTS).where(*same))[0]))


def _by_message(rows: Sequence[RowMapping]) -> dict[str, tuple[Attempt, ...]]:
    grouped = groupby(rows, key=lambda row: str(row["message_id"]))
    return {message: tuple(Attempt(**fields_of(row)) for row in attempts) for message, attempts in grouped}
