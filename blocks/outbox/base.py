"""The outbox port: signals about models, the messages about them, and attempts to deliver these. Rows are only added.

Delivery is at least once: a message stays undelivered until a receiver has accepted it, and has one id in all attempts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from blocks.records.alerts import AlertRecord


@dataclass(frozen=True)
class AlertMessage:
    """A message for one channel; its receiver sees the id."""

    id: str
    cause: str
    occasion: str
    channel: str
    severity: str
    subject: str
    body: str
    at: datetime


@dataclass(frozen=True)
class SendAttempt:
    """One attempt to deliver a message: whether the receiver accepted it, and the error otherwise."""

    message_id: str
    number: int
    delivered: bool
    error: str
    at: datetime


class Outbox(ABC):
    """Signals, messages and delivery attempts. Each key is written once; a repeat returns the recorded one."""

    @abstractmethod
    def record_signal(self, signal: AlertRecord) -> AlertRecord:
        """Record a signal, or return the one with its key."""

    @abstractmethod
    def signals(self, cause: str) -> tuple[AlertRecord, ...]:
        """Return all signals of a cause, oldest first."""

    @abstractmethod
    def active_causes(self, since: datetime) -> tuple[str, ...]:
        """Return the open causes and those with a signal since then, in the order of their first signal."""

    @abstractmethod
    def add_message(self, message: AlertMessage) -> AlertMessage:
        """Add a message to deliver, or return the one with its id."""

    @abstractmethod
    def undelivered(self) -> tuple[tuple[AlertMessage, tuple[SendAttempt, ...]], ...]:
        """Return the messages that no receiver has accepted yet, oldest first, each with its attempts."""

    @abstractmethod
    def record_attempt(self, attempt: SendAttempt) -> SendAttempt:
        """Record an attempt, or return the one with its number."""
