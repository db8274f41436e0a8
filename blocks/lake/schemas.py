"""The columns of a data set: which may be stored, how they grow, and rows brought to a later schema."""

import base64
import re
from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa

from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.lake.base import BUCKET_COLUMN, AsOf
from blocks.lake.entries import DatasetState
from blocks.lake.layout import BUCKETS

_DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_dataset(name: str) -> None:
    """Refuse a data set's name that could not be a folder everywhere: `Rejected`."""
    if not _DATASET_NAME.fullmatch(name):
        raise Rejected(
            f"{name!r} cannot name a data set. Use 1 to 63 lower-case letters, digits, - and _, beginning "
            "with a letter or a digit."
        )


def check_append(dataset: str, schema: pa.Schema, key: str, at: datetime) -> None:
    """Refuse what no lake may store (`Rejected`): nameless columns, no key, times without a zone."""
    if not key:
        raise Rejected(f"{dataset}: the append has no key. Give one that a retry will give again.")
    if at.tzinfo is None:
        raise Rejected(f"{dataset}: the time {at.isoformat()} has no zone. Give one, such as +00:00.")
    names = schema.names
    if not names:
        raise Rejected(f"{dataset}: the table has no columns. Check the source.")
    if bad := [n for n in names if not n.strip() or not n.isprintable() or names.count(n) > 1]:
        raise Rejected(f"{dataset}: columns {sorted(set(bad))!r} are blank, unprintable or there twice. Rename them.")
    if BUCKET_COLUMN in names and schema.field(BUCKET_COLUMN).type != pa.int32():
        raise Rejected(f"{dataset}: {BUCKET_COLUMN} is {schema.field(BUCKET_COLUMN).type}; it has to be int32.")


def merged_schema(dataset: str, state: DatasetState | None, schema: pa.Schema) -> pa.Schema:
    """Return the columns of the data set once rows of `schema` are in it: its own first, then what is new.

    A column that holds nothing but nulls, and so has Arrow's type null, fits any type.

    Raises:
        Conflict: a column has another type, or the data set and the rows differ in having buckets.
    """
    plain = [pa.field(column.name, column.type) for column in schema]
    if state is None:
        return pa.schema(plain)
    known = deserialize_schema(state.arrow)
    differences = [
        f"{column.name!r} is {column.type}, not {known.field(column.name).type}"
        for column in plain
        if column.name in known.names and column.type not in (known.field(column.name).type, pa.null())
    ]
    if (BUCKET_COLUMN in known.names) != (BUCKET_COLUMN in schema.names):
        differences.append(f"{BUCKET_COLUMN!r} is {'missing' if BUCKET_COLUMN in known.names else 'added'}")
    if differences:
        raise Conflict(
            f"{dataset}: the columns do not fit those of snapshot {state.id}: {'; '.join(differences)}. "
            "Cast the source to these types, or begin a new data set."
        )
    return pa.schema([*known, *(column for column in plain if column.name not in known.names)])


def conform_to_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows with the columns of `schema`, in its order; what the table has not, or only nulls of, is null."""
    if table.schema.equals(schema, check_metadata=False):
        return table if table.schema.metadata is None else table.replace_schema_metadata(None)
    there = {(column.name, column.type) for column in table.schema}
    columns = [
        table.column(column.name) if (column.name, column.type) in there else pa.nulls(table.num_rows, column.type)
        for column in schema
    ]
    return pa.table(columns, schema=schema)


def schema_as_text(schema: pa.Schema) -> tuple[tuple[str, str], ...]:
    """Return (column, Arrow type as text), in order."""
    return tuple((column.name, str(column.type)) for column in schema)


def serialize_schema(schema: pa.Schema) -> str:
    """Return the schema as text that `unpacked` understands."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def deserialize_schema(text: str) -> pa.Schema:
    """Return the schema that `packed` was given."""
    return pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text)))


def check_columns(as_of: AsOf, below_bucket: int | None, columns: Sequence[str] | None) -> list[str]:
    """Return the columns to read, in order; refuse those not there and a limit that means nothing."""
    there = [name for name, _ in as_of.schema]
    wanted = there if columns is None else list(columns)
    needed = wanted if below_bucket is None else [*wanted, BUCKET_COLUMN]
    if missing := [name for name in needed if name not in there]:
        raise NotFound(f"{as_of.dataset}: no column {', '.join(map(repr, missing))}. There is {', '.join(there)}.")
    if not wanted or (below_bucket is not None and below_bucket < 0):
        raise Rejected(f"{as_of.dataset}: read at least one column, and buckets below {BUCKETS}, not {below_bucket}.")
    return wanted
