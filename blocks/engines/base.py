"""The engine port: SQL over Parquet files, in this process or on a cluster, with the same results."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
from prefect.blocks.core import Block

from blocks.engines.common import BatchFunction

QueryTables = Mapping[str, Sequence[str]]
"""Parquet files, as paths or s3:// URLs, by table name."""


class Engine(Block):
    """Runs SQL over Parquet files in bounded memory.

    SQL is written in DuckDB's dialect; other adapters translate it. In addition to standard SQL there is
    `bucket_of(text, first_digit)`: the bucket 0 to 9,999 of `docs/buckets.md`, int32 (`first_digit` 1 for tiers, 9 for
    the holdout). The files of a table are read in their order with union by name: a column that a file lacks is null.
    Rows have no order without `ORDER BY`.

    Errors of all methods:
        NotFound: a file, or a column or table in the SQL, does not exist.
        Corrupt: a file is not complete Parquet.
        Rejected: the SQL is wrong or fails on a value; the message has the engine's text.
    """

    name: ClassVar[str]

    def query(self, sql: str, tables: QueryTables) -> pa.Table:
        """Return a small result."""
        with self.query_session(tables) as run_query:
            return run_query(sql)

    @abstractmethod
    def query_session(self, tables: QueryTables) -> AbstractContextManager[Callable[[str], pa.Table]]:
        """Yield a function that runs several queries, one after the other, on files opened once.

        A failed query does not affect the others. Calls after the end of the context fail.
        """

    def stream(self, sql: str, tables: QueryTables) -> pa.RecordBatchReader:
        """Return a large result in batches; later errors are raised while the reader is read."""
        batches = self._batches(sql, tables)
        schema: pa.Schema = next(batches)
        return pa.RecordBatchReader.from_batches(schema, batches)

    @abstractmethod
    def _batches(self, sql: str, tables: QueryTables) -> Iterator[Any]:
        """Yield the schema of a result, and then its batches."""

    @abstractmethod
    def write(self, sql: str, tables: QueryTables, folder: Path) -> int:
        """Write the result atomically as `rows-*.parquet` in a new folder; return the number of rows.

        Files in the order of their names have the rows in the order of the SQL. Without rows there is one file with
        empty columns.

        Raises:
            Conflict: `folder` exists already.
        """

    @abstractmethod
    def map_batches(self, function: BatchFunction, sql: str, tables: QueryTables, schema: pa.Schema, to: Path) -> int:
        """Write the output of a function over the query result's batches, as `write` does; return the number of rows.

        The result is never completely in memory. The function gets an iterator over batches, of at most `batch_rows`
        rows or a few thousand, and yields batches of `schema`. It is called once, or once for each partition in
        processes that import it by its name. Its output must not depend on how rows are cut into batches and
        partitions. The iterator may be empty.

        Raises:
            Conflict: `to` exists already.
            PortError: the function raised one, which keeps its type.
            Rejected: the function raised another error, or yielded other columns than `schema`; nothing is written.
        """
