"""How often a model was asked: as its endpoint counted, and by what the inference log in the lake holds."""

from datetime import datetime, timedelta

from blocks.common.errors import NotFound
from blocks.environment import Environment
from tasks.dashboard.rules.facts import InferenceLogSummary, RequestHistory
from tasks.monitoring.rules.requests import MODEL_VERSION_COLUMN, REQUEST_COLUMN, REQUESTED_AT_COLUMN, inference_dataset
from tasks.monitoring.rules.traffic import TRAFFIC_LOOKBACK, RequestStep, even_request_steps, finest_step, step_starts
from tasks.monitoring.rules.windows import TimeSpan, window_index_sql
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

_MICROSECOND = timedelta(microseconds=1)
"""A span leaves out its start and has its end in it: the other way round by moving both."""


def request_history(env: Environment, spec: ModelSpec, now: datetime) -> RequestHistory:
    """Return the requests over time: as the endpoint counted them, else by the inference log."""
    counted = even_request_steps(env.endpoint().traffic(spec.name), now)
    return (
        RequestHistory(counted, has_errors_and_latency=True)
        if counted
        else RequestHistory(logged_request_steps(env, spec, now), has_errors_and_latency=False)
    )


def logged_request_steps(env: Environment, spec: ModelSpec, now: datetime) -> tuple[RequestStep, ...]:
    """Return the requests that the inference log holds, in even steps; none where it holds none."""
    files = inference_log_files(env, spec)
    recent = f"WHERE {sql.quoted_name(REQUESTED_AT_COLUMN)} >= {sql.timestamp_literal(now - TRAFFIC_LOOKBACK)}"
    first = (
        env.engine().query(
            sql.select_sql(f"min({sql.quoted_name(REQUESTED_AT_COLUMN)}) AS earliest", "rows", recent), {"rows": files}
        )
        if files
        else None
    )
    if first is None or (begin := first["earliest"][0].as_py()) is None:
        return ()
    step, starts = finest_step(begin, now), step_starts(begin, now)
    number = window_index_sql([TimeSpan(start - _MICROSECOND, start + step - _MICROSECOND) for start in starts])
    query = sql.select_sql(
        f"{number} AS place, count(DISTINCT {sql.quoted_name(REQUEST_COLUMN)}) AS asked", "rows", recent, "GROUP BY 1"
    )
    asked = {row["place"]: row["asked"] for row in env.engine().query(query, {"rows": files}).to_pylist()}
    return tuple(RequestStep(at, int(step.total_seconds()), asked.get(place, 0)) for place, at in enumerate(starts))


def inference_log_summary(env: Environment, spec: ModelSpec, now: datetime) -> tuple[InferenceLogSummary, ...]:
    """Return what the inference log holds of each version in the time that is shown, the newest first."""
    files = inference_log_files(env, spec)
    if not files:
        return ()
    at, version = sql.quoted_name(REQUESTED_AT_COLUMN), sql.quoted_name(MODEL_VERSION_COLUMN)
    what = f"{version} AS version, count(DISTINCT {sql.quoted_name(REQUEST_COLUMN)}) AS requests, count(*) AS found, max({at}) AS newest"
    query = sql.select_sql(
        what,
        "rows",
        f"WHERE {at} >= {sql.timestamp_literal(now - TRAFFIC_LOOKBACK)}",
        "GROUP BY 1",
        "ORDER BY 4 DESC, 1",
    )
    return tuple(
        InferenceLogSummary(row["version"], row["requests"], row["found"], row["newest"])
        for row in env.engine().query(query, {"rows": files}).to_pylist()
    )


def inference_log_files(env: Environment, spec: ModelSpec) -> tuple[str, ...]:
    """Return the files of the model's inference log; none before anything was collected."""
    lake = env.lake()
    try:
        return lake.files(lake.as_of(inference_dataset(spec)))
    except NotFound:
        return ()
