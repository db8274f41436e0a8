"""The current data of a monitoring run: ingest the inference log, and count its windows or a data set of the lake."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from blocks.common.errors import Corrupt, NotFound
from blocks.endpoints.base import Endpoint
from blocks.engines.base import Engine
from blocks.environment import Environment
from blocks.lake.base import Lake
from blocks.tracking.base import Tracking
from tasks.monitoring.rules.columns import (
    UNSEEN_SHOWN,
    BinCounts,
    MonitoredColumn,
    QueryFunction,
    count_windows,
    in_parts,
    values_sql,
    with_unseen,
)
from tasks.monitoring.rules.drift import (
    check_freshness,
    check_schema,
    check_volume,
    check_window_rows,
    has_unseen_values,
)
from tasks.monitoring.rules.findings import Finding, MonitoringRules
from tasks.monitoring.rules.requests import (
    MODEL_VERSION_COLUMN,
    REQUEST_COLUMN,
    REQUEST_ROW_COLUMN,
    REQUESTED_AT_COLUMN,
    TimeSpan,
    inference_dataset,
    inference_log_table,
    logged_features,
    newest_windows,
    newest_windows_text,
    version_requests_sql,
    window_index_sql,
)
from tasks.shared.champion import knows_forms
from tasks.shared.records import InferenceLogResult
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec

_BASELINE_WINDOWS = 7
"""The number of windows before the compared ones, from which the usual number of rows is taken."""


@dataclass(frozen=True)
class CurrentData:
    """The current data.

    Attributes:
        description: the rows in words.
        files: the Parquet files: the table `rows` in SQL.
        source_sql: the compared rows as a table in SQL; "" when there are none.
        columns: the monitored columns that the rows have.
        counts_by_window: the counts by column of each compared window, newest first.
        rows_per_window: the number of rows of each compared window.
        findings: problems found before the comparison.
        notes: what is not monitored by configuration.
        sampling_key: the columns that identify a row. Samples are taken by a hash of them.
    """

    description: str
    files: tuple[str, ...] = ()
    source_sql: str = ""
    columns: tuple[MonitoredColumn, ...] = ()
    counts_by_window: tuple[dict[str, BinCounts], ...] = ()
    rows_per_window: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
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
    """Count the inference requests of a version in the newest windows."""
    where = (
        f"{newest_windows_text(rules.windows, window_length)} of the inference log, up to {until:%Y-%m-%d %H:%M:%S} UTC"
    )
    logged = logged_features(spec)
    hidden_features = [name for name in spec.data.features if name not in logged]
    notes = (
        (f"Hashed in or excluded from the log by model.yaml: {', '.join(hidden_features)}.",) if hidden_features else ()
    )
    monitored = tuple(each for each in columns if each.is_prediction or each.name in logged)
    try:
        read = env.lake().as_of(inference_dataset(spec))
    except NotFound:
        return CurrentData(where, findings=tuple(check_freshness(None, until, window_length)), notes=notes)
    files, engine = env.lake().files(read), env.engine()
    spans = newest_windows(until, window_length, rules.windows + _BASELINE_WINDOWS)
    requests_sql = version_requests_sql(version, spans)
    source = version_requests_sql(version, spans[: rules.windows])
    with engine.query_session({"rows": files}) as query:
        counts = count_windows(query, monitored, requests_sql, window_index_sql(spans), read.rows)
        windows = [counts.get(place, {}) for place in range(len(spans))]
        counts_with_unseen = _with_unseen_values(query, source, monitored, windows[: rules.windows], rules, read.rows)
    rows = [_window_rows(window) for window in windows]
    rows_per_window = tuple(rows[: rules.windows])
    stale = check_freshness(_newest_request_time(engine, files, version, until), until, window_length)
    findings = [
        *check_schema({each.name: each.kind for each in monitored}, dict(read.schema), where),
        *(stale or [*check_window_rows(rows_per_window, rules), *check_volume(rows[0], rows[1:], rules)]),
    ]
    return CurrentData(
        where, files, source, monitored, tuple(counts_with_unseen), rows_per_window, tuple(findings), notes
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
    monitored = tuple(each for each in columns if each.name in available_columns and each.name not in unusable_columns)
    missing_predictions = [each.name for each in columns if each.is_prediction and each.name not in available_columns]
    notes = (f"{dataset} has no predictions: {', '.join(missing_predictions)}.",) if missing_predictions else ()
    files, engine = env.lake().files(read), env.engine()
    if not monitored:
        return CurrentData(where, files, findings=tuple(schema_findings), notes=notes)
    with engine.query_session({"rows": files}) as query:
        windows = [count_windows(query, monitored, "rows", rows=read.rows).get(0, {})]
        counts_with_unseen = _with_unseen_values(query, "rows", monitored, windows, rules, read.rows)
    rows = (_window_rows(windows[0]),)
    findings = (*schema_findings, *check_window_rows(rows, rules))
    key = (spec.data.entity,) if spec.data.entity in available_columns else tuple(each.name for each in monitored)
    return CurrentData(where, files, "rows", monitored, tuple(counts_with_unseen), rows, findings, notes, key)


def counts_by_span(
    engine: Engine, current: CurrentData, version: str, columns: Sequence[MonitoredColumn], spans: Sequence[TimeSpan]
) -> dict[int, dict[str, BinCounts]]:
    """Return the counts of columns of the log in time spans, by the index of the span, without spans without rows."""
    rows = len(spans) * max(current.rows_per_window, default=0)
    with engine.query_session({"rows": current.files}) as query:
        counts = count_windows(query, columns, version_requests_sql(version, spans), window_index_sql(spans), rows)
    return {index: window for index, window in counts.items() if index >= 0}


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
    query: QueryFunction,
    source: str,
    columns: Sequence[MonitoredColumn],
    windows: Sequence[dict[str, BinCounts]],
    rules: MonitoringRules,
    rows: int,
) -> list[dict[str, BinCounts]]:
    """Return the windows with examples of unseen values, for each column with enough of them."""
    completed, examples = list(windows), dict[str, list[tuple[str, int]]]()
    concerned = [
        each for each in columns if any(has_unseen_values(each, w[each.name], rules) for w in windows if each.name in w)
    ]
    for some in in_parts(concerned, rows):
        found = query(values_sql({each.name: each.values for each in some}, source, UNSEEN_SHOWN)).to_pylist()
        for row in sorted(found, key=lambda each: (-each["found"], each["value"])):
            examples.setdefault(row["feature"], []).append((row["value"], row["found"]))
    for name, values in examples.items():
        completed = [with_unseen(window, name, values) if name in window else window for window in completed]
    return completed


def ingest_log_segments(endpoint: Endpoint, lake: Lake, tracking: Tracking, spec: ModelSpec) -> InferenceLogResult:
    """Append each segment to the lake, with its name as the key, then delete it at the endpoint.

    A repeat adds nothing. `tracking` says which versions are of an earlier release: see `inference_log_table`.

    Raises:
        Corrupt: a segment cannot be read, or a request in it is malformed.
        Conflict: a column has another type than in earlier segments.
    """
    started_at, dataset, segments, rows = time.monotonic(), inference_dataset(spec), 0, 0
    known_forms: dict[str, bool] = {}
    for segment in endpoint.log_segments(spec.name):
        key = f"{spec.name}:{segment.name}"
        if lake.find_by_key(dataset, key) is None:
            try:
                versions = {str(request["version"]) for request in segment.requests} - {*known_forms}
                known_forms |= {version: knows_forms(tracking, spec.name, version) for version in versions}
                earlier = [version for version, known in known_forms.items() if not known]
                table = inference_log_table(spec, segment.requests, earlier)
            except (KeyError, TypeError, ValueError) as cause:
                problem = f"segment {segment.name} of the log of {spec.name} cannot be read: {cause}"
                raise Corrupt(f"{problem}. Inspect it in the endpoint's log, and remove it there.") from cause
            if table is not None:
                lake.append(dataset, table, source=f"endpoint {spec.name}", key=key, at=datetime.now(UTC))
                rows += table.num_rows
        endpoint.delete_log_segment(spec.name, segment.name)
        segments += 1
    return InferenceLogResult(dataset=dataset, segments=segments, rows=rows, seconds=time.monotonic() - started_at)
