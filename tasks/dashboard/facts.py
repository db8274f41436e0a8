"""What the dashboard of a model shows, gathered from the ledger, the lake, the endpoint, MLflow and Prefect.

Each part is learnt by itself: one that cannot be is `Unknown` with its reason, and the others are shown.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from blocks.approvals.chain import decisions_of
from blocks.common.errors import NotFound, PortError
from blocks.effects.base import Deployment
from blocks.environment import Environment
from tasks.approval.rules.history import champion_of
from tasks.dashboard.rules.episodes import AlertEpisode, alert_episodes_of
from tasks.dashboard.rules.facts import (
    CostHistory,
    DashboardData,
    DatasetSummary,
    DecisionSummary,
    DeployedVersionSummary,
    ReleaseSummary,
    SnapshotSummary,
    Unknown,
)
from tasks.dashboard.schedule import scheduled_runs
from tasks.dashboard.traffic import inference_log_summary, request_history
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.requests import inference_dataset
from tasks.shared.models import TeamModel
from tasks.shared.monitoring_history import monitoring_runs_since
from tasks.shared.rules.cost.spent import monthly_costs
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal

_log = logging.getLogger("ratchet.dashboard")

HISTORY_SHOWN = timedelta(days=90)
"""How far back looks and alerts are shown."""

T = TypeVar("T")


def gather_dashboard_data(env: Environment, model: TeamModel, now: datetime) -> DashboardData:
    """Return all that can be learnt of a model now."""
    spec = model.spec
    lines = or_unknown("releases", lambda: env.effects().deployments(spec.name, env.name))
    serving = (
        lines if isinstance(lines, Unknown) else or_unknown("serving", lambda: deployed_version(env, spec.name, lines))
    )
    return DashboardData(
        model=spec.name,
        environment=env.name,
        description=spec.description,
        owner=spec.owner,
        drawn_at=now,
        deployed=serving,
        releases=lines if isinstance(lines, Unknown) else tuple(map(to_release, lines)),
        alerts=or_unknown("alerts", lambda: alert_episodes(env, spec.name, now - HISTORY_SHOWN)),
        traffic=or_unknown("traffic", lambda: request_history(env, spec, now)),
        inference_log=or_unknown("inference log", lambda: inference_log_summary(env, spec, now)),
        monitoring_runs=or_unknown("looks", lambda: monitoring_runs_since(env, spec.name, now - HISTORY_SHOWN)),
        data=or_unknown("data", lambda: tuple(dataset_summaries(env, spec))),
        costs=or_unknown(
            "cost", lambda: CostHistory(monthly_costs(env.tracking().runs(spec.name)), spec.budget.per_month_usd)
        ),
        schedule=or_unknown("schedule", lambda: scheduled_runs(spec.name)),
        drift_threshold=MonitoringRules().psi_threshold,
        links=version_links(env, spec.name, serving),
    )


def or_unknown(name: str, load: Callable[[], T]) -> T | Unknown:
    """Return what is asked for, or that it is unknown and why: whatever goes wrong, the other parts are shown."""
    try:
        return load()
    except (PortError, Refusal) as problem:
        reason = str(problem)
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}"
    _log.warning("the dashboard cannot show %s: %s", name, reason)
    return Unknown(reason)


def deployed_version(env: Environment, model: str, lines: tuple[Deployment, ...]) -> DeployedVersionSummary | None:
    """Return the version that serves by the ledger and who approved it; None when none does."""
    version = champion_of(lines)
    if not version:
        return None
    line = next(each for each in lines if (each.version, each.status) == (version, "serving"))
    return DeployedVersionSummary(
        release=to_release(line),
        digest=line.digest,
        requested_by=or_unknown("request", lambda: env.approvals().approval_request(line.request_id).requested_by),
        decisions=or_unknown("decisions", lambda: request_deciders(env, line.request_id)),
        endpoint_version=or_unknown("endpoint", lambda: endpoint_version(env, model)),
    )


def endpoint_version(env: Environment, model: str) -> str:
    """Return the version that the endpoint itself says it answers with; "" for none."""
    found = env.endpoint().live_version(model)
    return found.version if found else ""


def to_release(line: Deployment) -> ReleaseSummary:
    """Return a line of the ledger as it is shown."""
    return ReleaseSummary(line.version, line.action, line.status, line.by, line.reason, line.at)


def request_deciders(env: Environment, request_id: str) -> tuple[DecisionSummary, ...]:
    """Return who decided on a request, in order."""
    return tuple(
        DecisionSummary(each.by, each.at, each.approved, each.reason, each.channel, each.authenticated)
        for each in decisions_of(env.approvals().links(request_id))
    )


def alert_episodes(env: Environment, model: str, since: datetime) -> tuple[AlertEpisode, ...]:
    """Return the alerts and news of a model that are open or newer than a time, oldest first."""
    outbox, found = env.outbox(), []
    for cause in outbox.causes(since):
        signals = outbox.signals(cause)
        if signals and (signals[0].model, signals[0].environment) == (model, env.name):
            found += [each for each in alert_episodes_of(signals) if each.is_open or each.begin >= since]
    return tuple(sorted(found, key=lambda each: each.begin))


def dataset_summaries(env: Environment, spec: ModelSpec) -> Iterator[DatasetSummary]:
    """Yield the data sets of a model: its rows, its further tables, and what it was asked and answered."""
    uses = {spec.data.dataset: "the rows that it learns from"}
    uses |= {table.dataset: f"table {name}" for name, table in spec.data.tables.items()}
    uses |= {inference_dataset(spec): "requests and answers"}
    for name, use in uses.items():
        try:
            snapshots = env.lake().as_of(name).snapshots
        except NotFound:
            yield DatasetSummary(name, use, (), 0)
            continue
        landings = tuple(SnapshotSummary(each.created_at, each.rows, each.source) for each in snapshots)
        yield DatasetSummary(name, use, landings, or_unknown(f"size of {name}", partial(dataset_bytes, env, name)))


def dataset_bytes(env: Environment, dataset: str) -> int:
    """Return what a data set takes."""
    return env.lake().storage_use(dataset).stored.size_bytes


def version_links(env: Environment, model: str, serving: DeployedVersionSummary | Unknown | None) -> dict[str, str]:
    """Return addresses: of the version that serves, where it has a page."""
    if not isinstance(serving, DeployedVersionSummary):
        return {}
    found = or_unknown("version's page", lambda: env.tracking().version(model, serving.release.version))
    return {"version in MLflow": found.url} if found is not None and not isinstance(found, Unknown) else {}
