"""Checks of an append, and schemas: which columns are allowed, how they are added, and the conversion of rows."""

import base64
import re
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from blocks.common.errors import ConcurrentWrite, Conflict, NotFound, Rejected
from blocks.lake.base import BUCKET_COLUMN, AsOf
from blocks.lake.entries import DatasetState
from blocks.lake.layout import BUCKETS

_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_dataset(name: str) -> None:
    """Raise Rejected if the name of a data set is not a valid folder name everywhere."""
    if not _DATASET_NAME.fullmatch(name):
        raise Rejected(
            f"{name!r} is not a valid name of a data set. Use 1 to 63 lower-case letters, digits, - and _, beginning "
            "with a letter or a digit."
        )


def check_append(dataset: str, schema: pa.Schema, key: str, at: datetime) -> None:
    """Raise Rejected for columns without a name, an empty key, or a time without a zone."""
    if not key:
        raise Rejected(f"{dataset}: the append has no key. Give one that a retry repeats.")
    if at.tzinfo is None:
        raise Rejected(f"{dataset}: the time {at.isoformat()} has no zone. Give one, such as +00:00.")
    names = schema.names
    if not names:
        raise Rejected(f"{dataset}: the table has no columns. Check the source.")
    if bad := [n for n in names if not n.strip() or not n.isprintable() or names.count(n) > 1]:
        raise Rejected(f"{dataset}: columns {sorted(set(bad))!r} are blank, unprintable or duplicate. Rename them.")
    if BUCKET_COLUMN in names and schema.field(BUCKET_COLUMN).type != pa.int32():
        raise Rejected(f"{dataset}: {BUCKET_COLUMN} is {schema.field(BUCKET_COLUMN).type}; it must be int32.")


def check_expected_parent(dataset: str, state: DatasetState, expected_parent: str | None) -> None:
    """Raise ConcurrentWrite if the latest snapshot is not the expected parent; None accepts any."""
    if expected_parent is not None and state.id != expected_parent:
        parent = f"snapshot {expected_parent}" if expected_parent else "an empty data set"
        raise ConcurrentWrite(f"{dataset}: the rows were made for {parent}, but {state.id} was added since. Try again.")


def merged_schema(dataset: str, state: DatasetState, schema: pa.Schema) -> pa.Schema:
    """Return the columns of the data set after rows of `schema` were added: its own first, then the new ones.

    A column with nulls only, which has Arrow's type null, fits any type.

    Raises:
        Conflict: a column has another type, or a name that differs in capitals alone, or only one of the data set and
            the rows has buckets.
    """
    plain = [pa.field(column.name, column.type) for column in schema]
    if not state.arrow:
        return pa.schema(plain)
    existing = deserialize_schema(state.arrow)
    differences = [
        f"{column.name!r} is {column.type}, not {existing.field(column.name).type}"
        for column in plain
        if column.name in existing.names and column.type not in (existing.field(column.name).type, pa.null())
    ]
    by_letters = {name.lower(): name for name in existing.names}
    differences += [
        f"{name!r} and {by_letters[name.lower()]!r} differ in capitals alone, and SQL reads them as one"
        for name in schema.names
        if by_letters.get(name.lower(), name) != name and name not in existing.names
    ]
    if (BUCKET_COLUMN in existing.names) != (BUCKET_COLUMN in schema.names):
        differences.append(f"{BUCKET_COLUMN!r} is {'missing' if BUCKET_COLUMN in existing.names else 'added'}")
    if differences:
        raise Conflict(
            f"{dataset}: the columns do not fit those of snapshot {state.id}: {'; '.join(differences)}. "
            "Cast the source to these types, or start a new data set."
        )
    return pa.schema([*existing, *(column for column in plain if column.name not in existing.names)])


def conform_to_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with the columns of `schema`, in its order; missing and all-null columns become typed nulls."""
    if table.schema.equals(schema, check_metadata=False):
        return table if table.schema.metadata is None else table.replace_schema_metadata(None)
    existing = {(column.name, column.type) for column in table.schema}
    columns = [
        table.column(column.name) if (column.name, column.type) in existing else pa.nulls(table.num_rows, column.type)
        for column in schema
    ]
    return pa.table(columns, schema=schema)


def schema_as_text(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """Return (column, Arrow type as text), in order."""
    return tuple((column.name, str(column.type)) for column in schema)


def serialize_schema(schema: pa.Schema) -> str:
    """Return the schema as text for `deserialize_schema`."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def deserialize_schema(text: str) -> pa.Schema:
    """Return the schema of a text from `serialize_schema`."""
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text)))


def check_columns(as_of: AsOf, below_bucket: int | None, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read, in order. Raises NotFound for a missing column, Rejected for an invalid limit."""
    existing = [name for name, _ in as_of.schema]
    selected = existing if columns is None else list(columns)
    needed = selected if below_bucket is None else [*selected, BUCKET_COLUMN]
    if missing := [name for name in needed if name not in existing]:
        raise NotFound(f"{as_of.dataset}: no column {', '.join(map(repr, missing))}. There is {', '.join(existing)}.")
    if not selected or (below_bucket is not None and below_bucket < 0):
        raise Rejected(f"{as_of.dataset}: read at least one column, and buckets below {BUCKETS}, not {below_bucket}.")
    return selected
