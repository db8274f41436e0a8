"""Alerts in a SQL database. A unique column decides which of two writers is first; the other one reads its row."""

from datetime import datetime

from sqlalchemy import and_, func, or_, select

from blocks.database.engine import Database
from blocks.database.tables import MESSAGES, SEND_ATTEMPTS, SIGNALS
from blocks.outbox.base import AlertMessage, Outbox, SendAttempt
from blocks.records.alerts import AlertRecord


class SqlOutbox(Outbox):
    """Signals, messages and attempts as rows; any number of processes may add rows at the same time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_signal(self, signal: AlertRecord) -> AlertRecord:
        """Record a signal, or return the one with its key."""
        return self._database.add_record(SIGNALS, signal, "key")

    def signals(self, cause: str) -> tuple[AlertRecord, ...]:
        """Return all signals of a cause, oldest first."""
        query = select(SIGNALS).where(SIGNALS.c.cause == cause).order_by(SIGNALS.c.sequence)
        return self._database.records(AlertRecord, query)

    def active_causes(self, since: datetime) -> tuple[str, ...]:
        """Return the open causes and those with a signal since then, in the order of their first signal."""
        turns = select(func.max(SIGNALS.c.sequence)).where(SIGNALS.c.state.in_(("raised", "recovered")))
        last = turns.group_by(SIGNALS.c.cause)
        still = and_(SIGNALS.c.sequence.in_(last), SIGNALS.c.state == "raised")
        told = select(SIGNALS.c.cause).where(or_(still, SIGNALS.c.at >= since))
        first = func.min(SIGNALS.c.sequence)
        query = select(SIGNALS.c.cause).where(SIGNALS.c.cause.in_(told)).group_by(SIGNALS.c.cause).order_by(first)
        return tuple(str(row["cause"]) for row in self._database.rows(query))

    def add_message(self, message: AlertMessage) -> AlertMessage:
        """Add a message to deliver, or return the one with its id."""
        return self._database.add_record(MESSAGES, message, "id")

    def undelivered(self) -> tuple[tuple[AlertMessage, tuple[SendAttempt, ...]], ...]:
        """Return the messages that no receiver has accepted yet, oldest first, each with its attempts."""
        taken = select(SEND_ATTEMPTS.c.message_id).where(SEND_ATTEMPTS.c.delivered)
        waiting = select(MESSAGES).where(MESSAGES.c.id.not_in(taken)).order_by(MESSAGES.c.sequence)
        messages = self._database.records(AlertMessage, waiting)
        unsuccessful = select(SEND_ATTEMPTS).where(SEND_ATTEMPTS.c.message_id.not_in(taken))
        attempts: dict[str, list[SendAttempt]] = {}
        for attempt in self._database.records(SendAttempt, unsuccessful.order_by(SEND_ATTEMPTS.c.number)):
            attempts.setdefault(attempt.message_id, []).append(attempt)
        return tuple((message, tuple(attempts.get(message.id, ()))) for message in messages)

    def record_attempt(self, attempt: SendAttempt) -> SendAttempt:
        """Record an attempt, or return the one with its number."""
        return self._database.add_record(SEND_ATTEMPTS, attempt, "message_id", "number")
