"""Spark: on a cluster for what one machine does not hold, or in local mode, with DuckDB's answers."""

import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
from pydantic import Field

from blocks.common.errors import Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.common.temporary_folders import temporary_folder
from blocks.engines.base import Engine, QueryTables
from blocks.engines.batch_functions import BatchFunction, CheckedFunction, parse_port_error
from blocks.engines.files import atomic_folder, checked_files, shorten
from blocks.engines.spark_session import new_spark_session, stop_spark
from blocks.engines.spark_sql import to_spark_sql

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ERROR_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+)((?:\.[A-Z0-9_]+)*)\] ?(.*)")
_NOT_FOUND_CONDITIONS = {"PATH_NOT_FOUND", "UNRESOLVED_COLUMN", "TABLE_OR_VIEW_NOT_FOUND", "UNRESOLVED_ROUTINE"}
_FILE_MISSING_SIGNS = ("FILE_NOT_EXIST", "FileNotFoundException", "does not exist")
_EXECUTOR_LOST_SIGNS = (
    "ExecutorLostFailure",
    "MetadataFetchFailedException",
    "FetchFailedException",
    "SparkContext was shut down",
)


class SparkEngine(Engine):
    """Runs each query on the one Spark session of this process, which starts with the first query (5 to 15 s).

    Files and the folders that are written must be at the same path for driver and executors: one machine, a shared
    file system, or a bucket. `stop()` ends the session; the end of the process does so as well.
    """

    _block_type_name = "Ratchet engine (Spark)"
    _block_type_slug = "ratchet-engine-spark"

    name: ClassVar[str] = "spark"

    master: str = Field("local[2]", description="Spark's master: local[threads], spark://host:7077, yarn, k8s://….")
    memory_mb: int = Field(1_500, ge=512, description="Heap of the driver in MB; in local mode it does all the work.")
    spill: Path | None = Field(None, description="Folder for answers on their way; on a cluster a shared one.")
    batch_rows: int = Field(100_000, ge=1, description="Rows of a batch that `stream` returns.")
    configuration: dict[str, str] = Field(
        default_factory=dict, description="More of Spark's settings, such as spark.executor.memory; they win over ours."
    )

    @contextmanager
    def query_session(self, tables: QueryTables) -> Iterator[Callable[[str], pa.Table]]:
        """Give whole answers; Spark refuses one above its setting `spark.driver.maxResultSize` (1 GB)."""
        spark = self._session_with_tables(tables)

        def ask(sql: str) -> pa.Table:
            words = to_spark_sql(sql)
            with _port_errors(sql):
                return _without_metadata(spark.sql(words).toArrow())

        try:
            yield ask
        finally:
            with suppress(Exception):  # a Spark that has died has no tables
                for name in tables:
                    spark.catalog.dropTempView(name)

    def stream(self, sql: str, tables: QueryTables) -> pa.RecordBatchReader:
        """Return the answer batch by batch, from files that Spark has written whole before the first batch."""
        batches = self._batches(sql, tables)
        schema: pa.Schema = next(batches)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def write(self, sql: str, tables: QueryTables, to: Path) -> int:
        """Write one Parquet file for each of Spark's last partitions."""
        with atomic_folder(to) as folder:
            return self._write_files(sql, tables, folder)

    def map_batches(self, function: BatchFunction, sql: str, tables: QueryTables, schema: pa.Schema, to: Path) -> int:
        """Run the function in Spark's Python workers, once for each partition of the answer."""
        with atomic_folder(to) as folder:
            return self._write_files(sql, tables, folder, CheckedFunction(function, schema))

    def stop(self) -> None:
        """End the session of this process, when there is one; the next query starts another."""
        stop_spark()

    def _batches(self, sql: str, tables: QueryTables) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with temporary_folder(self.spill, "ratchet-answer-") as folder:
            self._write_files(sql, tables, folder)
            files = sorted(folder.iterdir())
            schema = pq.read_schema(files[0]).remove_metadata()
            yield schema
            for path in files:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(self.batch_rows):
                        yield batch.replace_schema_metadata(None)

    def _write_files(self, sql: str, tables: QueryTables, folder: Path, mapping: CheckedFunction | None = None) -> int:
        """Let Spark write the answer, or what becomes of it, as `rows-*.parquet` below the folder; return the rows."""
        import pyarrow.parquet as pq
        from pyspark.sql import Observation
        from pyspark.sql import functions as f

        made, seen = folder / "made", Observation()
        words, spark = to_spark_sql(sql), self._session_with_tables(tables)
        with _port_errors(sql):
            frame = spark.sql(words)
            mapped = self._apply_function(frame, mapping) if mapping else frame
            watched = mapped.observe(seen, f.count(f.lit(1)).alias("rows"))
            watched.write.option("compression", "zstd").parquet(made.as_uri())
            expected = int(seen.get["rows"])
        for place, part in enumerate(sorted(made.glob("part-*.parquet"))):
            part.rename(folder / f"rows-{place:05}.parquet")
        shutil.rmtree(made)
        rows: int = sum(pq.read_metadata(file).num_rows for file in folder.iterdir())
        if rows != expected or not any(folder.iterdir()):
            problem = f"Spark wrote {expected} rows to {folder}, and {rows} are there"
            raise Rejected(
                f"{problem}. Driver and executors must share the folder: set `spill` and the scratch folder."
            )
        return rows

    def _apply_function(self, frame: "DataFrame", mapping: CheckedFunction) -> "DataFrame":
        from pyspark.sql.pandas.types import from_arrow_schema

        frame.sparkSession.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(self.batch_rows))
        return frame.mapInArrow(mapping, from_arrow_schema(mapping.schema))

    def _session_with_tables(self, tables: QueryTables) -> "SparkSession":
        """Return a session with these tables, of its own, so that no other query sees them."""
        spark = new_spark_session(self.master, self.memory_mb, self.configuration)
        for name, files in tables.items():
            with _port_errors(f"the files of {name}"):
                _register(spark, name, checked_files(name, files))
        return spark


