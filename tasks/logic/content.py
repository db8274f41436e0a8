"""A digest of a table's content: the same rows give the same digest, however they are cut into pieces."""

import hashlib
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.logic.refusal import Refusal


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


def content_key(table: pa.Table) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of the columns' names, types, values and nulls, in order.

    Independent of chunks, of what lies under a null, and of schema metadata; not of the order of rows. It is
    the key under which a source is appended to the lake, so that ingesting it again adds nothing.

    Raises:
        Refusal: a column's type has no digest (nested and binary types).
    """
    whole = hashlib.sha256(f"{table.num_rows}\n".encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        whole.update(f"{field.name!r} {field.type} {_column_digest(field, column)}\n".encode())
    return whole.hexdigest()


def _column_digest(field: pa.Field, column: pa.ChunkedArray) -> str:
    """Digest nulls, lengths and values apart: each then is one stream of bytes wherever a chunk ends."""
    streams: tuple[_Hash, _Hash, _Hash] = (hashlib.sha256(), hashlib.sha256(), hashlib.sha256())
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    for chunk in column.chunks:
        values = chunk.cast(kind)
        streams[0].update(pc.is_valid(values).to_numpy(zero_copy_only=False).tobytes())
        if _is_number(kind):
            filled = pc.fill_null(values, False if pa.types.is_boolean(kind) else 0)
            streams[2].update(filled.to_numpy(zero_copy_only=False).tobytes())
        else:
            _update_with_text(streams[1], streams[2], _as_text(field, values))
    return " ".join(stream.hexdigest() for stream in streams)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _as_text(field: pa.Field, values: pa.Array) -> pa.Array:
    if pa.types.is_nested(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
        raise Refusal(f"a column of type {field.type} has no digest", where=f"column {field.name!r}")
    return pc.fill_null(values.cast(pa.large_string()), "")


def _update_with_text(lengths: _Hash, contents: _Hash, text: pa.Array) -> None:
    lengths.update(pc.binary_length(text).to_numpy().astype(np.int64).tobytes())
    offsets = np.frombuffer(text.buffers()[1], dtype=np.int64)[text.offset : text.offset + len(text) + 1]
    if len(text) and offsets[-1] > offsets[0]:
        contents.update(memoryview(text.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
