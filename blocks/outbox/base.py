"""The outbox port: what happened to models, the messages about it, and whether they arrived. Rows are only added.

At least once: a message stays undelivered until a receiver has taken it, and bears one id through all attempts.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime

from blocks.records.alerts import AlertRecord


@dataclass(frozen=True)
class AlertMessage:
    """What one channel is to be told, under the one id that its receiver sees."""

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
    """One attempt to deliver a message: whether the receiver took it, and what went wrong otherwise."""

    message_id: str
    number: int
    delivered: bool
    error: str
    at: datetime


class Outbox(ABC):
    """Signals, messages and attempts to deliver them. Each key is written once; a repeat returns what is there."""

    @abstractmethod
    def record_signal(self, signal: AlertRecord) -> AlertRecord:
        """Write down that something happened, or return what is there under the key."""

    @abstractmethod
    def signals(self, cause: str) -> tuple[AlertRecord, ...]:
        """Return all signals of a cause, oldest first."""

    @abstractmethod
    def active_causes(self, since: datetime) -> tuple[str, ...]:
        """Return the causes that are open, and those with a signal since then, in the order of their first signal."""

    @abstractmethod
    def add_message(self, message: AlertMessage) -> AlertMessage:
        """Add a message to be delivered, or return the one with that id."""

    @abstractmethod
    def undelivered(self) -> tuple[tuple[AlertMessage, tuple[SendAttempt, ...]], ...]:
        """Return the messages that no receiver has taken yet, oldest first, each with its attempts."""

    @abstractmethod
    def record_attempt(self, attempt: SendAttempt) -> SendAttempt:
        """Write down an attempt, or return the one with that number."""
