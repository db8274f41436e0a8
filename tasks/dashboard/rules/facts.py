"""What a dashboard shows, gathered at one moment. What could not be learnt is `Unknown`, with the reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from tasks.dashboard.rules.episodes import Episode
from tasks.monitoring.rules.history import Look
from tasks.monitoring.rules.traffic import Stretch
from tasks.shared.rules.cost.spent import MonthSum


@dataclass(frozen=True)
class Unknown:
    """Something that could not be learnt, and why: never shown as nothing or as zero."""

    reason: str


@dataclass(frozen=True)
class Decider:
    """A person who decided on a request; `authenticated` says whether the channel proved who it was."""

    by: str
    at: datetime
    approved: bool
    reason: str
    channel: str
    authenticated: bool


@dataclass(frozen=True)
class Release:
    """A line of what served when: `action` is what was tried, `status` how it ended, `by` who approved or took back."""

    version: str
    action: str
    status: str
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True)
class Serving:
    """The version that serves by the ledger, and how it came to.

    `answers` is the version that the endpoint itself names; "" when it answers with none.
    """

    release: Release
    digest: str
    requested_by: str | Unknown
    deciders: tuple[Decider, ...] | Unknown
    answers: str | Unknown


@dataclass(frozen=True)
class Traffic:
    """Requests by stretches of time.

    `counted` says that refused and failed requests and latencies are among the counts; the inference log alone has
    answered requests and no times.
    """

    stretches: tuple[Stretch, ...]
    counted: bool


@dataclass(frozen=True)
class LoggedRows:
    """What the inference log in the lake holds of one version."""

    version: str
    requests: int
    rows: int
    newest: datetime


@dataclass(frozen=True)
class Landing:
    """A snapshot of a data set: when it landed, how many rows it added, and where they came from."""

    at: datetime
    rows: int
    source: str


@dataclass(frozen=True)
class DataSet:
    """A data set that the model uses: for what, its snapshots (oldest first), and the bytes that are stored."""

    name: str
    use: str
    landings: tuple[Landing, ...]
    bytes: int | Unknown


@dataclass(frozen=True)
class Costs:
    """What the model's runs cost by month, newest first, and what they may in a month, in US dollars."""

    months: tuple[MonthSum, ...]
    budget: float


@dataclass(frozen=True)
class NextRun:
    """A deployment that a schedule starts: when next (None: no run is planned), and whether it is paused."""

    deployment: str
    at: datetime | None
    paused: bool


@dataclass(frozen=True)
class Facts:
    """All that one page shows of a model in an environment; `links` are addresses by what they lead to."""

    model: str
    environment: str
    description: str
    owner: str
    drawn_at: datetime
    serving: Serving | Unknown | None
    releases: tuple[Release, ...] | Unknown
    episodes: tuple[Episode, ...] | Unknown
    traffic: Traffic | Unknown
    logged: tuple[LoggedRows, ...] | Unknown
    looks: tuple[Look, ...] | Unknown
    data: tuple[DataSet, ...] | Unknown
    costs: Costs | Unknown
    schedule: tuple[NextRun, ...] | Unknown
    index_counts: float = 0.1
    links: Mapping[str, str] = field(default_factory=dict)
