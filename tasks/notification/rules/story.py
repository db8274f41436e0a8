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

AlertRecordState = Literal["news", "raised", "recovered", "acknowledged"]
MessageOccasion = Literal["news", "new", "worse", "reminder", "recovered"]


class AlertRecordLike(Protocol):
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
class DueMessage:
    """A message that is to be sent.

    `record_index` is that of the signal in the list, `occurrences` how often the cause has been seen since it opened, at `since`,
    and `id_source` what the message's id is made of.
    """

    occasion: MessageOccasion
    record_index: int
    occurrences: int
    since: datetime
    id_source: str


def due_messages(
    signals: Sequence[AlertRecordLike], now: datetime, reminder_interval: timedelta
) -> tuple[DueMessage, ...]:
    """Return every message that the signals of one cause (oldest first) have called for by `now`.

    A condition that is raised again while it is open is counted, not told again, unless it has become graver.
    While it is open and nobody has acknowledged it since it opened or became graver, the latest reminder that is
    due is told, each `reminder_interval` after the first word; a zero `reminder_interval` means none.
    """
    found: list[DueMessage] = []
    now_open: _OpenAlert | None = None
    for place, signal in enumerate(signals):
        if signal.state == "news":
            found.append(DueMessage("news", place, 1, signal.at, signal.key))
        elif signal.state == "raised":
            occasion: MessageOccasion | None = None
            if now_open is None:
                occasion, now_open = "new", _OpenAlert(signal.at, signal)
            elif _severity_rank(signal) > _severity_rank(now_open.last_alerted):
                occasion, now_open.last_alerted, now_open.acknowledged = "worse", signal, False
            now_open.occurrences, now_open.last_record_index = now_open.occurrences + 1, place
            if occasion:
                found.append(DueMessage(occasion, place, now_open.occurrences, now_open.since, signal.key))
        elif now_open and signal.state == "acknowledged":
            now_open.acknowledged = True
        elif now_open and signal.state == "recovered":
            found.append(DueMessage("recovered", place, now_open.occurrences, now_open.since, signal.key))
            now_open = None
    if now_open and not now_open.acknowledged and reminder_interval > timedelta(0):
        number = int(
            (now - now_open.last_alerted.at) / reminder_interval
        )  # those that were missed while nothing ran are not told late
        name = f"{now_open.last_alerted.key}:reminder:{number}"
        found += [DueMessage("reminder", now_open.last_record_index, now_open.occurrences, now_open.since, name)] * (
            number > 0
        )
    return tuple(found)


@dataclass
class _OpenAlert:
    """A condition that lasts: since when, the signal that was told last, how often and where it was seen last."""

    since: datetime
    last_alerted: AlertRecordLike
    occurrences: int = 0
    last_record_index: int = 0
    acknowledged: bool = False


def is_alert_open(signals: Sequence[AlertRecordLike]) -> bool:
    """Whether the condition of these signals (oldest first) lasts."""
    states = [signal.state for signal in signals if signal.state in ("raised", "recovered")]
    return bool(states) and states[-1] == "raised"


def message_id(due_name: str, occasion: str, channel: str) -> str:
    """Return the one id of a message, 32 hexadecimal digits: the same for each attempt to deliver it."""
    return text_digest(f"{due_name}\n{occasion}\n{channel}")[:32]


def next_delivery_attempt(failed: int, last: datetime) -> datetime:
    """Return when a message is tried again after `failed` attempts: 1, 2, 4, 8 and then every 15 minutes, for ever."""
    return last + timedelta(minutes=min(2 ** max(0, failed - 1), 15))


def _severity_rank(signal: AlertRecordLike) -> int:
    return SEVERITIES.index(signal.severity) if signal.severity in SEVERITIES else len(SEVERITIES)
