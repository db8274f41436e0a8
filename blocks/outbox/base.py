"""The outbox port: what happened to models, the messages about it, and whether they arrived. Rows are only added.

At least once: a message stays undelivered until a receiver has taken it, and bears one id through all attempts.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal


@dataclass(frozen=True)
class Signal:
    """Something happened to a model.

    `cause` groups what belongs together ("churn/local/model.drift.detected"). `links` are label and address,
    or a command. `by` is who acknowledged it, or "".
    """

    key: str
    cause: str
    event: str
    state: Literal["news", "raised", "recovered", "acknowledged"]
    model: str
    environment: str
    severity: Literal["info", "warning", "critical"]
    owner: str
    sentence: str
    at: datetime
    links: Mapping[str, str] = field(default_factory=dict)
    by: str = ""


@dataclass(frozen=True)
class Message:
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
class Attempt:
    """One attempt to deliver a message: whether the receiver took it, and what went wrong otherwise."""

    message_id: str
    number: int
    delivered: bool
    said: str
    at: datetime


class Outbox(ABC):
    """Signals, messages and attempts to deliver them. Each key is written once; a repeat returns what is there."""

    @abstractmethod
    def signal(self, signal: Signal) -> Signal:
        """Write down that something happened, or return what is there under the key."""

    @abstractmethod
    def signals(self, cause: str) -> tuple[Signal, ...]:
        """Return all signals of a cause, oldest first."""

    @abstractmethod
    def causes(self, since: datetime) -> tuple[str, ...]:
        """Return the causes that are open, and those with a signal since then, in the order of their first signal."""

    @abstractmethod
    def post(self, message: Message) -> Message:
        """Add a message to be delivered, or return the one with that id."""

    @abstractmethod
    def undelivered(self) -> tuple[tuple[Message, tuple[Attempt, ...]], ...]:
        """Return the messages that no receiver has taken yet, oldest first, each with its attempts."""

    @abstractmethod
    def attempted(self, attempt: Attempt) -> Attempt:
        """Write down an attempt, or return the one with that number."""
