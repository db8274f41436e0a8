"""DuckDB in this process: the default engine, on one machine, for what fits its disk."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import Field

from blocks.common.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.common.temporary_folders import temporary_folder
from blocks.engines.base import Engine, QueryTables
from blocks.engines.batch_functions import (
    BatchFunction,
    CheckedFunction,
    FunctionFailed,
    parse_port_error,
    write_batches,
)
from blocks.engines.files import atomic_folder, checked_files, shorten

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BUCKET_OF = """CREATE MACRO bucket_of(value, first_digit) AS
    CAST(CAST('0x' || substr(md5(value), first_digit, 8) AS BIGINT) % 10000 AS INTEGER)"""

_DISABLE_DISTINCT_REWRITE = "SET disabled_optimizers = 'distinct_aggregate_rewrite'"
"""Without this a query with count(DISTINCT x) beside other aggregates holds all rows it reads, all at once (2.0.0)."""


class DuckDBEngine(Engine):
    """Runs statements in a connection of their own, which spills to disk above its memory limit."""

    _block_type_name = "Ratchet engine (DuckDB)"
    _block_type_slug = "ratchet-engine-duckdb"

    name: ClassVar[str] = "duckdb"

    memory_limit_mb: int = Field(
        1_500, ge=100, description="Memory that a statement may take, in MB, before it spills."
    )
    threads: int = Field(2, ge=1, description="Threads of a statement.")
    spill: Path | None = Field(None, description="Folder for what does not fit in memory; empty: the system's own.")
    batch_rows: int = Field(100_000, ge=1, description="Rows of a batch that `stream` returns.")

    s3_endpoint_url: str | None = Field(None, description="For s3:// URLs: another service than AWS, such as MinIO.")
    s3_region: str | None = Field(None, description="For s3:// URLs: the region; the SDK's own choice when empty.")

    @contextmanager
    def query_session(self, tables: QueryTables) -> Iterator[Callable[[str], pa.Table]]:
        """Give the whole answers of one connection."""
        with self._connection(tables) as connection:

            def ask(sql: str) -> pa.Table:
                with _port_errors(sql):
                    return connection.sql(_one_query(connection, sql)).to_arrow_table()

            yield ask

    def stream(self, sql: str, tables: QueryTables) -> pa.RecordBatchReader:
        """Return the answer batch by batch; the connection lives until the reader is read to its end or closed."""
        batches = self._batches(sql, tables)
        schema: pa.Schema = next(batches)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def write(self, sql: str, tables: QueryTables, to: Path) -> int:
        """Write one Parquet file, `rows-00000.parquet`: beside its place first, then renamed."""
        with atomic_folder(to) as folder, self._connection(tables) as connection, _port_errors(sql):
            file = str(folder / "rows-00000.parquet").replace("'", "''")
            copy = f"COPY ({_one_query(connection, sql)}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
            answer = connection.execute(copy).fetchone()
        return int(answer[0]) if answer else 0

    def map_batches(self, function: BatchFunction, sql: str, tables: QueryTables, schema: pa.Schema, to: Path) -> int:
        """Stream the answer through the function in this process into one file, `rows-00000.parquet`."""
        with atomic_folder(to) as folder, self._connection(tables) as connection, _port_errors(sql):
            reader = connection.sql(_one_query(connection, sql)).to_arrow_reader(self.batch_rows)
            return write_batches(CheckedFunction(function, schema)(reader), schema, folder / "rows-00000.parquet")

    def _batches(self, sql: str, tables: QueryTables) -> Iterator[pa.RecordBatch]:
        with self._connection(tables) as connection, _port_errors(sql):
            reader = connection.sql(_one_query(connection, sql)).to_arrow_reader(self.batch_rows)
            yield reader.schema
            yield from reader

    @contextmanager
    def _connection(self, tables: QueryTables) -> Iterator["DuckDBPyConnection"]:
        import duckdb  # here, because it costs 0.1 s

        with temporary_folder(self.spill, "ratchet-spill-") as spill:
            settings = {
                "memory_limit": f"{self.memory_limit_mb}MB",
                "threads": self.threads,
                "temp_directory": str(spill),
                "preserve_insertion_order": True,
                "autoinstall_known_extensions": False,
                "parquet_metadata_cache": True,  # a footer is looked at twice
            }
            with duckdb.connect(config=settings) as connection:
                connection.execute(_BUCKET_OF)
                connection.execute("SET TimeZone = 'UTC'")
                connection.execute(_DISABLE_DISTINCT_REWRITE)
                for name, files in tables.items():
                    with _port_errors(f"the files of {name}"):
                        self._register(connection, name, checked_files(name, files))
                yield connection

    def _register(self, connection: "DuckDBPyConnection", name: str, files: tuple[str, ...]) -> None:
        if any(file.startswith("s3://") for file in files):
            connection.register(f"files of {name}", self._s3_dataset(files))
            scan = f"FROM {_quote_name(f'files of {name}')}"
        else:
            listed = ", ".join("'" + _escape_glob(file).replace("'", "''") + "'" for file in files)
            scan = f"FROM read_parquet([{listed}], union_by_name = true)"
        found = connection.sql(f"SELECT * {scan}")
        # DuckDB judges a comparison, and a minimum, by the files' statistics, which leave NaN out: rows would be lost.
        # TRY changes no value of a column, and keeps its statistics out of sight; only floats are read through it.
        kinds = zip(map(_quote_name, found.columns), map(str, found.types), strict=True)
        floats = ", ".join(f"TRY({column}) AS {column}" for column, kind in kinds if kind in ("FLOAT", "DOUBLE"))
        replaced = f"REPLACE ({floats})" if floats else ""
        connection.execute(f"CREATE VIEW {_quote_name(name)} AS SELECT * {replaced} {scan}")

    def _s3_dataset(self, files: tuple[str, ...]) -> object:
        """Return a bucket's files as one data set that DuckDB reads through Arrow, with the columns of all of them."""
        import pyarrow.dataset as ds
        from pyarrow import fs

        # Endpoint and region are given only when known: what is left out is the SDK's own choice.
        known = {"endpoint_override": self.s3_endpoint_url, "region": self.s3_region}
        store = fs.S3FileSystem(**{key: value for key, value in known.items() if value})
        paths = [file.removeprefix("s3://") for file in files]
        pieces = [ds.dataset(path, filesystem=store, format="parquet") for path in paths]
        schema = pa.unify_schemas([piece.schema for piece in pieces])
        return ds.dataset(paths, schema=schema, filesystem=store, format="parquet")


