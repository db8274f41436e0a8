"""Who is told of what: the channels of an environment, by severity, model and event."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from tasks.notification.rules.kinds import SEVERITIES


class ChannelLike(Protocol):
    """What these rules read of a channel."""

    @property
    def name(self) -> str:
        """Its name, by which messages know it."""

    @property
    def min_severity(self) -> str:
        """The least severity that it is told of."""

    @property
    def models(self) -> Sequence[str]:
        """Patterns of the models that it is told of: `churn`, `*`."""

    @property
    def events(self) -> Sequence[str]:
        """Patterns of the events that it is told of: `model.*`."""


def channel_accepts(channel: ChannelLike, *, severity: str, model: str, event: str) -> bool:
    """Whether the channel is told of an event of this severity; one of an unknown severity goes to every channel."""
    grave = severity not in SEVERITIES or SEVERITIES.index(severity) >= SEVERITIES.index(channel.min_severity)
    return (
        grave
        and any(fnmatchcase(model, pattern) for pattern in channel.models)
        and any(fnmatchcase(event, pattern) for pattern in channel.events)
    )
