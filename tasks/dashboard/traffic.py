"""How often a model was asked: as its endpoint counted, and by what the inference log in the lake holds."""

from datetime import datetime, timedelta

from blocks.common.errors import NotFound
from blocks.environment import Environment
from tasks.dashboard.rules.facts import LoggedRows, Traffic
from tasks.monitoring.rules.requests import AT, REQUEST, VERSION, dataset_of
from tasks.monitoring.rules.traffic import FURTHEST, Stretch, step_for, steps_between, stretches
from tasks.monitoring.rules.windows import Span, window_number
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

_TICK = timedelta(microseconds=1)
"""A span leaves out its start and has its end in it: the other way round by moving both."""


def traffic(world: Environment, spec: ModelSpec, now: datetime) -> Traffic:
    """Return the requests over time: as the endpoint counted them, else by the inference log."""
    counted = stretches(world.endpoint().traffic(spec.name), now)
    return Traffic(counted, counted=True) if counted else Traffic(logged_stretches(world, spec, now), counted=False)


def logged_stretches(world: Environment, spec: ModelSpec, now: datetime) -> tuple[Stretch, ...]:
    """Return the requests that the inference log holds, in even steps; none where it holds none."""
    files = log_files(world, spec)
    recent = f"WHERE {sql.name(AT)} >= {sql.moment(now - FURTHEST)}"
    first = (
        world.engine().query(sql.select(f"min({sql.name(AT)}) AS earliest", "rows", recent), {"rows": files})
        if files
        else None
    )
    if first is None or (begin := first["earliest"][0].as_py()) is None:
        return ()
    step, starts = step_for(begin, now), steps_between(begin, now)
    number = window_number([Span(start - _TICK, start + step - _TICK) for start in starts])
    query = sql.select(f"{number} AS place, count(DISTINCT {sql.name(REQUEST)}) AS asked", "rows", recent, "GROUP BY 1")
    asked = {row["place"]: row["asked"] for row in world.engine().query(query, {"rows": files}).to_pylist()}
    return tuple(Stretch(at, int(step.total_seconds()), asked.get(place, 0)) for place, at in enumerate(starts))


def logged_rows(world: Environment, spec: ModelSpec, now: datetime) -> tuple[LoggedRows, ...]:
    """Return what the inference log holds of each version in the time that is shown, the newest first."""
    files = log_files(world, spec)
    if not files:
        return ()
    at, version = sql.name(AT), sql.name(VERSION)
    what = (
        f"{version} AS version, count(DISTINCT {sql.name(REQUEST)}) AS requests, count(*) AS found, max({at}) AS newest"
    )
    query = sql.select(what, "rows", f"WHERE {at} >= {sql.moment(now - FURTHEST)}", "GROUP BY 1", "ORDER BY 4 DESC, 1")
    return tuple(
        LoggedRows(row["version"], row["requests"], row["found"], row["newest"])
        for row in world.engine().query(query, {"rows": files}).to_pylist()
    )


def log_files(world: Environment, spec: ModelSpec) -> tuple[str, ...]:
    """Return the files of the model's inference log; none before anything was collected."""
    lake = world.lake()
    try:
        return lake.files(lake.as_of(dataset_of(spec)))
    except NotFound:
        return ()
