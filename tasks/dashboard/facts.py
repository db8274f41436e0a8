"""Gather the data of a model's dashboard from the ledger, the lake, the endpoint, MLflow and Prefect.

Each part is read independently. A part that cannot be read is `Unknown` with its reason; the others are shown.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from blocks.approvals.chain import decisions_of
from blocks.common.errors import NotFound, PortError
from blocks.environment import Environment
from blocks.records.deployments import Deployment
from blocks.records.traffic import TrafficInterval
from blocks.tracking.base import CHAMPION_ALIAS
from tasks.approval.rules.history import champion_of
from tasks.approval.rules.names import shown_name
from tasks.dashboard.rules.facts import (
    AlertEpisode,
    CostHistory,
    DashboardData,
    DatasetSummary,
    DeployedVersionSummary,
    InferenceLogSummary,
    RequestHistory,
    SnapshotSummary,
    Unknown,
    alert_episodes_of,
)
from tasks.dashboard.rules.traffic import TRAFFIC_LOOKBACK, even_request_steps, finest_step, step_starts
from tasks.dashboard.schedule import scheduled_runs
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.requests import (
    MODEL_VERSION_COLUMN,
    REQUEST_COLUMN,
    REQUESTED_AT_COLUMN,
    TimeSpan,
    inference_dataset,
    window_index_sql,
)
from tasks.shared.models import TeamModel
from tasks.shared.monitoring_history import monitoring_runs_since
from tasks.shared.rules import sql
from tasks.shared.rules.cost.spent import monthly_costs
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal

_log = logging.getLogger("ratchet.dashboard")

HISTORY_SHOWN = timedelta(days=90)
"""The time range of monitoring runs and alerts."""

T = TypeVar("T")


def gather_dashboard_data(env: Environment, model: TeamModel, now: datetime) -> DashboardData:
    """Return the dashboard's data of a model at `now`."""
    spec = model.spec
    lines = or_unknown("releases", lambda: env.effects().deployments(spec.name, env.name))
    serving = (
        lines
        if isinstance(lines, Unknown)
        else or_unknown("deployed version", lambda: deployed_version(env, spec.name, lines))
    )
    return DashboardData(
        model=spec.name,
        environment=env.name,
        description=spec.description,
        owner=spec.owner,
        drawn_at=now,
        deployed=serving,
        releases=lines,
        alerts=or_unknown("alerts", lambda: alert_episodes(env, spec.name, now - HISTORY_SHOWN)),
        traffic=or_unknown("traffic", lambda: request_history(env, spec, now)),
        inference_log=or_unknown("inference log", lambda: inference_log_summary(env, spec, now)),
        monitoring_runs=or_unknown(
            "monitoring history", lambda: monitoring_runs_since(env, spec.name, now - HISTORY_SHOWN)
        ),
        data=or_unknown("data", lambda: tuple(dataset_summaries(env, spec))),
        costs=or_unknown(
            "cost", lambda: CostHistory(monthly_costs(env.tracking().runs(spec.name)), spec.budget.per_month_usd)
        ),
        schedule=or_unknown("schedule", lambda: scheduled_runs(spec.name)),
        drift_threshold=MonitoringRules().psi_threshold,
        links=version_links(env, spec.name, serving),
    )


def or_unknown(name: str, load: Callable[[], T]) -> T | Unknown:
    """Return the loaded part, or `Unknown` with the reason after any error."""
    try:
        return load()
    except (PortError, Refusal) as problem:
        reason = str(problem)
    except Exception as problem:
        reason = f"{type(problem).__name__}: {problem}"
    _log.warning("the dashboard cannot show %s: %s", name, reason)
    return Unknown(reason)


def _requester(env: Environment, request_id: str) -> str:
    request = env.approvals().get_request(request_id)
    return shown_name(request.requested_by, authenticated=request.requester_authenticated)


def deployed_version(env: Environment, model: str, lines: tuple[Deployment, ...]) -> DeployedVersionSummary | None:
    """Return the deployed version according to the ledger, with its approvers; None when there is none."""
    version = champion_of(lines)
    if not version:
        return None
    line = next(each for each in lines if (each.version, each.status) == (version, "serving"))
    return DeployedVersionSummary(
        release=line,
        requested_by=or_unknown("request", lambda: _requester(env, line.request_id)),
        decisions=or_unknown("decisions", lambda: decisions_of(env.approvals().chain_entries(line.request_id))),
        endpoint_version=or_unknown("endpoint", lambda: endpoint_version(env, model)),
        registry_version=or_unknown("registry", lambda: registry_version(env, model)),
    )


def endpoint_version(env: Environment, model: str) -> str:
    """Return the version that the endpoint itself reports; "" for none."""
    live = env.endpoint().live_version(model)
    return live.version if live else ""


def registry_version(env: Environment, model: str) -> str:
    """Return the version that the registry names as champion; "" for none."""
    named = env.tracking().version(model, f"@{CHAMPION_ALIAS}")
    return named.version if named else ""


