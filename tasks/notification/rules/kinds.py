"""What can happen to a model that people are told of, and how grave each is.

News is told once (a version was deployed). A condition lasts (drift, a request that waits): it is told when it
begins, again while nobody has acknowledged it, and when it is over.
"""

from dataclasses import dataclass
from typing import Literal

from tasks.shared.rules.refusal import Refusal

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")
"""From the least to the gravest."""


@dataclass(frozen=True)
class EventKind:
    """One kind of event: its Prefect event name, a title for people, its severity, and whether it lasts."""

    event: str
    title: str
    severity: Severity
    is_condition: bool


EVENT_KINDS = {
    kind.event: kind
    for kind in (
        EventKind("model.drift.detected", "the data drifts", "warning", is_condition=True),
        EventKind("model.quality.degraded", "the model has become worse", "critical", is_condition=True),
        EventKind("model.check.impossible", "the model cannot be watched", "critical", is_condition=True),
        EventKind("release.awaiting-approval", "a version waits for approval", "warning", is_condition=True),
        EventKind("retraining.started", "it is retrained by itself", "info", is_condition=False),
        EventKind("retraining.refused", "it is not retrained by itself", "info", is_condition=False),
        EventKind("release.held", "a challenger was held", "info", is_condition=False),
        EventKind("release.deployed", "a version was deployed", "info", is_condition=False),
        EventKind("release.failed", "a deployment failed", "critical", is_condition=False),
        EventKind("release.rolled-back", "a version was taken back", "warning", is_condition=False),
    )
}
"""Every event of Ratchet, by name."""


def event_kind(event: str) -> EventKind:
    """Return what the event is.

    Raises:
        Refusal: there is no such event; the message lists those there are.
    """
    if event not in EVENT_KINDS:
        raise Refusal("there is no such event", value=event, remedy=f"There are: {', '.join(sorted(EVENT_KINDS))}.")
    return EVENT_KINDS[event]
