"""Alerts in a SQL database. Which of two writers is first is decided by a unique column: the other reads its row."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby

from sqlalchemy import RowMapping, and_, func, or_, select

from blocks.database.engine import Database, record_fields
from blocks.database.tables import MESSAGES, SEND_ATTEMPTS, SIGNALS
from blocks.outbox.base import AlertMessage, Outbox, SendAttempt
from blocks.records.alerts import AlertRecord


class SqlOutbox(Outbox):
    """Signals, messages and attempts as rows that any number of processes add to at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record_signal(self, signal: AlertRecord) -> AlertRecord:
        """Write down that something happened, or return what is there under the key."""
        self._database.add(SIGNALS, asdict(signal))
        return AlertRecord(
            **record_fields(SIGNALS, self._database.rows(select(SIGNALS).where(SIGNALS.c.key == signal.key))[0])
        )

    def signals(self, cause: str) -> tuple[AlertRecord, ...]:
        """Return all signals of a cause, oldest first."""
        rows = self._database.rows(select(SIGNALS).where(SIGNALS.c.cause == cause).order_by(SIGNALS.c.sequence))
        return tuple(AlertRecord(**record_fields(SIGNALS, row)) for row in rows)

    def active_causes(self, since: datetime) -> tuple[str, ...]:
        """Return the causes that are open, and those with a signal since then, in the order of their first signal."""
        turns = select(func.max(SIGNALS.c.sequence)).where(SIGNALS.c.state.in_(("raised", "recovered")))
        last = turns.group_by(SIGNALS.c.cause)
        still = and_(SIGNALS.c.sequence.in_(last), SIGNALS.c.state == "raised")
        told = select(SIGNALS.c.cause).where(or_(still, SIGNALS.c.at >= since))
        first = func.min(SIGNALS.c.sequence)
        query = select(SIGNALS.c.cause).where(SIGNALS.c.cause.in_(told)).group_by(SIGNALS.c.cause).order_by(first)
        return tuple(str(row["cause"]) for row in self._database.rows(query))

    def add_message(self, message: AlertMessage) -> AlertMessage:
        """Add a message to be delivered, or return the one with that id."""
        self._database.add(MESSAGES, asdict(message))
        return AlertMessage(
            **record_fields(MESSAGES, self._database.rows(select(MESSAGES).where(MESSAGES.c.id == message.id))[0])
        )

    def undelivered(self) -> tuple[tuple[AlertMessage, tuple[SendAttempt, ...]], ...]:
        """Return the messages that no receiver has taken yet, oldest first, each with its attempts."""
        taken = select(SEND_ATTEMPTS.c.message_id).where(SEND_ATTEMPTS.c.delivered)
        waiting = self._database.rows(select(MESSAGES).where(MESSAGES.c.id.not_in(taken)).order_by(MESSAGES.c.sequence))
        tried = select(SEND_ATTEMPTS).where(SEND_ATTEMPTS.c.message_id.not_in(taken))
        attempts = _by_message(self._database.rows(tried.order_by(SEND_ATTEMPTS.c.message_id, SEND_ATTEMPTS.c.number)))
        return tuple((AlertMessage(**record_fields(MESSAGES, row)), attempts.get(row["id"], ())) for row in waiting)

    def record_attempt(self, attempt: SendAttempt) -> SendAttempt:
        """Write down an attempt, or return the one with that number."""
        self._database.add(SEND_ATTEMPTS, asdict(attempt))
        same = (SEND_ATTEMPTS.c.message_id == attempt.message_id, SEND_ATTEMPTS.c.number == attempt.number)
        return SendAttempt(**record_fields(SEND_ATTEMPTS, self._database.rows(select(SEND_ATTEMPTS).where(*same))[0]))


def _by_message(rows: Sequence[RowMapping]) -> dict[str, tuple[SendAttempt, ...]]:
    grouped = groupby(rows, key=lambda row: str(row["message_id"]))
    return {
        message: tuple(SendAttempt(**record_fields(SEND_ATTEMPTS, row)) for row in attempts)
        for message, attempts in grouped
    }
