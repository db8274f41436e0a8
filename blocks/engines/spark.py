"""Spark: on a cluster for data that exceed one machine, or in local mode; same results as DuckDB."""

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
    """Runs queries on the single Spark session of this process, which starts with the first query (5 to 15 s).

    Input files and output folders must have the same path for driver and executors: one machine, a shared file system,
    or a bucket. `stop()` and the end of the process end the session.
    """

    _block_type_name = "Ratchet engine (Spark)"
    _block_type_slug = "ratchet-engine-spark"

    name: ClassVar[str] = "spark"

    master: str = Field("local[2]", description="Spark's master: local[threads], spark://host:7077, yarn, k8s://….")
    memory_mb: int = Field(
        1_500, ge=512, description="Heap of the driver in MB; in local mode the driver does all the work."
    )
    spill: Path | None = Field(None, description="Folder for temporary results; on a cluster a shared one.")
    batch_rows: int = Field(100_000, ge=1, description="Rows of a batch that `stream` returns.")
    configuration: dict[str, str] = Field(
        default_factory=dict,
        description="Additional Spark settings, such as spark.executor.memory; they override ours.",
    )

    @contextmanager
    def query_session(self, tables: QueryTables) -> Iterator[Callable[[str], pa.Table]]:
        """Yield a function that runs queries; Spark rejects results above `spark.driver.maxResultSize` (1 GB)."""
        spark = self._session_with_tables(tables)

        def run_query(sql: str) -> pa.Table:
            spark_sql = to_spark_sql(sql)
            with _port_errors(sql):
                return _without_metadata(spark.sql(spark_sql).toArrow())

        try:
            yield run_query
        finally:
            with suppress(Exception):  # fails if Spark has died
                for name in tables:
                    spark.catalog.dropTempView(name)

    def stream(self, sql: str, tables: QueryTables) -> pa.RecordBatchReader:
        """Return the result in batches, from files that Spark has written completely before the first batch."""
        batches = self._batches(sql, tables)
        schema: pa.Schema = next(batches)
        return pa.RecordBatchReader.from_batches(schema, batches)

    def write(self, sql: str, tables: QueryTables, to: Path) -> int:
        """Write one Parquet file for each of Spark's final partitions."""
        with atomic_folder(to) as folder:
            return self._write_files(sql, tables, folder)

    def map_batches(self, function: BatchFunction, sql: str, tables: QueryTables, schema: pa.Schema, to: Path) -> int:
        """Run the function in Spark's Python workers, once for each partition of the result."""
        with atomic_folder(to) as folder:
            return self._write_files(sql, tables, folder, CheckedFunction(function, schema))

    def stop(self) -> None:
        """End the session of this process, if there is one; the next query starts another."""
        stop_spark()

    def _batches(self, sql: str, tables: QueryTables) -> Iterator[pa.RecordBatch]:
        import pyarrow.parquet as pq

        with temporary_folder(self.spill, "ratchet-result-") as folder:
            self._write_files(sql, tables, folder)
            files = sorted(folder.iterdir())
            schema = pq.read_schema(files[0]).remove_metadata()
            yield schema
            for path in files:
                with pq.ParquetFile(path) as file:
                    for batch in file.iter_batches(self.batch_rows):
                        yield batch.replace_schema_metadata(None)

    def _write_files(self, sql: str, tables: QueryTables, folder: Path, mapping: CheckedFunction | None = None) -> int:
        """Let Spark write the result, or the function's output, as `rows-*.parquet`; return the number of rows."""
        import pyarrow.parquet as pq
        from pyspark.sql import Observation
        from pyspark.sql import functions as f

        parts, counter = folder / "parts", Observation()
        spark_sql, spark = to_spark_sql(sql), self._session_with_tables(tables)
        with _port_errors(sql):
            frame = spark.sql(spark_sql)
            mapped = self._apply_function(frame, mapping) if mapping else frame
            counted = mapped.observe(counter, f.count(f.lit(1)).alias("rows"))
            counted.write.option("compression", "zstd").parquet(parts.as_uri())
            expected = int(counter.get["rows"])
        for number, part in enumerate(sorted(parts.glob("part-*.parquet"))):
            part.rename(folder / f"rows-{number:05}.parquet")
        shutil.rmtree(parts)
        rows: int = sum(pq.read_metadata(file).num_rows for file in folder.iterdir())
        if rows != expected or not any(folder.iterdir()):
            problem = f"Spark wrote {expected} rows to {folder}, but it contains {rows}"
            raise Rejected(
                f"{problem}. Driver and executors must share the folder: set `spill` and the scratch folder."
            )
        return rows

    def _apply_function(self, frame: "DataFrame", mapping: CheckedFunction) -> "DataFrame":
        from pyspark.sql.pandas.types import from_arrow_schema

        frame.sparkSession.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(self.batch_rows))
        return frame.mapInArrow(mapping, from_arrow_schema(mapping.schema))

    def _session_with_tables(self, tables: QueryTables) -> "SparkSession":
        """Return a separate session with these tables, which no other query sees."""
        spark = new_spark_session(self.master, self.memory_mb, self.configuration)
        for name, files in tables.items():
            with _port_errors(f"the files of {name}"):
                _register(spark, name, checked_files(name, files))
        return spark


