"""The data of a dashboard at one time. A part that could not be read is `Unknown`, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from blocks.records.approvals import Decision
from blocks.records.deployments import Deployment
from blocks.records.traffic import TrafficInterval
from tasks.dashboard.rules.episodes import AlertEpisode
from tasks.monitoring.rules.history import MonitoringRun
from tasks.shared.rules.cost.spent import MonthlyCost


@dataclass(frozen=True)
class Unknown:
    """A part that could not be read, and the reason. It is never shown as empty or as zero."""

    reason: str


@dataclass(frozen=True)
class DeployedVersionSummary:
    """The deployed version according to the ledger, with its approval.

    `endpoint_version` is the version that the endpoint itself reports; "" for none.
    """

    release: Deployment
    requested_by: str | Unknown
    decisions: tuple[Decision, ...] | Unknown
    endpoint_version: str | Unknown


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
