"""The data of a dashboard at one time. A part that could not be read is `Unknown`, with the reason."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from blocks.records.alerts import AlertRecord
from blocks.records.approvals import Decision
from blocks.records.deployments import Deployment
from blocks.records.traffic import TrafficInterval
from tasks.monitoring.rules.history import MonitoringRun
from tasks.notification.rules.kinds import EVENT_KINDS, SEVERITIES
from tasks.shared.rules.cost.spent import MonthlyCost


@dataclass(frozen=True)
class Unknown:
    """A part that could not be read, and the reason. It is never shown as empty or as zero."""

    reason: str


@dataclass(frozen=True)
class DeployedVersionSummary:
    """The deployed version according to the ledger, with its approval.

    `endpoint_version` is the version that the endpoint itself reports, and `registry_version` the one that the registry
    names as champion; "" for none.
    """

    release: Deployment
    requested_by: str | Unknown
    decisions: tuple[Decision, ...] | Unknown
    endpoint_version: str | Unknown
    registry_version: str | Unknown

    @property
    def is_disputed(self) -> bool:
        """Whether the endpoint or the registry names another version than the ledger."""
        said = (self.endpoint_version, self.registry_version)
        return any(isinstance(each, str) and each != self.release.version for each in said)


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


@dataclass(frozen=True)
class RequestHistory:
    """Requests per time step.

    `has_errors_and_latency` is whether refused requests, failed requests and latencies were counted. The inference log
    has only successful requests, without latencies.
    """

    steps: tuple[TrafficInterval, ...]
    has_errors_and_latency: bool


@dataclass(frozen=True)
class InferenceLogSummary:
    """The contents of the inference log for one version."""

    version: str
    requests: int
    rows: int
    newest: datetime


@dataclass(frozen=True)
class SnapshotSummary:
    """A snapshot of a data set: its time, the rows that it added, and their source."""

    at: datetime
    rows: int
    source: str


@dataclass(frozen=True)
class DatasetSummary:
    """A data set that the model uses: its purpose, its snapshots (oldest first), and its stored bytes."""

    name: str
    use: str
    snapshots: tuple[SnapshotSummary, ...]
    bytes: int | Unknown


@dataclass(frozen=True)
class CostHistory:
    """The cost of the model's runs per month, newest first, and the monthly budget, in US dollars."""

    months: tuple[MonthlyCost, ...]
    budget: float


@dataclass(frozen=True)
class ScheduledRun:
    """A scheduled deployment: its next run (None: none is planned), and whether it is paused."""

    deployment: str
    at: datetime | None
    paused: bool


@dataclass(frozen=True)
class DashboardData:
    """The data of one dashboard: a model in an environment. `links` are addresses by label."""

    model: str
    environment: str
    description: str
    owner: str
    drawn_at: datetime
    deployed: DeployedVersionSummary | Unknown | None
    releases: tuple[Deployment, ...] | Unknown
    alerts: tuple[AlertEpisode, ...] | Unknown
    traffic: RequestHistory | Unknown
    inference_log: tuple[InferenceLogSummary, ...] | Unknown
    monitoring_runs: tuple[MonitoringRun, ...] | Unknown
    data: tuple[DatasetSummary, ...] | Unknown
    costs: CostHistory | Unknown
    schedule: tuple[ScheduledRun, ...] | Unknown
    drift_threshold: float = 0.1
    links: Mapping[str, str] = field(default_factory=dict)


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
