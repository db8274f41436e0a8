"""Alert episodes: the time range, highest severity and number of occurrences of each alert."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from blocks.records.alerts import AlertRecord
from tasks.notification.rules.kinds import EVENT_KINDS, SEVERITIES


@dataclass(frozen=True)
class AlertEpisode:
    """An alert from its beginning to its end, or news, which ends at once.

    `end` is None while the alert is open. `severity` is the highest one, and `sentence` the newest. `occurrences` is
    how often it was raised. `acknowledged_by` is the person who acknowledged it, or "".
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
        """Whether the alert is open."""
        return self.end is None


def alert_episodes_of(signals: Iterable[AlertRecord]) -> tuple[AlertEpisode, ...]:
    """Return the episodes of one alert from its signals (oldest first), oldest first."""
    episodes: list[AlertEpisode] = []
    for signal in signals:
        open_now = episodes[-1] if episodes and episodes[-1].is_open else None
        if signal.state == "news":
            episodes.append(replace(_new_episode(signal), end=signal.at))
        elif signal.state == "raised" and open_now is None:
            episodes.append(_new_episode(signal))
        elif open_now is not None:
            episodes[-1] = _updated_episode(open_now, signal)
    return tuple(episodes)


def _new_episode(signal: AlertRecord) -> AlertEpisode:
    title = EVENT_KINDS[signal.event].title if signal.event in EVENT_KINDS else signal.event
    return AlertEpisode(signal.cause, signal.event, title, signal.severity, signal.summary, signal.at, None)


def _updated_episode(episode: AlertEpisode, signal: AlertRecord) -> AlertEpisode:
    if signal.state == "recovered":
        return replace(episode, end=signal.at)
    if signal.state == "acknowledged":
        return replace(episode, acknowledged_by=signal.acknowledged_by)
    severity = max(episode.severity, signal.severity, key=_severity_rank)
    acknowledged_by = "" if _severity_rank(severity) > _severity_rank(episode.severity) else episode.acknowledged_by
    return replace(
        episode,
        severity=severity,
        sentence=signal.summary,
        occurrences=episode.occurrences + 1,
        acknowledged_by=acknowledged_by,
    )


def _severity_rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def open_episodes(episodes: Sequence[AlertEpisode]) -> tuple[AlertEpisode, ...]:
    """Return the open episodes, the highest severity first, then the oldest."""
    return tuple(
        sorted(
            (each for each in episodes if each.is_open), key=lambda each: (-_severity_rank(each.severity), each.begin)
        )
    )