def _register(spark: "SparkSession", name: str, files: tuple[str, ...]) -> None:
    from pyspark.sql import functions as f

    places = [re.sub(r"^s3://", "s3a://", file) for file in files]
    # Without this option Spark takes every name for a pattern, and a bracket in it for a choice.
    exactly = spark.read.option("__globPaths__", "false")
    frame = exactly.option("mergeSchema", "true").parquet(*places)
    if len(read := frame.inputFiles()) != len(files):
        problem = f"Spark reads {len(read)} of the {len(files)} files of {name!r}, such as {files[0]}"
        raise Rejected(f"{problem}: it passes over names that begin with '_' or '.'. Name them otherwise.")
    sizes = exactly.format("binaryFile").load(places) if any("://" in place for place in places) else None
    empty = [row.path for row in sizes.where("length = 0").select("path").collect()] if sizes else _empty_files(files)
    if empty:
        raise Corrupt(f"{empty[0]} is an empty file, which Spark would pass over. Fetch or write it again.")
    # A comparison pushed down to the files is judged by their minima and maxima, which leave NaN out: rows would be
    # lost. What goes through a function is not pushed down; this one changes nothing.
    floats = {field: f.nanvl(f.col(_quote_name(field)), f.lit(math.nan).cast(kind))
              for field, kind in frame.dtypes if kind in ("float", "double")}  # fmt: skip
    (frame.withColumns(floats) if floats else frame).createOrReplaceTempView(_quote_name(name))


def _empty_files(files: tuple[str, ...]) -> list[str]:
    return [file for file in files if Path(file).stat().st_size == 0]


def _quote_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _without_metadata(table: pa.Table) -> pa.Table:
    """Return the table without what Spark notes beside its columns."""
    fields = [pa.field(field.name, field.type) for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


@contextmanager
def _port_errors(what: str) -> Iterator[None]:
    """Raise the port's errors for Spark's, which come from Python, from Java, and from Java's threads."""
    from py4j.protocol import Py4JError, Py4JNetworkError
    from pyspark.errors import PySparkException

    try:
        yield
    except PortError:
        raise
    except (Py4JNetworkError, ConnectionError) as cause:
        stop_spark()
        raise Unavailable(f"Spark has gone away: {shorten(cause)}. The next try starts it anew.") from cause
    except (PySparkException, Py4JError) as cause:
        raise _port_error(str(cause), what) from cause


def _port_error(said: str, what: str) -> PortError:
    if failed := parse_port_error(said):
        return failed
    conditions = [(found[1], f"{found[3]}") for found in _ERROR_CONDITION.finditer(said)]
    name, message = conditions[0] if conditions else ("", shorten(said, 400))
    words = f"{shorten(message, 400)} In: {shorten(what)}"
    if "FAILED_READ_FILE" in dict(conditions) or "is not a Parquet file" in said:
        return (NotFound if any(sign in said for sign in _FILE_MISSING_SIGNS) else Corrupt)(words)
    if name in _NOT_FOUND_CONDITIONS or any(sign in said for sign in _FILE_MISSING_SIGNS):
        return NotFound(words)
    if "OutOfMemoryError" in said or "maxResultSize" in said:
        return Rejected(f"{words} Raise memory_mb of the engine, or ask for less at once.")
    if any(sign in said for sign in _EXECUTOR_LOST_SIGNS):
        return Unavailable(words)
    return Rejected(words)
