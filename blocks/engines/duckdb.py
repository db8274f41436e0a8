"""DuckDB in this process: the default engine, on one machine, for what fits its disk."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import Field

from blocks.engines.base import Engine, Tables
from blocks.errors import Conflict, Corrupt, NotFound, PortError, Rejected, Unavailable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_BUCKET_OF = """CREATE MACRO bucket_of(value, first_digit) AS
    CAST(CAST('0x' || substr(md5(value), first_digit, 8) AS BIGINT) % 10000 AS INTEGER)"""


class DuckDBEngine(Engine):
    """Runs each statement in a connection of its own, which spills to disk above its memory limit."""

    _block_type_name = "Ratchet engine (DuckDB)"
    _block_type_slug = "ratchet-engine-duckdb"

    name: ClassVar[str] = "duckdb"

    memory_limit_mb: int = Field(
        1_500, ge=100, description="Memory that a statement may take, in MB, before it spills."
    )
    threads: int = Field(2, ge=1, description="Threads of a statement.")
    spill: Path | None = Field(None, description="Folder for what does not fit in memory; empty: the system's own.")
    batch_rows: int = Field(100_000, ge=1, description="Rows of a batch that `stream` returns.")

    def query(self, sql: str, tables: Tables) -> pa.Table:
        """Return the whole answer."""
        with self._connected(tables) as connection, _port_errors(sql):
            return connection.sql(sql).to_arrow_table()

    def stream(self, sql: str, tables: Tables) -> pa.RecordBatchReader:
        """Return the answer batch by batch; the connection lives until the reader is read to its end or closed."""
        batches = self._batches(sql, tables)
        schema: pa.Schema = next(batches)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def write(self, sql: str, tables: Tables, to: Path) -> int:
        """Write one Parquet file, `rows-00000.parquet`: beside its place first, then renamed."""
        if to.exists():
            raise Conflict(f"{to} is there already. Remove it, or write to another folder.")
        to.parent.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
        try:
            file = str(staged / "rows-00000.parquet").replace("'", "''")
            copy = f"COPY ({sql}) TO '{file}' (FORMAT parquet, COMPRESSION zstd)"
            with self._connected(tables) as connection, _port_errors(sql):
                answer = connection.execute(copy).fetchone()
            _rename(staged, to)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        return int(answer[0]) if answer else 0

    def _batches(self, sql: str, tables: Tables) -> Iterator[pa.RecordBatch]:
        with self._connected(tables) as connection, _port_errors(sql):
            reader = connection.sql(sql).to_arrow_reader(self.batch_rows)
            yield reader.schema
            yield from reader

    @contextmanager
    def _connected(self, tables: Tables) -> Iterator["DuckDBPyConnection"]:
        import duckdb  # here, because it costs 0.1 s

        spill = tempfile.mkdtemp(prefix="ratchet-spill-", dir=self.spill)
        settings = {
            "memory_limit": f"{self.memory_limit_mb}MB",
            "threads": self.threads,
            "temp_directory": spill,
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
        }
        try:
            with duckdb.connect(config=settings) as connection:
                connection.execute(_BUCKET_OF)
                connection.execute("SET TimeZone = 'UTC'")
                for name, files in tables.items():
                    with _port_errors(f"the files of {name}"):
                        _register(connection, name, tuple(map(str, files)))
                yield connection
        finally:
            shutil.rmtree(spill, ignore_errors=True)


def _register(connection: "DuckDBPyConnection", name: str, files: tuple[str, ...]) -> None:
    if not files:
        raise NotFound(f"there are no files for {name!r}. Ingest first.")
    if any(file.startswith("s3://") for file in files):
        connection.register(name, _on_s3(files))
        return
    listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
    view = '"' + name.replace('"', '""') + '"'
    connection.execute(f"CREATE VIEW {view} AS SELECT * FROM read_parquet([{listed}], union_by_name = true)")  # noqa: S608


def _on_s3(files: tuple[str, ...]) -> object:
    """Return the files of a bucket as a data set that DuckDB reads through Arrow, with the columns of all of them."""
    import pyarrow.dataset as ds
    from pyarrow import fs

    store = fs.S3FileSystem()
    paths = [file.removeprefix("s3://") for file in files]
    pieces = [ds.dataset(path, filesystem=store, format="parquet") for path in paths]
    schema = pa.unify_schemas([piece.schema for piece in pieces])
    return ds.dataset(paths, schema=schema, filesystem=store, format="parquet")


def _rename(staged: Path, to: Path) -> None:
    try:
        staged.chmod(0o755)  # mkdtemp's folders are for their maker alone
        staged.rename(to)
    except OSError as cause:
        if to.exists():
            raise Conflict(f"{to} is there already: another writer was first.") from cause
        raise


@contextmanager
def _port_errors(what: str) -> Iterator[None]:
    """Raise the port's errors for DuckDB's."""
    import duckdb

    try:
        yield
    except PortError:
        raise
    except (duckdb.CatalogException, duckdb.BinderException) as cause:
        raise NotFound(f"{_brief(cause)} In: {_brief(what)}") from cause
    except duckdb.IOException as cause:
        missing = "No files found" in str(cause) or "No such file" in str(cause)
        raise (NotFound if missing else Unavailable)(f"{_brief(cause)} Look at the file and the disk.") from cause
    except duckdb.InvalidInputException as cause:
        parquet = "parquet" in str(cause).lower()
        raise (Corrupt if parquet else Rejected)(f"{_brief(cause)} In: {_brief(what)}") from cause
    except duckdb.OutOfMemoryException as cause:
        raise Rejected(f"{_brief(cause)} Raise memory_limit_mb of the engine, or free its disk.") from cause
    except duckdb.Error as cause:
        raise Rejected(f"{_brief(cause)} In: {_brief(what)}") from cause


def _brief(words: object) -> str:
    text = " ".join(str(words).split())
    return text if len(text) <= 600 else f"{text[:600]}…"