def alert_episodes(env: Environment, model: str, since: datetime) -> tuple[AlertEpisode, ...]:
    """Return the alerts and news of a model that are open or began after `since`, oldest first."""
    outbox, episodes = env.outbox(), []
    for cause in outbox.active_causes(since):
        signals = outbox.signals(cause)
        if signals and (signals[0].model, signals[0].environment) == (model, env.name):
            episodes += [each for each in alert_episodes_of(signals) if each.is_open or each.begin >= since]
    return tuple(sorted(episodes, key=lambda each: each.begin))


def dataset_summaries(env: Environment, spec: ModelSpec) -> Iterator[DatasetSummary]:
    """Yield the data sets of a model: its main table, its joined tables and its inference log."""
    uses = {spec.data.dataset: "main table, with the training rows"}
    uses |= {table.dataset: f"table {name}" for name, table in spec.data.tables.items()}
    uses |= {inference_dataset(spec): "inference log"}
    for name, use in uses.items():
        try:
            snapshots = env.lake().as_of(name).snapshots
        except NotFound:
            yield DatasetSummary(name, use, (), 0)
            continue
        summaries = tuple(SnapshotSummary(each.created_at, each.rows, each.source) for each in snapshots)
        yield DatasetSummary(name, use, summaries, or_unknown(f"size of {name}", partial(dataset_bytes, env, name)))


def dataset_bytes(env: Environment, dataset: str) -> int:
    """Return the stored bytes of a data set."""
    return env.lake().storage_use(dataset).stored.size_bytes


def version_links(env: Environment, model: str, serving: DeployedVersionSummary | Unknown | None) -> dict[str, str]:
    """Return the link to the deployed version in MLflow, if it has one."""
    if not isinstance(serving, DeployedVersionSummary):
        return {}
    version = or_unknown("version's page", lambda: env.tracking().version(model, serving.release.version))
    return {"version in MLflow": version.url} if version is not None and not isinstance(version, Unknown) else {}


_MICROSECOND = timedelta(microseconds=1)
"""Shifts both ends of a span, which excludes its start and includes its end, so that it does the reverse."""


def request_history(env: Environment, spec: ModelSpec, now: datetime) -> RequestHistory:
    """Return the requests over time, from the endpoint's counts, or else from the inference log."""
    counted = even_request_steps(env.endpoint().traffic(spec.name), now)
    return (
        RequestHistory(counted, has_errors_and_latency=True)
        if counted
        else RequestHistory(logged_request_steps(env, spec, now), has_errors_and_latency=False)
    )


def logged_request_steps(env: Environment, spec: ModelSpec, now: datetime) -> tuple[TrafficInterval, ...]:
    """Return the requests of the inference log in even steps; empty without requests."""
    files = inference_log_files(env, spec)
    if not files:
        return ()
    column = sql.quoted_name(REQUESTED_AT_COLUMN)
    recent = f"WHERE {column} >= {sql.timestamp_literal(now - TRAFFIC_LOOKBACK)}"
    first = env.engine().query(sql.select_sql(f"min({column}) AS earliest", "rows", recent), {"rows": files})
    if (begin := first["earliest"][0].as_py()) is None:
        return ()
    step, starts = finest_step(begin, now), step_starts(begin, now)
    number = window_index_sql([TimeSpan(start - _MICROSECOND, start + step - _MICROSECOND) for start in starts])
    query = sql.select_sql(
        f"{number} AS place, count(DISTINCT {sql.quoted_name(REQUEST_COLUMN)}) AS requests",
        "rows",
        recent,
        "GROUP BY 1",
    )
    counts = {row["place"]: row["requests"] for row in env.engine().query(query, {"rows": files}).to_pylist()}
    return tuple(
        TrafficInterval(at, int(step.total_seconds()), counts.get(place, 0), 0, 0) for place, at in enumerate(starts)
    )


def inference_log_summary(env: Environment, spec: ModelSpec, now: datetime) -> tuple[InferenceLogSummary, ...]:
    """Return the contents of the inference log by version, the newest first."""
    files = inference_log_files(env, spec)
    if not files:
        return ()
    at, version = sql.quoted_name(REQUESTED_AT_COLUMN), sql.quoted_name(MODEL_VERSION_COLUMN)
    requests = f"count(DISTINCT {sql.quoted_name(REQUEST_COLUMN)}) AS requests"
    columns = f"{version} AS version, {requests}, count(*) AS total, max({at}) AS newest"
    query = sql.select_sql(
        columns,
        "rows",
        f"WHERE {at} >= {sql.timestamp_literal(now - TRAFFIC_LOOKBACK)}",
        "GROUP BY 1",
        "ORDER BY 4 DESC, 1",
    )
    return tuple(
        InferenceLogSummary(row["version"], row["requests"], row["total"], row["newest"])
        for row in env.engine().query(query, {"rows": files}).to_pylist()
    )


def inference_log_files(env: Environment, spec: ModelSpec) -> tuple[str, ...]:
    """Return the files of the model's inference log; none before it was ingested."""
    lake = env.lake()
    try:
        return lake.files(lake.as_of(inference_dataset(spec)))
    except NotFound:
        return ()
