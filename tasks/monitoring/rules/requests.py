"""Logged inference requests as rows of the lake, one row per prediction, and their time windows in SQL."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import pyarrow as pa

from runtime.values import LABEL_KINDS, NoCanonicalForm, canonical
from tasks.shared.rules import sql
from tasks.shared.rules.model.parts import InferenceLogSpec
from tasks.shared.rules.model.spec import ModelSpec

REQUEST_COLUMN, REQUEST_ROW_COLUMN = "_request_id", "_row"
REQUESTED_AT_COLUMN, MODEL_VERSION_COLUMN = "_requested_at", "_model_version"
"""The columns besides those of the model: the request, the row's index in it, its time (UTC) and the version."""

_HASHED_PREFIX = "_hashed_"
_PREDICTION_PREFIX = "_prediction"

WEEK = timedelta(days=7)
_SEASON_WEEKS = 4
_MIN_SEASONAL_WINDOW = timedelta(hours=1)


def inference_dataset(spec: ModelSpec) -> str:
    """Return the name of the data set with the model's inference log."""
    return spec.own_dataset("inference")


def logged_prediction_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns of the predictions: a probability for each class, or the value of a regression."""
    return tuple(f"{_PREDICTION_PREFIX}_{name}" for name in spec.data.classes) or (_PREDICTION_PREFIX,)


def monitored_prediction_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return the prediction columns to monitor: of two probabilities only the last, because they are redundant."""
    columns = logged_prediction_columns(spec)
    return columns[-1:] if len(columns) == 2 else columns


def logged_features(spec: ModelSpec) -> dict[str, str]:
    """Return the features that are logged unchanged, with their kinds; without hashed and excluded ones."""
    hidden = {*spec.inference_log.exclude, *spec.inference_log.hash}
    return {name: kind for name, kind in spec.data.features.items() if name not in hidden}


def inference_log_table(
    spec: ModelSpec, requests: Sequence[Mapping[str, Any]], earlier: Collection[str] = ()
) -> pa.Table | None:
    """Return logged requests as rows, or None when there are none.

    `earlier` are the versions of an earlier release. They take categories as they are sent, and so do their reference
    data: in their rows categories stay as they are. Keys and times always have their canonical form.

    The present rules apply: a column that they exclude is left out, even if it was logged under earlier rules. A value
    of another kind than its column becomes null, and counts as missing.

    Raises:
        ValueError: a request is malformed, or does not have one prediction for each row.
    """
    counts = [int(request["rows"]) for request in requests]
    if not sum(counts):
        return None
    answers = [_answers(request, rows) for request, rows in zip(requests, counts, strict=True)]
    columns = {name: pa.array(values, kind) for name, kind, values in _inputs(spec, requests, counts, earlier)}
    names = logged_prediction_columns(spec)
    for place, name in enumerate(names):
        values = [_probability(row, place, len(names)) for rows in answers for row in rows]
        columns[name] = pa.array(values, pa.float64())
    by_row = [request for request, rows in zip(requests, counts, strict=True) for _ in range(rows)]
    times = [datetime.fromisoformat(request["at"]) for request in by_row]
    columns[REQUEST_COLUMN] = pa.array([request["id"] for request in by_row])
    columns[REQUEST_ROW_COLUMN] = pa.array([place for rows in counts for place in range(rows)], pa.int32())
    columns[REQUESTED_AT_COLUMN] = pa.array(times, pa.timestamp("us", "UTC"))
    columns[MODEL_VERSION_COLUMN] = pa.array([request["version"] for request in by_row])
    return pa.table(columns)


def _inputs(
    spec: ModelSpec, requests: Sequence[Mapping[str, Any]], counts: Sequence[int], earlier: Collection[str]
) -> list[tuple[str, pa.DataType, list[Any]]]:
    """Return name, type and values of the entity's and the time's column and of each logged feature."""
    rules: InferenceLogSpec = spec.inference_log
    keys = {spec.data.entity: "key", **({spec.data.time: "time"} if spec.data.time else {})}
    columns = {name: kind for name, kind in keys.items() if name not in rules.exclude}
    columns |= logged_features(spec)
    logged = [
        (name, _type(kind), [
            _as_sent(value) if kind == "category" and request["version"] in earlier else _form(value, kind)
            for request, value in _values(name, requests, counts)
        ])
        for name, kind in columns.items()
    ]  # fmt: skip
    hashed = [
        (_HASHED_PREFIX + name, pa.string(), [value for _, value in _values(name, requests, counts)])
        for name in rules.hash
    ]
    return logged + hashed


