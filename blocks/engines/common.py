"""What the engines share: checks of file lists, atomic output folders, and batch functions.

A batch function is user code over the batches of a query result, with the same errors in every engine. On a cluster it
runs in Spark's Python processes, which return only the text of an error. So the error is serialised as one line of JSON
within that text.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from blocks.common import errors
from blocks.common.errors import Conflict, NotFound, PortError, Rejected
from runtime.files import flush

BatchFunction: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""Maps batches to batches: called once per process or partition, so it can prepare before the first batch."""

_ROW_GROUP_ROWS = 122_880  # DuckDB's unit of parallel work
_ERROR_PATTERN = re.compile(r"batch function failed: (\{.*\})$", re.MULTILINE)


class FunctionFailed(Exception):
    """An exception of the function, as text that Java passes on unchanged."""

    def __init__(self, error: Exception) -> None:
        error_type = type(error).__name__ if isinstance(error, PortError) else Rejected.__name__
        message = str(error) if isinstance(error, PortError) else f"{type(error).__name__}: {error}"
        super().__init__(
            f"batch function failed: {json.dumps({'error_type': error_type, 'message': shorten(message)})}"
        )


def parse_port_error(text: str) -> PortError | None:
    """Return the port error for a `FunctionFailed` within the text, or None if there is none.

    A port error keeps its type, so that a transient one is retried; all others become Rejected.
    """
    match = _ERROR_PATTERN.search(text)
    if match is None:
        return None
    failure = json.loads(match[1])
    error_class: type[PortError] = getattr(errors, failure["error_type"], Rejected)
    return error_class(f"the function over the rows failed: {failure['message']}")


@dataclass(frozen=True)
class CheckedFunction:
    """A batch function whose output is checked: every batch must have the columns and types of `schema`."""

    function: BatchFunction
    schema: pa.Schema

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield the output batches of the function.

        Raises:
            FunctionFailed: the function raised an error, or yielded other columns. Errors of the input batches are
                raised unchanged.
        """
        input_errors: list[Exception] = []

        def inputs() -> Iterator[pa.RecordBatch]:
            try:
                yield from batches
            except Exception as error:
                input_errors.append(error)
                raise

        try:
            for batch in self.function(inputs()):
                yield self._with_schema(batch)
        except Exception as error:
            if error in input_errors:
                raise
            raise FunctionFailed(error) from error

    def _with_schema(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        names, types = batch.schema.names, batch.schema.types
        if (names, types) != (self.schema.names, self.schema.types):
            expected, actual = (", ".join(f"{f.name} {f.type}" for f in each) for each in (self.schema, batch.schema))
            raise Rejected(f"it yielded the columns {actual}, expected {expected}. Correct the function.")
        return pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


def write_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, file: Path) -> int:
    """Write batches into one Parquet file with row groups of a good size; return the number of rows."""
    import pyarrow.parquet as pq

    waiting: list[pa.RecordBatch] = []
    rows = waiting_rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in batches:
            waiting.append(batch)
            rows, waiting_rows = rows + batch.num_rows, waiting_rows + batch.num_rows
            if waiting_rows >= _ROW_GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, schema), row_group_size=_ROW_GROUP_ROWS)
                waiting, waiting_rows = [], 0
        writer.write_table(pa.Table.from_batches(waiting, schema))
    return rows


def checked_files(name: str, files: Sequence[str]) -> tuple[str, ...]:
    """Return the files of a table in a query.

    Raises:
        NotFound: there are none.
        Rejected: a file is listed twice, which engines handle differently.
    """
    listed = tuple(map(str, files))
    if not listed:
        raise NotFound(f"there are no files for table {name!r}. Ingest first.")
    if len(set(listed)) < len(listed):
        duplicate = next(file for file in listed if listed.count(file) > 1)
        raise Rejected(f"table {name!r} lists the file {duplicate} twice. List each file once.")
    return listed


@contextmanager
def atomic_folder(to: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it is renamed to `to`, or removed if the body fails.

    A killed process leaves a folder `.<name>-…`, never a partial `to`.

    Raises:
        Conflict: `to` exists before or after the work.
    """
    if to.exists():
        raise Conflict(f"{to} exists already. Remove it, or write to another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        folder.chmod(0o755)  # mkdtemp gives access to the owner only
        yield folder
        for path in (*folder.iterdir(), folder):
            flush(path)
        _rename(folder, to)
        flush(to.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shorten(message: object, max_length: int = 600) -> str:
    """Return a message in one line of at most `max_length` characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= max_length else f"{text[:max_length]}…"


def _rename(folder: Path, to: Path) -> None:
    try:
        folder.rename(to)
    except OSError as cause:
        if to.exists():
            raise Conflict(f"{to} exists already: another writer was first.") from cause
        raise
