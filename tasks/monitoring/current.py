"""The rows that are looked at: windows of the inference log, or any data set of the lake as of a time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from blocks.common.errors import NotFound
from blocks.engines.base import Engine
from blocks.environment import Environment
from tasks.monitoring.rules.checks import (
    check_freshness,
    check_schema,
    check_unseen_values,
    check_volume,
    check_window_rows,
)
from tasks.monitoring.rules.columns import BinCounts, MonitoredColumn
from tasks.monitoring.rules.counting import counts_sql, read_counts, unseen_sql, with_unseen
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.requests import (
    MODEL_VERSION_COLUMN,
    REQUEST_COLUMN,
    REQUEST_ROW_COLUMN,
    REQUESTED_AT_COLUMN,
    inference_dataset,
    logged_features,
)
from tasks.monitoring.rules.windows import TimeSpan, newest_windows, version_requests_sql, window_index_sql
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

_BASELINE_WINDOWS = 7
"""Windows before those that are judged, from which the usual number of rows is taken."""


@dataclass(frozen=True)
class CurrentData:
    """The rows that are looked at.

    Attributes:
        description: the rows in words.
        files: the Parquet files, as table `rows_per_window` of the engine.
        source_sql: the judged rows as a table in SQL; "" when there are none.
        columns: the watched columns that the rows have, as they are read.
        counts_by_window: the counts by column of each judged window, newest first.
        rows_per_window: the rows of each judged window.
        findings: what is wrong before anything is compared.
        notes: what is not looked at, by choice.
        sampling_key: the columns that tell one row from another, by whose hash a sample is taken.
    """

    description: str
    files: tuple[str, ...] = ()
    source_sql: str = ""
    columns: tuple[MonitoredColumn, ...] = ()
    counts_by_window: tuple[dict[str, BinCounts], ...] = ()
    rows_per_window: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = field(default=())
    sampling_key: tuple[str, ...] = (REQUEST_COLUMN, REQUEST_ROW_COLUMN)


def count_log_windows(
    env: Environment,
    spec: ModelSpec,
    version: str,
    columns: Sequence[MonitoredColumn],
    rules: MonitoringRules,
    *,
    until: datetime,
    window_length: timedelta,
) -> CurrentData:
    """Count the newest windows of what the version was asked."""
    where = f"{rules.windows} windows of {window_length} of the inference log, up to {until:%Y-%m-%d %H:%M:%S} UTC"
    kept = logged_features(spec)
    hidden_features = [name for name in spec.data.features if name not in kept]
    notes = (
        (f"Hashed or left out of the log, as model.yaml says: {', '.join(hidden_features)}.",)
        if hidden_features
        else ()
    )
    watched = tuple(each for each in columns if each.is_prediction or each.name in kept)
    try:
        read = env.lake().as_of(inference_dataset(spec))
    except NotFound:
        return CurrentData(where, findings=tuple(check_freshness(None, until, window_length)), notes=notes)
    files, engine = env.lake().files(read), env.engine()
    spans = newest_windows(until, window_length, rules.windows + _BASELINE_WINDOWS)
    requests_sql = version_requests_sql(version, spans)
    count_rows = engine.query(counts_sql(watched, requests_sql, window_index_sql(spans)), {"rows": files}).to_pylist()
    found = read_counts(watched, count_rows)
    windows = [found.get(place, {}) for place in range(len(spans))]
    rows = [_window_rows(window) for window in windows]
    rows_per_window = tuple(rows[: rules.windows])
    stale = check_freshness(_newest_request_time(engine, files, version, until), until, window_length)
    findings = [
        *check_schema({each.name: each.kind for each in watched}, dict(read.schema), where),
        *(stale or [*check_window_rows(rows_per_window, rules), *check_volume(rows[0], rows[1:], rules)]),
    ]
    source = version_requests_sql(version, spans[: rules.windows])
    counts_with_unseen = _with_unseen_values(engine, files, source, watched, windows[: rules.windows], rules)
    return CurrentData(
        where, files, source, watched, tuple(counts_with_unseen), rows_per_window, tuple(findings), notes
    )


def count_lake_rows(
    env: Environment,
    spec: ModelSpec,
    columns: Sequence[MonitoredColumn],
    rules: MonitoringRules,
    *,
    dataset: str,
    as_of: str,
) -> CurrentData:
    """Count the rows of a data set as of a time, as one window."""
    read = env.lake().as_of(dataset, as_of or None)
    available_columns = dict(read.schema)
    where = f"{read.rows:,} rows of {dataset} as of {read.id}"
    kinds = {each.name: spec.data.features[each.name] for each in columns if not each.is_prediction}
    schema_findings = check_schema(kinds, available_columns, where)
    unusable_columns = {finding.column for finding in schema_findings}
    watched = tuple(each for each in columns if each.name in available_columns and each.name not in unusable_columns)
    missing_predictions = [each.name for each in columns if each.is_prediction and each.name not in available_columns]
    notes = (f"{dataset} holds no predictions: {', '.join(missing_predictions)}.",) if missing_predictions else ()
    files, engine = env.lake().files(read), env.engine()
    if not watched:
        return CurrentData(where, files, findings=tuple(schema_findings), notes=notes)
    found = read_counts(watched, engine.query(counts_sql(watched, "rows"), {"rows": files}).to_pylist())
    windows = [found.get(0, {})]
    rows = (_window_rows(windows[0]),)
    told = _with_unseen_values(engine, files, "rows", watched, windows, rules)
    findings = (*schema_findings, *check_window_rows(rows, rules))
    key = (spec.data.entity,) if spec.data.entity in available_columns else tuple(each.name for each in watched)
    return CurrentData(where, files, "rows", watched, tuple(told), rows, findings, notes, key)


def column_counts_by_span(
    engine: Engine, files: tuple[str, ...], version: str, column: MonitoredColumn, spans: Sequence[TimeSpan]
) -> dict[int, BinCounts]:
    """Return the counts of one column in spans of time, by the place of the span."""
    query = counts_sql([column], version_requests_sql(version, spans), window_index_sql(spans))
    found = read_counts([column], engine.query(query, {"rows": files}).to_pylist())
    return {place: window[column.name] for place, window in found.items() if place >= 0}


def _newest_request_time(engine: Engine, files: tuple[str, ...], version: str, until: datetime) -> datetime | None:
    before = f"{sql.quoted_name(REQUESTED_AT_COLUMN)} <= CAST({sql.text_literal(until.isoformat())} AS TIMESTAMPTZ)"
    query = sql.select_sql(
        f"max({sql.quoted_name(REQUESTED_AT_COLUMN)}) AS newest",
        "rows",
        f"WHERE {sql.quoted_name(MODEL_VERSION_COLUMN)} = {sql.text_literal(version)} AND {before}",
    )
    newest: datetime | None = engine.query(query, {"rows": files})["newest"][0].as_py()
    return newest


def _window_rows(window: dict[str, BinCounts]) -> int:
    return max((counts.rows for counts in window.values()), default=0)


def _with_unseen_values(
    engine: Engine,
    files: tuple[str, ...],
    source: str,
    columns: Sequence[MonitoredColumn],
    windows: Sequence[dict[str, BinCounts]],
    rules: MonitoringRules,
) -> list[dict[str, BinCounts]]:
    """Return the windows with a few of the values that the reference does not have, where there are enough of them."""
    told = list(windows)
    for column in columns:
        alone = [column]
        if any(check_unseen_values(alone, window, rules) for window in windows):
            values = engine.query(unseen_sql(column, source), {"rows": files}).to_pylist()
            named = [(row["value"], row["found"]) for row in values]
            told = [with_unseen(window, column.name, named) if column.name in window else window for window in told]
    return told
