"""DuckDB in this process: the default engine, for data that fit the disk of one machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import Field

from blocks.common.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.common.temporary_folders import temporary_folder
from blocks.engines.base import Engine, QueryTables
from blocks.engines.common import (
    BatchFunction,
    CheckedFunction,
    FunctionFailed,
    atomic_folder,
    checked_files,
    parse_port_error,
    shorten,
    write_batches,
)
from runtime.duckdb_files import scan_sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BUCKET_OF = """CREATE MACRO bucket_of(value, first_digit) AS
    CAST(CAST('0x' || substr(md5(value), first_digit, 8) AS BIGINT) % 10000 AS INTEGER)"""

_DISABLE_DISTINCT_REWRITE = "SET disabled_optimizers = 'distinct_aggregate_rewrite'"
"""With this rewrite, count(DISTINCT x) beside other aggregates keeps all rows in memory at once (2.0.0)."""


class DuckDBEngine(Engine):
    """Runs each statement in its own connection, which spills to disk above its memory limit."""

    _block_type_name = "Ratchet engine (DuckDB)"
    _block_type_slug = "ratchet-engine-duckdb"

    name: ClassVar[str] = "duckdb"

    memory_limit_mb: int = Field(
        1_500, ge=100, description="Memory in MB that a statement may use before it spills to disk."
    )
    threads: int = Field(2, ge=1, description="Threads of a statement.")
    spill: Path | None = Field(
        None, description="Folder for data that do not fit in memory; None: the system's temporary folder."
    )
    batch_rows: int = Field(100_000, ge=1, description="Rows of a batch that `stream` returns.")

    s3_endpoint_url: str | None = Field(
        None, description="For s3:// URLs: endpoint URL of another service than AWS, such as MinIO."
    )
    s3_region: str | None = Field(None, description="For s3:// URLs: the region; None: the SDK's default.")

    @contextmanager
    def query_session(self, tables: QueryTables) -> Iterator[Callable[[str], pa.Table]]:
        """Yield a function that runs queries on one connection."""
        with self._connection(tables) as connection:

            def run_query(sql: str) -> pa.Table:
                with _port_errors(sql):
                    return connection.sql(_one_query(connection, sql)).to_arrow_table()

            yield run_query

    def write(self, sql: str, tables: QueryTables, to: Path) -> int:
        """Write one Parquet file, `rows-00000.parquet`, into a temporary folder that is then renamed."""
        with atomic_folder(to) as folder, self._connection(tables) as connection, _port_errors(sql):
            file = str(folder / "rows-00000.parquet").replace("'", "''")
            copy = f"COPY ({_one_query(connection, sql)}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
            result = connection.execute(copy).fetchone()
        return int(result[0]) if result else 0

    def map_batches(self, function: BatchFunction, sql: str, tables: QueryTables, schema: pa.Schema, to: Path) -> int:
        """Stream the result through the function in this process into one file, `rows-00000.parquet`."""
        with atomic_folder(to) as folder, self._connection(tables) as connection, _port_errors(sql):
            reader = connection.sql(_one_query(connection, sql)).to_arrow_reader(self.batch_rows)
            return write_batches(CheckedFunction(function, schema)(reader), schema, folder / "rows-00000.parquet")

    def _batches(self, sql: str, tables: QueryTables) -> Iterator[Any]:
        """Yield schema and batches; the connection stays open until the last one."""
        with self._connection(tables) as connection, _port_errors(sql):
            reader = connection.sql(_one_query(connection, sql)).to_arrow_reader(self.batch_rows)
            yield reader.schema
            yield from reader

    @contextmanager
    def _connection(self, tables: QueryTables) -> Iterator["DuckDBPyConnection"]:
        import duckdb  # imported here, since it takes 0.1 s

        with temporary_folder(self.spill, "ratchet-spill-") as spill:
            settings = {
                "memory_limit": f"{self.memory_limit_mb}MB",
                "threads": self.threads,
                "temp_directory": str(spill),
                "preserve_insertion_order": True,
                "autoinstall_known_extensions": False,
                "parquet_metadata_cache": True,  # footers are read twice
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
            scan = f"FROM {scan_sql(files, 'union_by_name = true')}"
        relation = connection.sql(f"SELECT * {scan}")
        # DuckDB evaluates comparisons and minima by the files' statistics, which ignore NaN, and would lose rows. TRY
        # does not change values, but hides the statistics; only floats are read through it.
        kinds = zip(map(_quote_name, relation.columns), map(str, relation.types), strict=True)
        floats = ", ".join(f"TRY({column}) AS {column}" for column, kind in kinds if kind in ("FLOAT", "DOUBLE"))
        replaced = f"REPLACE ({floats})" if floats else ""
        connection.execute(f"CREATE VIEW {_quote_name(name)} AS SELECT * {replaced} {scan}")

    def _s3_dataset(self, files: tuple[str, ...]) -> object:
        """Return the files of a bucket as one Arrow data set for DuckDB, with the columns of all files."""
        import pyarrow.dataset as ds
        from pyarrow import fs

        # Without endpoint or region the SDK uses its default.
        settings = {"endpoint_override": self.s3_endpoint_url, "region": self.s3_region}
        store = fs.S3FileSystem(**{key: value for key, value in settings.items() if value})
        paths = [file.removeprefix("s3://") for file in files]
        datasets = [ds.dataset(path, filesystem=store, format="parquet") for path in paths]
        schema = pa.unify_schemas([dataset.schema for dataset in datasets])
        return ds.dataset(paths, schema=schema, filesystem=store, format="parquet")


def _one_query(connection: "DuckDBPyConnection", sql: str) -> str:
    """Return the text of a single query. Raises Rejected for anything else, since DuckDB would run any statement."""
    import duckdb

    statements = connection.extract_statements(sql)
    if [each.type for each in statements] != [duckdb.StatementType.SELECT]:
        raise Rejected(f"this is not a single query that begins with SELECT or WITH: {shorten(sql, 300)}")
    return str(statements[0].query).rstrip("; \n")


def _quote_name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _port_errors(sql: str) -> Iterator[None]:
    """Translate DuckDB's errors into port errors; `sql` is quoted in the message."""
    import duckdb

    try:
        yield
    except PortError:
        raise
    except FunctionFailed as failed:
        raise parse_port_error(str(failed)) or failed from failed.__cause__
    except (duckdb.CatalogException, duckdb.BinderException, FileNotFoundError) as cause:
        raise NotFound(f"{shorten(cause)} In: {shorten(sql)}") from cause
    except duckdb.IOException as cause:
        missing = "No files found" in str(cause) or "No such file" in str(cause)
        raise (NotFound if missing else Unavailable)(f"{shorten(cause)} Check the file and the disk.") from cause
    except duckdb.InvalidInputException as cause:
        parquet = "parquet" in str(cause).lower()
        raise (Corrupt if parquet else Rejected)(f"{shorten(cause)} In: {shorten(sql)}") from cause
    except duckdb.OutOfMemoryException as cause:
        raise Rejected(f"{shorten(cause)} Raise memory_limit_mb of the engine, or free its disk.") from cause
    except pa.ArrowInvalid as cause:
        raise Corrupt(f"{shorten(cause)} In: {shorten(sql)}") from cause
    except OSError as cause:
        raise Unavailable(f"{shorten(cause)} In: {shorten(sql)}") from cause
    except duckdb.Error as cause:
        raise Rejected(f"{shorten(cause)} In: {shorten(sql)}") from cause
