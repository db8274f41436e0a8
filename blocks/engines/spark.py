"""Spark: on a cluster for data that exceed one machine, or in local mode; same results as DuckDB.

sqlglot translates the SQL from DuckDB's dialect to Spark's; SQL without an equivalent is rejected, not guessed.
"""

import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa
from pydantic import Field

from blocks.common.errors import Corrupt, Rejected
from blocks.common.temporary_folders import temporary_folder
from blocks.engines.base import Engine, QueryTables
from blocks.engines.common import BatchFunction, CheckedFunction, atomic_folder, checked_files
from blocks.engines.spark_session import new_spark_session, port_errors, stop_spark

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from sqlglot import exp

_INFINITY = "CAST('Infinity' AS DOUBLE)"
_BUCKET_DIGITS = "substr(md5(CAST(CAST(a0 AS STRING) AS BINARY)), a1, 8)"
_FUNCTIONS: dict[str, tuple[int, str]] = {
    "bucket_of": (2, f"CAST(CAST(conv({_BUCKET_DIGITS}, 16, 10) AS BIGINT) % 10000 AS INT)"),
    "isfinite": (1, f"(abs(a0) < {_INFINITY})"),
    "is_inf": (1, f"(abs(a0) = {_INFINITY})"),
    "epoch_us": (1, "unix_micros(CAST(a0 AS TIMESTAMP_LTZ))"),
    "strlen": (1, "octet_length(a0)"),
    "regexp_full_match": (2, r"(a0 RLIKE concat('^(?:', a1, ')\\z'))"),
    "percentile_cont": (2, "percentile(a0, a1)"),
    "percentile_disc": (2, "percentile_disc(a1) WITHIN GROUP (ORDER BY a0)"),
}  # fmt: skip
"""By sqlglot's or DuckDB's function name: the number of arguments, and Spark's SQL (a0, a1: the arguments)."""

_TYPES = {"INT128": "DECIMAL(38, 0)", "UINT128": "DECIMAL(38, 0)", "TIMESTAMPTZ": "TIMESTAMP_LTZ"}
"""Spark's type by sqlglot's name, for types that sqlglot translates wrongly."""

_ROUNDED_CAST = "CASE WHEN typeof(a0) IN ('float', 'double') THEN {1}(rint(try_cast(a0 AS DOUBLE)) AS {0}) ELSE a1 END"
"""DuckDB rounds a double that is cast to an integer, Spark truncates it; Spark evaluates `typeof` in planning."""


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
            with port_errors(sql):
                return _without_metadata(spark.sql(spark_sql).toArrow())

        try:
            yield run_query
        finally:
            with suppress(Exception):  # fails if Spark has died
                for name in tables:
                    spark.catalog.dropTempView(name)

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

    def _batches(self, sql: str, tables: QueryTables) -> Iterator[Any]:
        """Yield schema and batches of files that Spark has written completely."""
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
        from pyspark.sql.pandas.types import from_arrow_schema

        parts, counter = folder / "parts", Observation()
        spark_sql, spark = to_spark_sql(sql), self._session_with_tables(tables)
        with port_errors(sql):
            frame = spark.sql(spark_sql)
            if mapping:
                spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(self.batch_rows))
                frame = frame.mapInArrow(mapping, from_arrow_schema(mapping.schema))
            counted = frame.observe(counter, f.count(f.lit(1)).alias("rows"))
            counted.write.option("compression", "zstd").parquet(f"file://{parts}")  # as_uri() would write "=" as %3D
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

    def _session_with_tables(self, tables: QueryTables) -> "SparkSession":
        """Return a separate session with these tables, which no other query sees."""
        spark = new_spark_session(self.master, self.memory_mb, self.configuration)
        for name, files in tables.items():
            with port_errors(f"the files of {name}"):
                _register(spark, name, checked_files(name, files))
        return spark


