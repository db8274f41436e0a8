"""Which messages the signals of an alert cause, when, and with which text.

The signals of an alert are an append-only list, and the messages follow from this list alone. So a retry after a
crash gives the same messages with the same ids: no message is lost, and none is sent twice.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from blocks.records.alerts import AlertRecord
from runtime.digests import text_digest
from runtime.foreign_text import one_line, without_links
from tasks.notification.rules.kinds import SEVERITIES, event_kind

MessageOccasion = Literal["news", "new", "worse", "reminder", "recovered"]


@dataclass(frozen=True)
class DueMessage:
    """A message that is due, why it is sent, and the index of its signal in the list.

    The alert opened at `since` and was raised `occurrences` times from then on. The message's id is derived from
    `id_source`.
    """

    occasion: MessageOccasion
    record_index: int
    occurrences: int
    since: datetime
    id_source: str


def due_messages(signals: Sequence[AlertRecord], now: datetime, reminder_interval: timedelta) -> tuple[DueMessage, ...]:
    """Return every message that the signals of one alert (oldest first) have caused by `now`.

    An open alert that is raised again is counted, and causes a message only when its severity has increased. While
    an alert is open and not acknowledged since then, a reminder is due after each `reminder_interval`; only the
    latest one is returned. A zero `reminder_interval` means no reminders.
    """
    messages: list[DueMessage] = []
    now_open: _OpenAlert | None = None
    for place, signal in enumerate(signals):
        if signal.state == "news":
            messages.append(DueMessage("news", place, 1, signal.at, signal.key))
        elif signal.state == "raised":
            occasion: MessageOccasion | None = None
            if now_open is None:
                occasion, now_open = "new", _OpenAlert(signal.at, signal)
            elif _severity_rank(signal) > _severity_rank(now_open.last_alerted):
                occasion, now_open.last_alerted, now_open.acknowledged = "worse", signal, False
            now_open.occurrences, now_open.last_record_index = now_open.occurrences + 1, place
            if occasion:
                messages.append(DueMessage(occasion, place, now_open.occurrences, now_open.since, signal.key))
        elif now_open and signal.state == "acknowledged":
            now_open.acknowledged = True
        elif now_open and signal.state == "recovered":
            messages.append(DueMessage("recovered", place, now_open.occurrences, now_open.since, signal.key))
            now_open = None
    if now_open and not now_open.acknowledged and reminder_interval > timedelta(0):
        # Only the latest: reminders that were missed while nothing ran are not sent late.
        number = int((now - now_open.last_alerted.at) / reminder_interval)
        name = f"{now_open.last_alerted.key}:reminder:{number}"
        messages += [DueMessage("reminder", now_open.last_record_index, now_open.occurrences, now_open.since, name)] * (
            number > 0
        )
    return tuple(messages)


@dataclass
class _OpenAlert:
    """An open alert: since when, the last signal that caused a message, and how often it was raised."""

    since: datetime
    last_alerted: AlertRecord
    occurrences: int = 0
    last_record_index: int = 0
    acknowledged: bool = False


def is_alert_open(signals: Sequence[AlertRecord]) -> bool:
    """Return whether the alert of these signals (oldest first) is open."""
    states = [signal.state for signal in signals if signal.state in ("raised", "recovered")]
    return bool(states) and states[-1] == "raised"


def message_id(due_name: str, occasion: str, channel: str) -> str:
    """Return the id of a message, 32 hexadecimal digits: equal for each delivery attempt."""
    return text_digest(f"{due_name}\n{occasion}\n{channel}")[:32]


def next_delivery_attempt(failed: int, last: datetime) -> datetime:
    """Return the time of the next attempt after `failed` ones: after 1, 2, 4, 8, then every 15 minutes, without end."""
    return last + timedelta(minutes=min(2 ** max(0, failed - 1), 15))


def _severity_rank(signal: AlertRecord) -> int:
    return SEVERITIES.index(signal.severity) if signal.severity in SEVERITIES else len(SEVERITIES)


SUBJECT_PREFIXES = {
    "news": "",
    "new": "",
    "worse": "severity raised: ",
    "reminder": "reminder: ",
    "recovered": "recovered: ",
}


def message_subject(occasion: str, severity: str, event: str, model: str, environment: str) -> str:
    """Return a subject such as "[critical] churn (local): reminder: monitoring failed". An environment has no model."""
    tag = "recovered" if occasion == "recovered" else severity
    subject = f"{model} ({environment})" if model else environment
    return f"[{tag}] {subject}: {SUBJECT_PREFIXES[occasion]}{event_kind(event).title}"


def message_body(
    sentence: str, links: Mapping[str, str], *, owner: str, cause: str, since: datetime, occurrences: int, is_open: bool
) -> str:
    """Return the body: the sentence, the links, the owner, and the command to acknowledge an open alert.

    Only `links` holds addresses that a program of the reader makes links of: those in other text are broken.

    `links` are addresses, or commands to type, by label. `cause` is the name of the alert, which opened at `since` and
    was raised `occurrences` times from then on.
    """
    lines = [without_links(sentence), ""]
    if is_open and occurrences > 1:
        lines.append(f"Raised {occurrences} times since {since:%Y-%m-%d %H:%M %Z}.")
    lines += [f"{label}: {one_line(target)}" for label, target in links.items()]
    lines.append(f"owner: {without_links(owner)}")
    if is_open:
        quoted = shlex.quote(one_line(cause))
        lines.append(f"acknowledge (no more reminders): python -m ratchet alerts ack --by you -- {quoted}")
    return "\n".join(lines)
