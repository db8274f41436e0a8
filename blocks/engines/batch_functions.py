"""A function over the batches of an answer, with the same errors from whichever process and engine runs it.

On a cluster the function runs in Python processes of Spark's, of which only the text of an error comes back. So
what went wrong travels as one line of JSON within that text.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from blocks.common import errors
from blocks.common.errors import PortError, Rejected
from blocks.engines.files import shorten

BatchFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Makes other batches of some batches: called once a process or partition, so it can prepare before the first."""

_ROW_GROUP_ROWS = 122_880  # what DuckDB reads as one piece of work
_ERROR_PATTERN = re.compile(r"what failed: (\{.*\})$", re.MULTILINE)


class FunctionFailed(Exception):
    """An exception within the function, as text that survives the way through Java."""

    def __init__(self, error: Exception) -> None:
        kind = type(error).__name__ if isinstance(error, PortError) else Rejected.__name__
        words = str(error) if isinstance(error, PortError) else f"{type(error).__name__}: {error}"
        super().__init__(f"what failed: {json.dumps({'kind': kind, 'words': shorten(words)})}")


def parse_port_error(text: str) -> PortError | None:
    """Return the port's error for a `FunctionFailed` somewhere in the text, or None when there is none.

    An error of a port keeps its type, so that one which may pass is tried again; all others are `Rejected`.
    """
    found = _ERROR_PATTERN.search(text)
    if found is None:
        return None
    said = json.loads(found[1])
    kind: type[PortError] = getattr(errors, said["kind"], Rejected)
    return kind(f"the function over the rows failed: {said['words']}")


@dataclass(frozen=True)
class CheckedFunction:
    """The function, held to what it promised: every batch has the columns of `schema`, names and types."""

    function: BatchFunction
    schema: pa.Schema

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield what the function makes of the batches.

        Raises:
            FunctionFailed: it raised something, or gave other columns. What the batches raise comes as it is.
        """
        given = _InputBatches(batches)
        try:
            for batch in self.function(given):
                yield self._with_schema(batch)
        except Exception as error:
            if error is given.error:
                raise
            raise FunctionFailed(error) from error

    def _with_schema(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        names, types = batch.schema.names, batch.schema.types
        if (names, types) != (self.schema.names, self.schema.types):
            wanted, found = (", ".join(f"{f.name} {f.type}" for f in each) for each in (self.schema, batch.schema))
            raise Rejected(f"it gave the columns {found}, where {wanted} were promised. Mend the function.")
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


class _InputBatches:
    """The batches that go in; `error` is what reading them raised."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise


def write_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: Path) -> int:
    """Write batches into one Parquet file, however small they are in row groups of a good size; return the rows."""
    import pyarrow.parquet as pq

    waiting: list[pa.RecordBatch] = []
    rows = held = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            waiting.append(batch)
            rows, held = rows + batch.num_rows, held + batch.num_rows
            if held >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=_ROW_GROUP_ROWS)
                waiting, held = [], 0
        writer.write_table(pa.Table.from_batches(waiting, schema))
    return rows
