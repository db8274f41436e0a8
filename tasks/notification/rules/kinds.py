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
class Kind:
    """One kind of event: its Prefect event name, a title for people, its severity, and whether it lasts."""

    event: str
    title: str
    severity: Severity
    lasts: bool


KINDS = {
    kind.event: kind
    for kind in (
        Kind("model.drift.detected", "the data drifts", "warning", lasts=True),
        Kind("model.quality.degraded", "the model has become worse", "critical", lasts=True),
        Kind("model.check.impossible", "the model cannot be watched", "critical", lasts=True),
        Kind("release.awaiting-approval", "a version waits for approval", "warning", lasts=True),
        Kind("retraining.started", "it is retrained by itself", "info", lasts=False),
        Kind("retraining.refused", "it is not retrained by itself", "info", lasts=False),
        Kind("release.held", "a challenger was held", "info", lasts=False),
        Kind("release.deployed", "a version was deployed", "info", lasts=False),
        Kind("release.failed", "a deployment failed", "critical", lasts=False),
        Kind("release.rolled-back", "a version was taken back", "warning", lasts=False),
    )
}
"""Every event of Ratchet, by name."""


def kind_of(event: str) -> Kind:
    """Return what the event is.

    Raises:
        Refusal: there is no such event; the message lists those there are.
    """
    if event not in KINDS:
        raise Refusal("there is no such event", value=event, remedy=f"There are: {', '.join(sorted(KINDS))}.")
    return KINDS[event]
