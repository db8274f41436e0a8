"""What a dashboard shows, gathered at one moment. What could not be learnt is `Unknown`, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tasks.dashboard.rules.episodes import AlertEpisode
from tasks.monitoring.rules.history import MonitoringRun
from tasks.monitoring.rules.traffic import RequestStep
from tasks.shared.rules.cost.spent import MonthlyCost


@dataclass(frozen=True)
class Unknown:
    """Something that could not be learnt, and why: never shown as nothing or as zero."""

    reason: str


@dataclass(frozen=True)
class DecisionSummary:
    """A person who decided on a request; `authenticated` says whether the channel proved who it was."""

    by: str
    at: datetime
    approved: bool
    reason: str
    channel: str
    authenticated: bool


@dataclass(frozen=True)
class ReleaseSummary:
    """A line of what served when: `action` is what was tried, `status` how it ended, `actor` who approved or took back."""

    version: str
    action: str
    status: str
    actor: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class DeployedVersionSummary:
    """The version that serves by the ledger, and how it came to.

    `endpoint_version` is the version that the endpoint itself names; "" when it answers with none.
    """

    release: ReleaseSummary
    digest: str
    requested_by: str | Unknown
    decisions: tuple[DecisionSummary, ...] | Unknown
    endpoint_version: str | Unknown


@dataclass(frozen=True)
class RequestHistory:
    """Requests by stretches of time.

    `has_errors_and_latency` says that refused and failed requests and latencies are among the counts; the inference log alone has
    answered requests and no times.
    """

    steps: tuple[RequestStep, ...]
    has_errors_and_latency: bool


@dataclass(frozen=True)
class InferenceLogSummary:
    """What the inference log in the lake holds of one version."""

    version: str
    requests: int
    rows: int
    newest: datetime


@dataclass(frozen=True)
class SnapshotSummary:
    """A snapshot of a data set: when it landed, how many rows it added, and where they came from."""

    at: datetime
    rows: int
    source: str


@dataclass(frozen=True)
class DatasetSummary:
    """A data set that the model uses: for what, its snapshots (oldest first), and the bytes that are stored."""

    name: str
    use: str
    snapshots: tuple[SnapshotSummary, ...]
    bytes: int | Unknown


@dataclass(frozen=True)
class CostHistory:
    """What the model's runs cost by month, newest first, and what they may in a month, in US dollars."""

    months: tuple[MonthlyCost, ...]
    budget: float


@dataclass(frozen=True)
class ScheduledRun:
    """A deployment that a schedule starts: when next (None: no run is planned), and whether it is paused."""

    deployment: str
    at: datetime | None
    paused: bool


@dataclass(frozen=True)
class DashboardData:
    """All that one page shows of a model in an environment; `links` are addresses by what they lead to."""

    model: str
    environment: str
    description: str
    owner: str
    drawn_at: datetime
    deployed: DeployedVersionSummary | Unknown | None
    releases: tuple[ReleaseSummary, ...] | Unknown
    alerts: tuple[AlertEpisode, ...] | Unknown
    traffic: RequestHistory | Unknown
    inference_log: tuple[InferenceLogSummary, ...] | Unknown
    monitoring_runs: tuple[MonitoringRun, ...] | Unknown
    data: tuple[DatasetSummary, ...] | Unknown
    costs: CostHistory | Unknown
    schedule: tuple[ScheduledRun, ...] | Unknown
    drift_threshold: float = 0.1
    links: Mapping[str, str] = field(default_factory=dict)