def _values(
    name: str, requests: Sequence[Mapping[str, Any]], counts: Sequence[int]
) -> Iterator[tuple[Mapping[str, Any], Any]]:
    """Yield the column's value of each row, with the request that it is of."""
    for request, rows in zip(requests, counts, strict=True):
        column = request["columns"].get(name, [None] * rows)
        if len(column) != rows:
            raise ValueError(f"request {request['id']} has {len(column)} values of {name} in {rows} rows")
        yield from ((request, value) for value in column)


def _type(kind: str) -> pa.DataType:
    if kind == "time":
        return pa.timestamp("us", "UTC")
    return pa.string() if kind in LABEL_KINDS else pa.float64()


def _as_sent(value: Any) -> str | None:
    return None if value is None else str(value)


def _form(value: Any, kind: str) -> Any:
    """Return the canonical form of a logged value, None for a value without one."""
    try:
        return canonical(value, kind)
    except NoCanonicalForm:
        return None


def _number(value: Any) -> float | None:
    return cast("float | None", _form(value, "number"))


def _answers(request: Mapping[str, Any], rows: int) -> list[Any]:
    answers = request["answer"]["predictions"]
    if not isinstance(answers, list) or len(answers) != rows:
        raise ValueError(f"request {request['id']} does not have one prediction for each of its {rows} rows")
    return answers


def _probability(answer: Any, place: int, columns: int) -> float | None:
    """Return one value of a prediction: by index from a list, else the prediction itself when there is one column."""
    if isinstance(answer, list):
        return _number(answer[place]) if len(answer) == columns else None
    return _number(answer) if columns == 1 else None


@dataclass(frozen=True)
class TimeSpan:
    """A time span: after `start`, up to and including `end`."""

    start: datetime
    end: datetime


def newest_windows(until: datetime, length: timedelta, count: int) -> list[TimeSpan]:
    """Return consecutive windows that end at a time, the newest first."""
    return [TimeSpan(until - (at + 1) * length, until - at * length) for at in range(count)]


def newest_windows_text(count: int, length: timedelta) -> str:
    """Return windows in words, such as "the 3 newest windows of 1 day"."""
    units = (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1)))
    unit, one = next((each for each in units if not length % each[1]), units[-1])
    size = f"{length / one:g} {unit}{'' if length == one else 's'}"
    return f"the newest window of {size}" if count == 1 else f"the {count} newest windows of {size}"


def divides_week(length: timedelta) -> bool:
    """Return whether a week is a whole number of windows of this length (one hour to three and a half days)."""
    return _MIN_SEASONAL_WINDOW <= length <= timedelta(days=3.5) and not WEEK % length


def same_window_weeks_before(window: TimeSpan) -> list[TimeSpan]:
    """Return the same window one to four weeks earlier."""
    return [TimeSpan(window.start - at * WEEK, window.end - at * WEEK) for at in range(1, _SEASON_WEEKS + 1)]


def other_windows_before(window: TimeSpan, length: timedelta, skipped: int) -> list[TimeSpan]:
    """Return the other windows of those four weeks, without the `skipped` newest ones."""
    same = set(same_window_weeks_before(window))
    return [
        span
        for span in newest_windows(window.end, length, _SEASON_WEEKS * (WEEK // length))[skipped:]
        if span not in same
    ]


def version_requests_sql(version: str, spans: Sequence[TimeSpan]) -> str:
    """Return the requests of a version between the first start and the last end of the spans, as a table in SQL."""
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    known = f"{sql.quoted_name(MODEL_VERSION_COLUMN)} = {sql.text_literal(version)}"
    at = sql.quoted_name(REQUESTED_AT_COLUMN)
    between = f"{at} > {sql.timestamp_literal(first)} AND {at} <= {sql.timestamp_literal(last)}"
    return f"(SELECT * FROM rows WHERE {known} AND {between}) AS requests"  # noqa: S608 - quoted


def window_index_sql(spans: Sequence[TimeSpan]) -> str:
    """Return SQL for the index of a row's span; -1 for a row outside all spans."""
    at = sql.quoted_name(REQUESTED_AT_COLUMN)
    cases = " ".join(
        f"WHEN {at} > {sql.timestamp_literal(span.start)} AND {at} <= {sql.timestamp_literal(span.end)} THEN {place}"
        for place, span in enumerate(spans)
    )
    return f"CASE {cases} ELSE -1 END"
