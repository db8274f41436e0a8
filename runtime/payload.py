"""Parses the body of a request into the frame that a model takes; an error names the column and row.

MLflow's own parser is not used for models whose signature names columns: it returns tracebacks, rejects 34 in a column
of doubles, fills short CSV rows with nulls, shifts long ones, and reads NaN as a number.
"""

import csv
import difflib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import pandas as pd

from runtime.columns import BadInput, Column, finite, shortened_repr, to_series
from runtime.signatures import NO_ROW_KEY, RowKey
from runtime.values import KIND_DESCRIPTIONS, canonical

JSON_FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_ABSENT = object()


@dataclass(frozen=True)
class Payload:
    """A parsed request: the frame, in the model's order of columns, and the call's parameters, if any.

    `sent_values` are the values as they were sent, by column, with those of the row's key (entity and time), if they
    were sent: these in their canonical form.
    """

    frame: pd.DataFrame
    params: dict[str, Any] | None = None
    sent_values: Mapping[str, Sequence[Any]] = field(default_factory=dict)


def media_type(content_type: str) -> str:
    """Return `application/json` or `text/csv`.

    Raises:
        BadInput: (status 415) another type, or another character set than UTF-8.
    """
    kind, *parameters = [part.strip().lower() for part in content_type.split(";")]
    if kind not in ("application/json", "text/csv"):
        raise BadInput(
            f"content type {shortened_repr(content_type)} is not served; send application/json or text/csv", 415
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise BadInput(f"character set {shortened_repr(value)} is not served; send UTF-8", 415)
    return kind


def parse_request(body: bytes, content_type: str, columns: Sequence[Column], row_key: RowKey = NO_ROW_KEY) -> Payload:
    """Read a request for a model that takes `columns`.

    JSON is an object with one of `dataframe_split`, `dataframe_records`, `instances` or `inputs`, and optionally
    `params`; CSV has a header line. A column that the model does not have is refused, since a misspelt optional column
    would otherwise be ignored silently. Callers may also send the columns of `row_key`: they are logged, and the model
    gets those only that it has as columns, too.

    Raises:
        BadInput: the body does not fit the columns; the message names column and row.
    """
    names, rows, params = _read_table(body, content_type, [column.name for column in columns])
    sent = _sent_columns(names, rows, columns, row_key)
    given = _values_by_column(sent, len(rows), columns)
    frame = pd.DataFrame({c.name: to_series(c, given[c.name]) for c in columns})
    return Payload(frame, params, given | _key_values(sent, row_key))


def request_columns(body: bytes, content_type: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of a request by column, without a check against a model; a value that was left out is None.

    Args:
        body: the request's body.
        content_type: the body's content type.
        names: the columns of rows that are sent without names.

    Raises:
        BadInput: the body holds no rows in a known format.
        IndexError: a row is shorter than the others.
    """
    sent, rows, _ = _read_table(body, content_type, names)
    return {name: [None if row[index] is _ABSENT else row[index] for row in rows] for index, name in enumerate(sent)}


def _read_table(
    body: bytes, content_type: str, names: Sequence[str]
) -> tuple[list[str], list[list[Any]], dict[str, Any] | None]:
    """Return a request's column names, its rows, and its parameters, if any."""
    is_csv = media_type(content_type) == "text/csv"
    text = _decoded(body)
    if is_csv:
        return *_csv_table(text), None
    document = parse_json_object(text)
    return *_json_table(document, names), document.get("params")


def parse_json_object(text: str) -> dict[str, Any]:
    """Return the JSON object in `text`, which has exactly one member named as in `JSON_FORMATS`.

    Raises:
        BadInput: it is not JSON, or not such an object.
    """
    try:
        document = _JSON.decode(text)
    except RecursionError:
        raise BadInput("the JSON is nested too deeply") from None
    except ValueError as cause:
        raise BadInput(f"the body is not valid JSON: {cause}") from None
    expected = f"a JSON object with exactly one of {', '.join(JSON_FORMATS)}"
    if not isinstance(document, dict):
        raise BadInput(f"the body is a JSON {_json_type(document)}; expected {expected}")
    if sum(shape in document for shape in JSON_FORMATS) != 1:
        raise BadInput(f"the body has the fields {shortened_repr(sorted(document))}; expected {expected}")
    if unknown := sorted(set(document) - {*JSON_FORMATS, "params"}):
        raise BadInput(f"unknown field {shortened_repr(unknown[0])}; beside the rows only params is known")
    if not isinstance(document.get("params", {}), dict):
        raise BadInput("params is not a JSON object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises BadInput for a name that it has twice: Python would take the last value."""
    named = dict(pairs)
    if len(named) < len(pairs):
        twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise BadInput(f"the JSON has the name {shortened_repr(twice)} twice in one object")
    return named


_JSON = json.JSONDecoder(object_pairs_hook=_object)


def _decoded(body: bytes) -> str:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise BadInput(f"the body is not UTF-8: byte {cause.start} cannot be read") from None
    if not text.strip():  # nothing, or a byte order mark alone
        raise BadInput("the body is empty; send rows as JSON or CSV")
    return text


def _csv_table(text: str) -> tuple[list[str], list[list[Any]]]:
    if "\0" in text:
        raise BadInput("the CSV holds a NUL byte")
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as cause:
        raise BadInput(f"the CSV is broken: {cause}") from None
    return header, [[None if field == "" else field for field in row] for row in rows]


def _json_table(document: dict[str, Any], names: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    shape = next(shape for shape in JSON_FORMATS if shape in document)
    content = document[shape]
    if shape == "dataframe_split":
        return _split_table(content, names)
    if shape == "inputs" and isinstance(content, dict):
        return _columnar_table(content)
    if not isinstance(content, list):
        raise BadInput(f"{shape} is a JSON {_json_type(content)}; expected a list of rows")
    if shape == "dataframe_records" or (content and isinstance(content[0], dict)):
        return _record_table(content, shape)
    return list(names), _check_rows(content, shape)


def _split_table(content: Any, known: Sequence[str]) -> tuple[list[str], list[list[Any]]]:
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise BadInput('dataframe_split is not of the form {"columns": [...], "data": [[...], ...]}')
    if unknown := sorted(set(content) - {"columns", "data", "index"}):
        raise BadInput(f"dataframe_split has the unknown field {shortened_repr(unknown[0])}")
    names = content.get("columns", list(known))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("dataframe_split.columns is not a list of names")
    return names, _check_rows(content["data"], "dataframe_split.data")


def _columnar_table(content: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    values = [value if isinstance(value, list) else [value] for value in content.values()]
    lengths = {name: len(value) for name, value in zip(content, values, strict=True)}
    if len(set(lengths.values())) > 1:
        raise BadInput(f"the columns of inputs differ in length: {shortened_repr(lengths)}")
    return list(content), [list(row) for row in zip(*values, strict=True)]


def _record_table(content: list[Any], shape: str) -> tuple[list[str], list[list[Any]]]:
    for number, row in enumerate(content):
        if not isinstance(row, dict):
            raise BadInput(f"{shape}: row {number} is a JSON {_json_type(row)}; expected an object of columns")
    names = list(dict.fromkeys(name for row in content for name in row))
    return names, [[row.get(name, _ABSENT) for name in names] for row in content]


def _check_rows(content: list[Any], shape: str) -> list[list[Any]]:
    for number, row in enumerate(content):
        if not isinstance(row, list):
            raise BadInput(f"{shape}: row {number} is a JSON {_json_type(row)}; expected a list of values")
    return content


def _sent_columns(
    names: list[str], rows: list[list[Any]], columns: Sequence[Column], row_key: RowKey
) -> dict[str, tuple[Any, ...]]:
    """Return the values of the columns that were sent, after their names were checked."""
    if not rows:
        raise BadInput("there are no rows")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"column {shortened_repr(twice)} is there more than once")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise BadInput(f"row {number} has {len(row)} values; there are {len(names)} columns")
    _check_names(names, columns, row_key)
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def _values_by_column(
    sent: Mapping[str, tuple[Any, ...]], rows: int, columns: Sequence[Column]
) -> dict[str, tuple[Any, ...]]:
    """Return the values of the model's columns, with None for missing ones."""
    return {column.name: _fill_missing(column, sent.get(column.name, (None,) * rows)) for column in columns}


def _key_values(sent: Mapping[str, tuple[Any, ...]], row_key: RowKey) -> dict[str, tuple[str | None, ...]]:
    """Return the canonical values of those columns of the row's key that were sent, as text."""
    kinds = {row_key.entity: "key", row_key.time: "time"}
    return {
        name: tuple(_key_value(name, row, value, kind) for row, value in enumerate(sent[name]))
        for name, kind in kinds.items()
        if name and name in sent
    }


def _key_value(name: str, row: int, value: Any, kind: str) -> str | None:
    try:
        form = None if value is _ABSENT else canonical(finite(value), kind)
    except ValueError as cause:
        place, reason = f"column {shortened_repr(name)}, row {row}", f" ({cause})" if str(cause) else ""
        problem = f"{place}: expected {KIND_DESCRIPTIONS[kind]}, got {shortened_repr(value)}{reason}"
        raise BadInput(problem) from None
    return form.isoformat() if isinstance(form, datetime) else cast("str | None", form)


def _check_names(names: list[str], columns: Sequence[Column], row_key: RowKey) -> None:
    known = [*(c.name for c in columns), *row_key.columns]
    required = [c.name for c in columns if c.required]
    missing = [name for name in required if name not in names]
    extra = [name for name in names if name not in known]
    if missing:
        also = f"; it has the unknown {_quoted(extra)}" if extra else ""
        raise BadInput(f"the input lacks the column{'s' * (len(missing) > 1)} {_quoted(missing)}{also}")
    if extra:
        near = difflib.get_close_matches(extra[0], known, 1)
        hint = f"; did you mean {shortened_repr(near[0])}?" if near else "; leave it out"
        raise BadInput(f"the model does not know the column{'s' * (len(extra) > 1)} {_quoted(extra)}{hint}")


def _fill_missing(column: Column, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if _ABSENT not in values:
        return values
    if column.required:
        raise BadInput(f"row {values.index(_ABSENT)} lacks the column {shortened_repr(column.name)}")
    return tuple(None if value is _ABSENT else value for value in values)


def _quoted(names: Sequence[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(shortened_repr(name) for name in names[:10]) + more


def _json_type(value: Any) -> str:
    kinds = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")
