"""Alerts as they are drawn on a line of time: from when to when, how grave, how often seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from tasks.notification.rules.kinds import KINDS, SEVERITIES


class Signal(Protocol):
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
class Episode:
    """An alert from its beginning to its end, or a piece of news, which is over at once.

    `end` is None while it lasts; `severity` and `sentence` are the gravest and the newest; `seen` how often it was
    raised; `acknowledged_by` who looks after it, "" for nobody.
    """

    cause: str
    event: str
    title: str
    severity: str
    sentence: str
    begin: datetime
    end: datetime | None
    seen: int = 1
    acknowledged_by: str = ""

    @property
    def lasts(self) -> bool:
        """Whether it is open."""
        return self.end is None


def episodes(signals: Iterable[Signal]) -> tuple[Episode, ...]:
    """Return what the signals of one cause (oldest first) tell of, oldest first."""
    found: list[Episode] = []
    for signal in signals:
        open_now = found[-1] if found and found[-1].lasts else None
        if signal.state == "news":
            found.append(replace(_begun(signal), end=signal.at))
        elif signal.state == "raised" and open_now is None:
            found.append(_begun(signal))
        elif open_now is not None:
            found[-1] = _went_on(open_now, signal)
    return tuple(found)


def _begun(signal: Signal) -> Episode:
    title = KINDS[signal.event].title if signal.event in KINDS else signal.event
    return Episode(signal.cause, signal.event, title, signal.severity, signal.sentence, signal.at, None)


def _went_on(episode: Episode, signal: Signal) -> Episode:
    if signal.state == "recovered":
        return replace(episode, end=signal.at)
    if signal.state == "acknowledged":
        return replace(episode, acknowledged_by=signal.by)
    graver = max(episode.severity, signal.severity, key=_rank)
    again = "" if _rank(graver) > _rank(episode.severity) else episode.acknowledged_by
    return replace(episode, severity=graver, sentence=signal.sentence, seen=episode.seen + 1, acknowledged_by=again)


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def open_ones(found: Sequence[Episode]) -> tuple[Episode, ...]:
    """Return those that last, the gravest first, then the oldest."""
    return tuple(sorted((each for each in found if each.lasts), key=lambda each: (-_rank(each.severity), each.begin)))
