"""The alerts of a ledger in a SQL database."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import RowMapping, Select, Table, and_, func, or_, select

from blocks.ledger.outbox import Attempt, Message, Outbox, Signal
from blocks.ledger.rows import fields_of
from blocks.ledger.tables import ATTEMPTS, MESSAGES, SIGNALS


class SqlOutbox(Outbox):
    """Signals, messages and attempts as rows."""

    @abstractmethod
    def _add(self, table: Table, values: Mapping[str, Any]) -> None:
        """Insert a row, unless one with its key is there."""

    @abstractmethod
    def _rows(self, query: Select[Any]) -> list[RowMapping]:
        """Return the rows of a query."""

    def signal(self, signal: Signal) -> Signal:
        """Write down that something happened, or return what is there under the key."""
        self._add(SIGNALS, asdict(signal))
        return Signal(**fields_of(self._rows(select(SIGNALS).where(SIGNALS.c.key == signal.key))[0]))

    def signals(self, cause: str) -> tuple[Signal, ...]:
        """Return all signals of a cause, oldest first."""
        rows = self._rows(select(SIGNALS).where(SIGNALS.c.cause == cause).order_by(SIGNALS.c.sequence))
        return tuple(Signal(**fields_of(row)) for row in rows)

    def causes(self, since: datetime) -> tuple[str, ...]:
        """Return the causes that are open, and those with a signal since then, in the order of their first signal."""
        turns = select(func.max(SIGNALS.c.sequence)).where(SIGNALS.c.state.in_(("raised", "recovered")))
        last = turns.group_by(SIGNALS.c.cause)
        still = and_(SIGNALS.c.sequence.in_(last), SIGNALS.c.state == "raised")
        told = select(SIGNALS.c.cause).where(or_(still, SIGNALS.c.at >= since))
        first = func.min(SIGNALS.c.sequence)
        query = select(SIGNALS.c.cause).where(SIGNALS.c.cause.in_(told)).group_by(SIGNALS.c.cause).order_by(first)
        return tuple(str(row["cause"]) for row in self._rows(query))

    def post(self, message: Message) -> Message:
        """Add a message to be delivered, or return the one with that id."""
        self._add(MESSAGES, asdict(message))
        return Message(**fields_of(self._rows(select(MESSAGES).where(MESSAGES.c.id == message.id))[0]))

    def undelivered(self) -> tuple[tuple[Message, tuple[Attempt, ...]], ...]:
        """Return the messages that no receiver has taken yet, oldest first, each with its attempts."""
        taken = select(ATTEMPTS.c.message_id).where(ATTEMPTS.c.delivered)
        waiting = self._rows(select(MESSAGES).where(MESSAGES.c.id.not_in(taken)).order_by(MESSAGES.c.sequence))
        tried = select(ATTEMPTS).where(ATTEMPTS.c.message_id.not_in(taken))
        attempts = _by_message(self._rows(tried.order_by(ATTEMPTS.c.message_id, ATTEMPTS.c.number)))
        return tuple((Message(**fields_of(row)), attempts.get(row["id"], ())) for row in waiting)

    def messages(self, cause: str) -> tuple[Message, ...]:
        """Return what was said of a cause, oldest first, delivered or not."""
        rows = self._rows(select(MESSAGES).where(MESSAGES.c.cause == cause).order_by(MESSAGES.c.sequence))
        return tuple(Message(**fields_of(row)) for row in rows)

    def attempted(self, attempt: Attempt) -> Attempt:
        """Write down an attempt, or return the one with that number."""
        self._add(ATTEMPTS, asdict(attempt))
        same = (ATTEMPTS.c.message_id == attempt.message_id, ATTEMPTS.c.number == attempt.number)
        return Attempt(**fields_of(self._rows(select(ATTEMPTS).where(*same))[0]))


def _by_message(rows: Sequence[RowMapping]) -> dict[str, tuple[Attempt, ...]]:
    grouped = groupby(rows, key=lambda row: str(row["message_id"]))
    return {message: tuple(Attempt(**fields_of(row)) for row in attempts) for message, attempts in grouped}