def _register(spark: "SparkSession", name: str, files: tuple[str, ...]) -> None:
    from pyspark.sql import functions as f

    urls = [re.sub(r"^s3://", "s3a://", file) for file in files]
    # Without these options Spark interprets every name as a pattern, and folders `name=value/` as columns.
    reader = spark.read.option("__globPaths__", "false").option("recursiveFileLookup", "true")
    frame = reader.option("mergeSchema", "true").parquet(*urls)
    if len(read := frame.inputFiles()) != len(files):
        problem = f"Spark reads {len(read)} of the {len(files)} files of {name!r}, such as {files[0]}"
        raise Rejected(f"{problem}: it skips names that begin with '_' or '.'. Rename them.")
    if any("://" in url for url in urls):
        sizes = reader.format("binaryFile").load(urls)
        empty = [row.path for row in sizes.where("length = 0").select("path").collect()]
    else:
        empty = [file for file in files if Path(file).stat().st_size == 0]
    if empty:
        raise Corrupt(f"{empty[0]} is an empty file, which Spark would skip. Fetch or write it again.")
    # Spark evaluates pushed-down comparisons by the files' minima and maxima, which ignore NaN, and would lose rows.
    # A comparison with a function's result is not pushed down; this function does not change values.
    floats = {field: f.nanvl(f.col(_quote_name(field)), f.lit(math.nan).cast(kind))
              for field, kind in frame.dtypes if kind in ("float", "double")}  # fmt: skip
    (frame.withColumns(floats) if floats else frame).createOrReplaceTempView(_quote_name(name))


def _quote_name(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _without_metadata(table: pa.Table) -> pa.Table:
    """Return the table without Spark's metadata."""
    fields = [pa.field(field.name, field.type) for field in table.schema]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def to_spark_sql(sql: str) -> str:
    """Translate one query from DuckDB's dialect to Spark's.

    Raises:
        Rejected: the query cannot be parsed, or uses a feature without an equivalent in Spark.
    """
    import sqlglot
    from sqlglot import ErrorLevel, errors, exp

    try:
        trees = [tree for tree in sqlglot.parse(sql, read="duckdb") if tree is not None]
        if len(trees) != 1 or not isinstance(trees[0], exp.Query):
            raise Rejected(f"this is not a single query that begins with SELECT or WITH: {sql[:300]}")
        for join in trees[0].find_all(exp.Join):
            if join.method and join.method.upper() != "NATURAL":
                raise Rejected(f"Spark has no {join.method.upper()} JOIN. Write it with a window function.")
        if trees[0].find(exp.TableSample):
            raise Rejected("A random sample has other rows on each engine. Filter on bucket_of instead.")
        for node in reversed(list(trees[0].dfs())):  # leaves first: a replacement contains its replaced children
            replacement = _rewrite_node(node)
            if replacement is not None:
                node.replace(replacement)
        return str(trees[0].sql(dialect="spark", unsupported_level=ErrorLevel.RAISE))
    except (errors.SqlglotError, RecursionError) as cause:
        raise Rejected(f"{' '.join(str(cause).split())[:400]} In: {sql[:300]}") from cause


def _rewrite_node(node: "exp.Expr") -> "exp.Expr | None":
    """Return the node's replacement on Spark, or None if sqlglot translates it correctly."""
    from sqlglot import exp

    if isinstance(node, exp.DataType):
        instead = _TYPES.get(node.this.value)
        return exp.DataType.build(instead, dialect="spark") if instead else None
    if isinstance(node, exp.Cast):
        to = node.to.sql(dialect="spark")
        word = "try_cast" if isinstance(node, exp.TryCast) else "cast"
        whole = to in ("TINYINT", "SMALLINT", "INT", "BIGINT") and not isinstance(node.this, exp.Literal)
        return _fill_pattern(_ROUNDED_CAST.format(to, word), node.this, node) if whole else None
    if not isinstance(node, exp.Func):
        return None
    name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
    if name not in _FUNCTIONS:
        return None
    given = node.expressions if isinstance(node, exp.Anonymous) else [each for each in node.args.values() if each]
    count, pattern = _FUNCTIONS[name]
    if len(given) != count:
        raise Rejected(f"{name} takes {count} arguments here, not {len(given)}")
    return _fill_pattern(pattern, *given)


def _fill_pattern(pattern: str, *given: "exp.Expr") -> "exp.Expr":
    """Return Spark's SQL with the arguments in their places."""
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(f"SELECT {pattern}", read="spark").expressions[0]
    places = {f"a{place}": each for place, each in enumerate(given)}
    for column in list(tree.find_all(exp.Column)):
        column.replace(places[column.name].copy())
    return cast("exp.Expr", tree)
