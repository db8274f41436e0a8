"""Alerts as they are drawn on a line of time: from when to when, how grave, how often seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from tasks.notification.rules.kinds import EVENT_KINDS, SEVERITIES


class AlertRecordLike(Protocol):
    """What is read of a signal of the ledger."""

    @property
    def cause(self) -> str:
        """The alert that it belongs to."""

    @property
    def event(self) -> str:
        """One of `tasks.notification.rules.kinds`."""

    @property
    def state(self) -> str:
        """`news`, `raised`, `recovered` or `acknowledged`."""

    @property
    def severity(self) -> str:
        """`info`, `warning` or `critical`."""

    @property
    def sentence(self) -> str:
        """What happened."""

    @property
    def at(self) -> datetime:
        """When."""

    @property
    def by(self) -> str:
        """Who acknowledged it, or ""."""


@dataclass(frozen=True)
class AlertEpisode:
    """An alert from its beginning to its end, or a piece of news, which is over at once.

    `end` is None while it lasts; `severity` and `sentence` are the gravest and the newest; `occurrences` how often it was
    raised; `acknowledged_by` who looks after it, "" for nobody.
    """

    cause: str
    event: str
    title: str
    severity: str
    sentence: str
    begin: datetime
    end: datetime | None
    occurrences: int = 1
    acknowledged_by: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is open."""
        return self.end is None


def alert_episodes_of(signals: Iterable[AlertRecordLike]) -> tuple[AlertEpisode, ...]:
    """Return what the signals of one cause (oldest first) tell of, oldest first."""
    found: list[AlertEpisode] = []
    for signal in signals:
        open_now = found[-1] if found and found[-1].is_open else None
        if signal.state == "news":
            found.append(replace(_new_episode(signal), end=signal.at))
        elif signal.state == "raised" and open_now is None:
            found.append(_new_episode(signal))
        elif open_now is not None:
            found[-1] = _updated_episode(open_now, signal)
    return tuple(found)


def _new_episode(signal: AlertRecordLike) -> AlertEpisode:
    title = EVENT_KINDS[signal.event].title if signal.event in EVENT_KINDS else signal.event
    return AlertEpisode(signal.cause, signal.event, title, signal.severity, signal.sentence, signal.at, None)


def _updated_episode(episode: AlertEpisode, signal: AlertRecordLike) -> AlertEpisode:
    if signal.state == "recovered":
        return replace(episode, end=signal.at)
    if signal.state == "acknowledged":
        return replace(episode, acknowledged_by=signal.by)
    graver = max(episode.severity, signal.severity, key=_severity_rank)
    again = "" if _severity_rank(graver) > _severity_rank(episode.severity) else episode.acknowledged_by
    return replace(
        episode, severity=graver, sentence=signal.sentence, occurrences=episode.occurrences + 1, acknowledged_by=again
    )


def _severity_rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def open_episodes(found: Sequence[AlertEpisode]) -> tuple[AlertEpisode, ...]:
    """Return those that last, the gravest first, then the oldest."""
    return tuple(
        sorted((each for each in found if each.is_open), key=lambda each: (-_severity_rank(each.severity), each.begin))
    )
