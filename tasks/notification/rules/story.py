"""What is said of a cause, from what has happened to it: never twice the same, and never nothing.

The signals of a cause are a list that is only added to. Which of them become messages follows from the list alone,
so whoever crashed while telling can begin again: the same signal gives the same message under the same id.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from runtime.digests import text_digest
from tasks.notification.rules.kinds import SEVERITIES

State = Literal["news", "raised", "recovered", "acknowledged"]
Occasion = Literal["news", "new", "worse", "reminder", "recovered"]


class Signal(Protocol):
    """What these rules read of a signal."""

    @property
    def key(self) -> str:
        """Its name in the ledger."""

    @property
    def state(self) -> str:
        """`news`, `raised`, `recovered` or `acknowledged`."""

    @property
    def severity(self) -> str:
        """`info`, `warning` or `critical`."""

    @property
    def at(self) -> datetime:
        """When, with a time zone."""


@dataclass(frozen=True)
class Due:
    """A message that is to be sent.

    `place` is that of the signal in the list, `seen` how often the cause has been seen since it opened, at `since`,
    and `name` what the message's id is made of.
    """

    occasion: Occasion
    place: int
    seen: int
    since: datetime
    name: str


def due(signals: Sequence[Signal], now: datetime, remind: timedelta) -> tuple[Due, ...]:
    """Return every message that the signals of one cause (oldest first) have called for by `now`.

    A condition that is raised again while it is open is counted, not told again, unless it has become graver.
    While it is open and nobody has acknowledged it since it opened or became graver, the latest reminder that is
    due is told, each `remind` after the first word; a zero `remind` means none.
    """
    found: list[Due] = []
    now_open: _Open | None = None
    for place, signal in enumerate(signals):
        if signal.state == "news":
            found.append(Due("news", place, 1, signal.at, signal.key))
        elif signal.state == "raised":
            occasion: Occasion | None = None
            if now_open is None:
                occasion, now_open = "new", _Open(signal.at, signal)
            elif _rank(signal) > _rank(now_open.told):
                occasion, now_open.told, now_open.acknowledged = "worse", signal, False
            now_open.seen, now_open.last = now_open.seen + 1, place
            if occasion:
                found.append(Due(occasion, place, now_open.seen, now_open.since, signal.key))
        elif now_open and signal.state == "acknowledged":
            now_open.acknowledged = True
        elif now_open and signal.state == "recovered":
            found.append(Due("recovered", place, now_open.seen, now_open.since, signal.key))
            now_open = None
    if now_open and not now_open.acknowledged and remind > timedelta(0):
        number = int((now - now_open.told.at) / remind)  # those that were missed while nothing ran are not told late
        name = f"{now_open.told.key}:reminder:{number}"
        found += [Due("reminder", now_open.last, now_open.seen, now_open.since, name)] * (number > 0)
    return tuple(found)


@dataclass
class _Open:
    """A condition that lasts: since when, the signal that was told last, how often and where it was seen last."""

    since: datetime
    told: Signal
    seen: int = 0
    last: int = 0
    acknowledged: bool = False


def is_open(signals: Sequence[Signal]) -> bool:
    """Whether the condition of these signals (oldest first) lasts."""
    states = [signal.state for signal in signals if signal.state in ("raised", "recovered")]
    return bool(states) and states[-1] == "raised"


def message_id(due_name: str, occasion: str, channel: str) -> str:
    """Return the one id of a message, 32 hexadecimal digits: the same for each attempt to deliver it."""
    return text_digest(f"{due_name}\n{occasion}\n{channel}")[:32]


def next_attempt(failed: int, last: datetime) -> datetime:
    """Return when a message is tried again after `failed` attempts: 1, 2, 4, 8 and then every 15 minutes, for ever."""
    return last + timedelta(minutes=min(2 ** max(0, failed - 1), 15))


def _rank(signal: Signal) -> int:
    return SEVERITIES.index(signal.severity) if signal.severity in SEVERITIES else len(SEVERITIES)
