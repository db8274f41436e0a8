"""Alerts in memory, for tests: the same rules as in the database, and faults on demand."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock

from blocks.database.common import FailingWrites, to_utc
from blocks.outbox.base import AlertMessage, Outbox, SendAttempt
from blocks.records.alerts import AlertRecord


@dataclass
class FakeOutbox(FailingWrites, Outbox):
    """Signals, messages and attempts that exist as long as the object."""

    _signals: dict[str, AlertRecord] = field(default_factory=dict, init=False)
    _messages: dict[str, AlertMessage] = field(default_factory=dict, init=False)
    _attempts: dict[tuple[str, int], SendAttempt] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def record_signal(self, signal: AlertRecord) -> AlertRecord:
        """Record a signal, or return the one with its key."""
        with self._lock:
            self.may_write()
            return self._signals.setdefault(signal.key, replace(signal, at=to_utc(signal.at)))

    def signals(self, cause: str) -> tuple[AlertRecord, ...]:
        """Return all signals of a cause, oldest first."""
        return tuple(each for each in list(self._signals.values()) if each.cause == cause)

    def active_causes(self, since: datetime) -> tuple[str, ...]:
        """Return the open causes and those with a signal since then, in the order of their first signal."""
        signals = list(self._signals.values())
        last = {each.cause: each.state for each in signals if each.state in ("raised", "recovered")}
        recent = {each.cause for each in signals if each.at >= since}
        return tuple(dict.fromkeys(e.cause for e in signals if e.cause in recent or last.get(e.cause) == "raised"))

    def add_message(self, message: AlertMessage) -> AlertMessage:
        """Add a message to deliver, or return the one with its id."""
        with self._lock:
            self.may_write()
            return self._messages.setdefault(message.id, replace(message, at=to_utc(message.at)))

    def undelivered(self) -> tuple[tuple[AlertMessage, tuple[SendAttempt, ...]], ...]:
        """Return the messages that no receiver has accepted yet, oldest first, each with its attempts."""
        tried = list(self._attempts.values())
        taken = {each.message_id for each in tried if each.delivered}
        waiting = [each for each in list(self._messages.values()) if each.id not in taken]
        return tuple((each, tuple(one for one in tried if one.message_id == each.id)) for each in waiting)

    def record_attempt(self, attempt: SendAttempt) -> SendAttempt:
        """Record an attempt, or return the one with its number."""
        with self._lock:
            self.may_write()
            key = (attempt.message_id, attempt.number)
            return self._attempts.setdefault(key, replace(attempt, at=to_utc(attempt.at)))
