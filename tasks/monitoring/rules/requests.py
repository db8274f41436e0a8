"""Logged requests as rows of the lake: one row a prediction, its columns typed as `model.yaml` declares them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from tasks.shared.rules.model.spec import InferenceLogSpec, ModelSpec

REQUEST_COLUMN, REQUEST_ROW_COLUMN, REQUESTED_AT_COLUMN, MODEL_VERSION_COLUMN = (
    "_request_id",
    "_row",
    "_requested_at",
    "_model_version",
)
"""The columns beside those of the model: the request, the row's place in it, its time (UTC) and the version."""

_HASHED_PREFIX = "_hashed_"
_PREDICTION_PREFIX = "_prediction"


def inference_dataset(spec: ModelSpec) -> str:
    """Return the name of the data set in which the model's requests and answers lie."""
    return spec.own_dataset("inference")


def logged_prediction_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns of the predictions: a probability for each class, or the value of a regression."""
    return tuple(f"{_PREDICTION_PREFIX}_{name}" for name in spec.data.classes) or (_PREDICTION_PREFIX,)


def monitored_prediction_columns(spec: ModelSpec) -> tuple[str, ...]:
    """Return the columns of the predictions that say something of their own: of two probabilities, the last."""
    columns = logged_prediction_columns(spec)
    return columns[-1:] if len(columns) == 2 else columns


def logged_features(spec: ModelSpec) -> dict[str, str]:
    """Return the features that are logged as they are, with their kinds; what is hashed or left out is missing."""
    away = {*spec.inference_log.exclude, *spec.inference_log.hash}
    return {name: kind for name, kind in spec.data.features.items() if name not in away}


def inference_log_table(spec: ModelSpec, requests: Sequence[Mapping[str, Any]]) -> pa.Table | None:
    """Return logged requests as rows, or None when there are none.

    What the rules of today keep out is left out here, too, whatever the rules were when it was logged. A value
    that is not of its column's kind becomes null; the checks count it as missing.

    Raises:
        ValueError: a request does not hold what it has to, or not as many answers as rows.
    """
    counts = [int(request["rows"]) for request in requests]
    if not sum(counts):
        return None
    answers = [_answers(request, rows) for request, rows in zip(requests, counts, strict=True)]
    columns = {name: pa.array(values, kind) for name, kind, values in _inputs(spec, requests, counts)}
    names = logged_prediction_columns(spec)
    for place, name in enumerate(names):
        values = [_probability(row, place, len(names)) for rows in answers for row in rows]
        columns[name] = pa.array(values, pa.float64())
    times = [datetime.fromisoformat(request["at"]) for request in requests]
    request_values = [(request["id"], request["version"], at) for request, at in zip(requests, times, strict=True)]
    columns[REQUEST_COLUMN] = pa.array(
        [each[0] for each, n in zip(request_values, counts, strict=True) for _ in range(n)]
    )
    columns[REQUEST_ROW_COLUMN] = pa.array([place for n in counts for place in range(n)], pa.int32())
    columns[REQUESTED_AT_COLUMN] = pa.array(
        [each[2] for each, n in zip(request_values, counts, strict=True) for _ in range(n)], pa.timestamp("us", "UTC")
    )
    columns[MODEL_VERSION_COLUMN] = pa.array(
        [each[1] for each, n in zip(request_values, counts, strict=True) for _ in range(n)]
    )
    return pa.table(columns)


def _inputs(
    spec: ModelSpec, requests: Sequence[Mapping[str, Any]], counts: Sequence[int]
) -> list[tuple[str, pa.DataType, list[Any]]]:
    """Return name, type and values of the entity's column and of each feature that is kept."""
    rules: InferenceLogSpec = spec.inference_log
    columns = {} if spec.data.entity in rules.exclude else {spec.data.entity: "category"}
    columns |= logged_features(spec)
    found = [(name, *_typed(kind, _values(name, requests, counts))) for name, kind in columns.items()]
    hashed = [(_HASHED_PREFIX + name, pa.string(), _values(name, requests, counts)) for name in rules.hash]
    return found + hashed


def _values(name: str, requests: Sequence[Mapping[str, Any]], counts: Sequence[int]) -> list[Any]:
    values: list[Any] = []
    for request, rows in zip(requests, counts, strict=True):
        column = request["columns"].get(name, [None] * rows)
        if len(column) != rows:
            raise ValueError(f"request {request['id']} has {len(column)} values of {name} in {rows} rows")
        values += column
    return values


def _typed(kind: str, values: Sequence[Any]) -> tuple[pa.DataType, list[Any]]:
    if kind == "category":
        return pa.string(), [None if value is None else str(value) for value in values]
    return pa.float64(), [_number(value) for value in values]


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float({"true": 1, "false": 0}.get(str(value).lower(), value))
    except (TypeError, ValueError):
        return None


def _answers(request: Mapping[str, Any], rows: int) -> list[Any]:
    answers = request["answer"]["predictions"]
    if not isinstance(answers, list) or len(answers) != rows:
        raise ValueError(f"request {request['id']} has not one answer for each of its {rows} rows")
    return answers


def _probability(answer: Any, place: int, columns: int) -> float | None:
    """Return one value of an answer: of a list by place, else the answer itself where there is one column."""
    if isinstance(answer, list):
        return _number(answer[place]) if len(answer) == columns else None
    return _number(answer) if columns == 1 else None
