"""The engine port: SQL over Parquet files, in this process or on a cluster, with the same answers."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
from prefect.blocks.core import Block

from blocks.engines.batch_functions import BatchFunction

QueryTables = Mapping[str, Sequence[str]]
"""What the names in a query stand for: Parquet files, as paths or s3:// URLs."""


class Engine(Block):
    """Where SQL over Parquet files is computed, in bounded memory.

    SQL is written in DuckDB's dialect; an adapter for another engine translates it. Besides standard SQL there
    is `bucket_of(text, first_digit)`: the bucket 0 to 9,999 of `docs/buckets.md`, int32 (`first_digit` 1 is the
    tier's, 9 the holdout's). The files of one name are read in their order with union by name: a column that a
    file lacks is null there. Rows have no order but that of `ORDER BY`.

    Errors of all methods:
        NotFound: a file, or a column or table that the SQL names, is not there.
        Corrupt: a file is not whole Parquet.
        Rejected: the SQL is wrong or fails on a value; the message carries the engine's words.
    """

    name: ClassVar[str]

    def query(self, sql: str, tables: QueryTables) -> pa.Table:
        """Return a small answer."""
        with self.query_session(tables) as ask:
            return ask(sql)

    @abstractmethod
    def query_session(self, tables: QueryTables) -> AbstractContextManager[Callable[[str], pa.Table]]:
        """Give `query` for several questions, one after the other, about files that are opened once.

        A question that fails leaves the others unharmed. What is asked after the end fails.
        """

    @abstractmethod
    def stream(self, sql: str, tables: QueryTables) -> pa.RecordBatchReader:
        """Return a large answer, batch by batch; what goes wrong later is raised while it is read."""

    @abstractmethod
    def write(self, sql: str, tables: QueryTables, folder: Path) -> int:
        """Write the answer as `rows-*.parquet` in a new folder, whole or not at all; return the number of rows.

        Files in the order of their names hold the rows in the order of the SQL. Without rows there is one file
        with the columns and nothing in them.

        Raises:
            Conflict: `folder` is there already.
        """

    @abstractmethod
    def map_batches(self, function: BatchFunction, sql: str, tables: QueryTables, schema: pa.Schema, to: Path) -> int:
        """Write what a function makes of the answer's batches, as `write` does; return the number of rows.

        The answer is never held as a whole. The function is called with an iterator over batches, of at most
        `batch_rows` rows or a few thousand, and yields batches of `schema`: once for all, or once for each
        partition, in processes that import it by its name. How the rows are cut into batches and partitions
        must not matter to it. What it prepares before the first batch may find that there is none.

        Raises:
            Conflict: `to` is there already.
            PortError: the function raised one: it keeps its type.
            Rejected: the function raised anything else, or gave other columns than `schema`; nothing is written.
        """