def _register(spark: "SparkSession", name: str, files: tuple[str, ...]) -> None:
    from pyspark.sql import functions as f

    urls = [re.sub(r"^s3://", "s3a://", file) for file in files]
    # Without this option Spark interprets every name as a pattern.
    reader = spark.read.option("__globPaths__", "false")
    frame = reader.option("mergeSchema", "true").parquet(*urls)
    if len(read := frame.inputFiles()) != len(files):
        problem = f"Spark reads {len(read)} of the {len(files)} files of {name!r}, such as {files[0]}"
        raise Rejected(f"{problem}: it skips names that begin with '_' or '.'. Rename them.")
    sizes = reader.format("binaryFile").load(urls) if any("://" in url for url in urls) else None
    empty = [row.path for row in sizes.where("length = 0").select("path").collect()] if sizes else _empty_files(files)
    if empty:
        raise Corrupt(f"{empty[0]} is an empty file, which Spark would skip. Fetch or write it again.")
    # Spark evaluates pushed-down comparisons by the files' minima and maxima, which ignore NaN, and would lose rows.
    # A comparison with a function's result is not pushed down; this function does not change values.
    floats = {field: f.nanvl(f.col(_quote_name(field)), f.lit(math.nan).cast(kind))
              for field, kind in frame.dtypes if kind in ("float", "double")}  # fmt: skip
    (frame.withColumns(floats) if floats else frame).createOrReplaceTempView(_quote_name(name))


def _empty_files(files: tuple[str, ...]) -> list[str]:
    return [file for file in files if Path(file).stat().st_size == 0]


def _quote_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _without_metadata(table: pa.Table) -> pa.Table:
    """Return the table without Spark's metadata."""
    fields = [pa.field(field.name, field.type) for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


@contextmanager
def _port_errors(sql: str) -> Iterator[None]:
    """Translate Spark's errors, of Python and Java, into port errors; `sql` is quoted in the message."""
    from py4j.protocol import Py4JError, Py4JNetworkError
    from pyspark.errors import PySparkException

    try:
        yield
    except PortError:
        raise
    except (Py4JNetworkError, ConnectionError) as cause:
        stop_spark()
        raise Unavailable(f"Spark has ended: {shorten(cause)}. The next attempt starts it again.") from cause
    except (PySparkException, Py4JError) as cause:
        raise _port_error(str(cause), sql) from cause


def _port_error(text: str, sql: str) -> PortError:
    if failed := parse_port_error(text):
        return failed
    conditions = [(match[1], f"{match[3]}") for match in _ERROR_CONDITION.finditer(text)]
    name, first = conditions[0] if conditions else ("", shorten(text, 400))
    message = f"{shorten(first, 400)} In: {shorten(sql)}"
    file_missing = any(sign in text for sign in _FILE_MISSING_SIGNS)
    if "FAILED_READ_FILE" in dict(conditions) or "is not a Parquet file" in text:
        return (NotFound if file_missing else Corrupt)(message)
    if name in _NOT_FOUND_CONDITIONS or file_missing:
        return NotFound(message)
    if "OutOfMemoryError" in text or "maxResultSize" in text:
        return Rejected(f"{message} Raise memory_mb of the engine, or query less at once.")
    if any(sign in text for sign in _EXECUTOR_LOST_SIGNS):
        return Unavailable(message)
    return Rejected(message)
