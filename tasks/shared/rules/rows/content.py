"""A digest of rows: the same rows give the same digest, however they are cut into pieces."""

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.shared.rules.refusal import Refusal


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass
class _ColumnDigest:
    """Nulls, lengths and values apart: each then is one stream of bytes wherever a piece ends."""

    valid: _Hash = field(default_factory=hashlib.sha256)
    lengths: _Hash = field(default_factory=hashlib.sha256)
    values: _Hash = field(default_factory=hashlib.sha256)

    def update(self, named: pa.Field, values: pa.Array) -> None:
        self.valid.update(pc.is_valid(values).to_numpy(zero_copy_only=False).tobytes())
        if _is_number(values.type):
            filled = pc.fill_null(values, False if pa.types.is_boolean(values.type) else 0)
            self.values.update(filled.to_numpy(zero_copy_only=False).tobytes())
        else:
            _update_with_text(self.lengths, self.values, _as_text(named, values))

    def hexdigest(self) -> str:
        return " ".join(stream.hexdigest() for stream in (self.valid, self.lengths, self.values))


class ContentDigest:
    """The digest of rows that come in pieces, and of those that could not be read."""

    def __init__(self) -> None:
        self._rows = 0
        self._schema: pa.Schema | None = None
        self._columns: list[_ColumnDigest] = []
        self._unread: _Hash | None = None

    def update(self, table: pa.Table) -> None:
        """Add the next rows; all pieces have the same columns.

        Raises:
            Refusal: a column's type has no digest (nested and binary types).
        """
        if self._schema is None:
            self._schema = table.schema
            self._columns = [_ColumnDigest() for _ in table.schema]
        self._rows += table.num_rows
        for named, column, state in zip(table.schema, table.columns, self._columns, strict=True):
            plain = named.type.value_type if pa.types.is_dictionary(named.type) else named.type
            for chunk in column.chunks:
                state.update(named, chunk.cast(plain))

    def update_unread(self, position: str, reason: str, text: str) -> None:
        """Add a row that could not be read."""
        self._unread = self._unread or hashlib.sha256()
        self._unread.update(f"\n{position}\t{reason}\t{text}".encode(errors="replace"))

    def hexdigest(self) -> str:
        """Return the SHA-256, 64 hexadecimal digits, of everything that was added."""
        whole = hashlib.sha256(f"{self._rows}\n".encode())
        for named, state in zip(self._schema or [], self._columns, strict=True):
            whole.update(f"{named.name!r} {named.type} {state.hexdigest()}\n".encode())
        if self._unread:
            whole.update(f"unread {self._unread.hexdigest()}\n".encode())
        return whole.hexdigest()


def table_content_digest(table: pa.Table) -> str:
    """Return the SHA-256, 64 hexadecimal digits, of the columns' names, types, values and nulls, in order.

    Independent of chunks, of what lies under a null, and of schema metadata; not of the order of rows. It is
    the key under which rows that have no file are appended to the lake, so that ingesting them again adds nothing.
    """
    digest = ContentDigest()
    digest.update(table)
    return digest.hexdigest()


def has_digest(kind: pa.DataType) -> bool:
    """Return whether columns of this type have a digest: all but nested and binary ones."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return not (pa.types.is_nested(plain) or pa.types.is_binary(plain) or pa.types.is_large_binary(plain))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _as_text(named: pa.Field, values: pa.Array) -> pa.Array:
    if not has_digest(named.type):
        raise Refusal(f"a column of type {named.type} has no digest", where=f"column {named.name!r}")
    return pc.fill_null(values.cast(pa.large_string()), "")


def _update_with_text(lengths: _Hash, contents: _Hash, text: pa.Array) -> None:
    lengths.update(pc.binary_length(text).to_numpy().astype(np.int64).tobytes())
    offsets = np.frombuffer(text.buffers()[1], dtype=np.int64)[text.offset : text.offset + len(text) + 1]
    if len(text) and offsets[-1] > offsets[0]:
        contents.update(memoryview(text.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
