"""The alerts of a ledger in memory."""

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock

from blocks.ledger.outbox import Attempt, Message, Outbox, Signal
from blocks.ledger.rules import in_utc


@dataclass
class Told:
    """What a fake outbox holds, in the order in which it came."""

    signals: dict[str, Signal] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)


class FakeOutbox(Outbox):
    """Signals, messages and attempts in dictionaries."""

    _told: Told
    _lock: Lock

    @abstractmethod
    def _may_write(self) -> None:
        """Raise Unavailable where the fake is to fail."""

    def signal(self, signal: Signal) -> Signal:
        """Write down that something happened, or return what is there under the key."""
        with self._lock:
            self._may_write()
            return self._told.signals.setdefault(signal.key, replace(signal, at=in_utc(signal.at)))

    def signals(self, cause: str) -> tuple[Signal, ...]:
        """Return all signals of a cause, oldest first."""
        return tuple(each for each in list(self._told.signals.values()) if each.cause == cause)

    def causes(self, since: datetime) -> tuple[str, ...]:
        """Return the causes that are open, and those with a signal since then, in the order of their first signal."""
        told = list(self._told.signals.values())
        last = {each.cause: each.state for each in told if each.state in ("raised", "recovered")}
        recent = {each.cause for each in told if each.at >= since}
        return tuple(dict.fromkeys(e.cause for e in told if e.cause in recent or last.get(e.cause) == "raised"))

    def post(self, message: Message) -> Message:
        """Add a message to be delivered, or return the one with that id."""
        with self._lock:
            self._may_write()
            return self._told.messages.setdefault(message.id, replace(message, at=in_utc(message.at)))

    def undelivered(self) -> tuple[tuple[Message, tuple[Attempt, ...]], ...]:
        """Return the messages that no receiver has taken yet, oldest first, each with its attempts."""
        tried = list(self._told.attempts.values())
        taken = {each.message_id for each in tried if each.delivered}
        waiting = [each for each in list(self._told.messages.values()) if each.id not in taken]
        return tuple((each, tuple(one for one in tried if one.message_id == each.id)) for each in waiting)

    def messages(self, cause: str) -> tuple[Message, ...]:
        """Return what was said of a cause, oldest first, delivered or not."""
        return tuple(each for each in list(self._told.messages.values()) if each.cause == cause)

    def attempted(self, attempt: Attempt) -> Attempt:
        """Write down an attempt, or return the one with that number."""
        with self._lock:
            self._may_write()
            key = (attempt.message_id, attempt.number)
            return self._told.attempts.setdefault(key, replace(attempt, at=in_utc(attempt.at)))
