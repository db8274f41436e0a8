"""The events that people are alerted to, their severities, and the channels that accept them.

News causes one message (a version was deployed). A condition lasts (drift, an open approval request): it causes a
message when it begins, reminders while nobody has acknowledged it, and a message when it ends.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from blocks.records.alerts import AlertChannel
from tasks.shared.rules.refusal import Refusal

AlertRecordState = Literal["news", "raised", "recovered", "acknowledged"]
Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the lowest to the highest."""


@dataclass(frozen=True)
class EventKind:
    """A kind of event: its Prefect event name, a title for people, its severity, and whether it is a condition."""

    event: str
    title: str
    severity: Severity
    is_condition: bool


EVENT_KINDS = {
    kind.event: kind
    for kind in (
        EventKind("model.drift.detected", "drift was detected", "warning", is_condition=True),
        EventKind("model.quality.degraded", "the model's quality has degraded", "critical", is_condition=True),
        EventKind("model.monitoring.failed", "monitoring failed", "critical", is_condition=True),
        EventKind("approval.requested", "a version waits for approval", "warning", is_condition=True),
        EventKind("retraining.started", "automatic retraining started", "info", is_condition=False),
        EventKind("retraining.refused", "automatic retraining refused", "info", is_condition=False),
        EventKind("evaluation.held", "a challenger was held", "info", is_condition=False),
        EventKind("release.deployed", "a version was deployed", "info", is_condition=False),
        EventKind("release.failed", "a deployment failed", "critical", is_condition=False),
        EventKind("release.rolled-back", "a version was rolled back", "warning", is_condition=False),
        EventKind("environment.changed", "a registered setting is not the trusted one", "critical", is_condition=True),
    )
}
"""Every event of Ratchet, by name."""


def event_kind(event: str) -> EventKind:
    """Return the kind of an event. Raises Refusal, with the known events, when there is no such event."""
    if event not in EVENT_KINDS:
        raise Refusal("there is no such event", value=event, remedy=f"There are: {', '.join(sorted(EVENT_KINDS))}.")
    return EVENT_KINDS[event]


def channel_accepts(channel: AlertChannel, *, severity: str, model: str, event: str) -> bool:
    """Return whether the channel accepts the event. An unknown severity counts as the highest."""
    severe_enough = severity not in SEVERITIES or SEVERITIES.index(severity) >= SEVERITIES.index(channel.min_severity)
    return (
        severe_enough
        and any(fnmatchcase(model, pattern) for pattern in channel.models)
        and any(fnmatchcase(event, pattern) for pattern in channel.events)
    )
