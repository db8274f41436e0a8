"""The rows that are looked at: windows of the inference log, or any data set of the lake as of a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blocks.common.errors import NotFound
from blocks.engines.base import Engine
from blocks.environment import Environment
from tasks.monitoring.rules.checks import check_freshness, check_rows, check_schema, check_unseen, check_volume
from tasks.monitoring.rules.columns import Counts, WatchedColumn
from tasks.monitoring.rules.counting import counts_sql, read_counts, unseen_sql, with_unseen
from tasks.monitoring.rules.findings import Finding, WatchRules
from tasks.monitoring.rules.requests import AT, REQUEST, ROW, VERSION, dataset_of, kept_features
from tasks.monitoring.rules.windows import Span, newest_windows, of_version, window_number
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

_EARLIER = 7
"""Windows before those that are judged, from which the usual number of rows is taken."""


@dataclass(frozen=True)
class Current:
    """The rows that are looked at.

    Attributes:
        where: the rows in words.
        files: the Parquet files, as table `rows` of the engine.
        source: the judged rows as a table in SQL; "" when there are none.
        columns: the watched columns that the rows have, as they are read.
        windows: the counts by column of each judged window, newest first.
        rows: the rows of each judged window.
        findings: what is wrong before anything is compared.
        notes: what is not looked at, by choice.
        key: the columns that tell one row from another, by whose hash a sample is taken.
    """

    where: str
    files: tuple[str, ...] = ()
    source: str = ""
    columns: tuple[WatchedColumn, ...] = ()
    windows: tuple[dict[str, Counts], ...] = ()
    rows: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())
    key: tuple[str, ...] = (REQUEST, ROW)


def log_windows(
    world: Environment,
    spec: ModelSpec,
    version: str,
    columns: Sequence[WatchedColumn],
    rules: WatchRules,
    *,
    until: datetime,
    length: timedelta,
) -> Current:
    """Count the newest windows of what the version was asked."""
    where = f"{rules.windows} windows of {length} of the inference log, up to {until:%Y-%m-%d %H:%M:%S} UTC"
    kept = kept_features(spec)
    away = [name for name in spec.data.features if name not in kept]
    notes = (f"Hashed or left out of the log, as model.yaml says: {', '.join(away)}.",) if away else ()
    watched = tuple(each for each in columns if each.prediction or each.name in kept)
    try:
        read = world.lake().as_of(dataset_of(spec))
    except NotFound:
        return Current(where, findings=tuple(check_freshness(None, until, length)), notes=notes)
    files, engine = world.lake().files(read), world.engine()
    spans = newest_windows(until, length, rules.windows + _EARLIER)
    asked = of_version(version, spans)
    answer = engine.query(counts_sql(watched, asked, window_number(spans)), {"rows": files}).to_pylist()
    found = read_counts(watched, answer)
    windows = [found.get(place, {}) for place in range(len(spans))]
    rows = [_rows(window) for window in windows]
    judged = tuple(rows[: rules.windows])
    stale = check_freshness(_newest(engine, files, version, until), until, length)
    findings = [
        *check_schema({each.name: each.kind for each in watched}, dict(read.schema), where),
        *(stale or [*check_rows(judged, rules), *check_volume(rows[0], rows[1:], rules)]),
    ]
    source = of_version(version, spans[: rules.windows])
    told = _with_unseen(engine, files, source, watched, windows[: rules.windows], rules)
    return Current(where, files, source, watched, tuple(told), judged, tuple(findings), notes)


def lake_rows(
    world: Environment,
    spec: ModelSpec,
    columns: Sequence[WatchedColumn],
    rules: WatchRules,
    *,
    dataset: str,
    as_of: str,
) -> Current:
    """Count the rows of a data set as of a time, as one window."""
    read = world.lake().as_of(dataset, as_of or None)
    there = dict(read.schema)
    where = f"{read.rows:,} rows of {dataset} as of {read.id}"
    kinds = {each.name: spec.data.features[each.name] for each in columns if not each.prediction}
    wrong = check_schema(kinds, there, where)
    unfit = {finding.column for finding in wrong}
    watched = tuple(each for each in columns if each.name in there and each.name not in unfit)
    silent = [each.name for each in columns if each.prediction and each.name not in there]
    notes = (f"{dataset} holds no predictions: {', '.join(silent)}.",) if silent else ()
    files, engine = world.lake().files(read), world.engine()
    if not watched:
        return Current(where, files, findings=tuple(wrong), notes=notes)
    found = read_counts(watched, engine.query(counts_sql(watched, "rows"), {"rows": files}).to_pylist())
    windows = [found.get(0, {})]
    rows = (_rows(windows[0]),)
    told = _with_unseen(engine, files, "rows", watched, windows, rules)
    found_all = (*wrong, *check_rows(rows, rules))
    key = (spec.data.entity,) if spec.data.entity in there else tuple(each.name for each in watched)
    return Current(where, files, "rows", watched, tuple(told), rows, found_all, notes, key)


def counts_in(
    engine: Engine, files: tuple[str, ...], version: str, column: WatchedColumn, spans: Sequence[Span]
) -> dict[int, Counts]:
    """Return the counts of one column in spans of time, by the place of the span."""
    query = counts_sql([column], of_version(version, spans), window_number(spans))
    found = read_counts([column], engine.query(query, {"rows": files}).to_pylist())
    return {place: window[column.name] for place, window in found.items() if place >= 0}


def _newest(engine: Engine, files: tuple[str, ...], version: str, until: datetime) -> datetime | None:
    before = f"{sql.name(AT)} <= CAST({sql.text(until.isoformat())} AS TIMESTAMPTZ)"
    query = sql.select(
        f"max({sql.name(AT)}) AS newest", "rows", f"WHERE {sql.name(VERSION)} = {sql.text(version)} AND {before}"
    )
    newest: datetime | None = engine.query(query, {"rows": files})["newest"][0].as_py()
    return newest


def _rows(window: dict[str, Counts]) -> int:
    return max((counts.rows for counts in window.values()), default=0)


def _with_unseen(
    engine: Engine,
    files: tuple[str, ...],
    source: str,
    columns: Sequence[WatchedColumn],
    windows: Sequence[dict[str, Counts]],
    rules: WatchRules,
) -> list[dict[str, Counts]]:
    """Return the windows with a few of the values that the reference does not have, where there are enough of them."""
    told = list(windows)
    for column in columns:
        alone = [column]
        if any(check_unseen(alone, window, rules) for window in windows):
            values = engine.query(unseen_sql(column, source), {"rows": files}).to_pylist()
            named = [(row["value"], row["found"]) for row in values]
            told = [with_unseen(window, column.name, named) if column.name in window else window for window in told]
    return told