def _one_query(connection: "DuckDBPyConnection", sql: str) -> str:
    """Return the query's text when it is one query and nothing else: DuckDB would run whatever it is given."""
    import duckdb

    statements = connection.extract_statements(sql)
    if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
        raise Rejected(f"this is not one query, as SELECT or WITH begin it: {shorten(sql, 300)}")
    return str(statements[0].query).rstrip("; \n")


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _escape_glob(file: str) -> str:
    """Return the pattern that only this file matches: DuckDB takes every name for a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", file)


@contextmanager
def _port_errors(what: str) -> Iterator[None]:
    """Raise the port's errors for DuckDB's."""
    import duckdb

    try:
        yield
    except PortError:
        raise
    except FunctionFailed as failed:
        raise parse_port_error(str(failed)) or failed from failed.__cause__
    except (duckdb.CatalogException, duckdb.BinderException) as cause:
        raise NotFound(f"{shorten(cause)} In: {shorten(what)}") from cause
    except duckdb.IOException as cause:
        missing = "No files found" in str(cause) or "No such file" in str(cause)
        raise (NotFound if missing else Unavailable)(f"{shorten(cause)} Look at the file and the disk.") from cause
    except duckdb.InvalidInputException as cause:
        parquet = "parquet" in str(cause).lower()
        raise (Corrupt if parquet else Rejected)(f"{shorten(cause)} In: {shorten(what)}") from cause
    except duckdb.OutOfMemoryException as cause:
        raise Rejected(f"{shorten(cause)} Raise memory_limit_mb of the engine, or free its disk.") from cause
    except FileNotFoundError as cause:
        raise NotFound(f"{shorten(cause)} In: {shorten(what)}") from cause
    except pa.ArrowInvalid as cause:
        raise Corrupt(f"{shorten(cause)} In: {shorten(what)}") from cause
    except OSError as cause:
        raise Unavailable(f"{shorten(cause)} In: {shorten(what)}") from cause
    except duckdb.Error as cause:
        raise Rejected(f"{shorten(cause)} In: {shorten(what)}") from cause
