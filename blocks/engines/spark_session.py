"""The single Spark session of a process, and its errors.

It is started on first use, on the loopback interface, and ends with the process, or when its Java process is lost.
"""

import atexit
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocks.common.errors import Conflict, Corrupt, NotFound, PortError, Rejected, Unavailable
from blocks.engines.common import parse_port_error, shorten

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_REQUIRED_SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.timestampType": "TIMESTAMP_NTZ",  # as DuckDB's TIMESTAMP; with a zone it is TIMESTAMP_LTZ
    "spark.sql.ansi.enabled": "true",  # an overflow or a malformed value is an error and not a null
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.files.ignoreCorruptFiles": "false",
    "spark.sql.files.ignoreMissingFiles": "false",
    "spark.sql.caseSensitive": "false",
}
"""Settings that make Spark return the same results as DuckDB. A configuration that changes one is rejected."""

_LOGGING_SETTINGS = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.log.level": "ERROR"}
_LOOPBACK_SETTINGS = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}

_PYTHON_SETTING = "spark.pyspark.python"
_LOCAL_PYTHON_SETTINGS = {
    _PYTHON_SETTING: sys.executable,
    "spark.executorEnv.PYTHONPATH": str(Path(__file__).resolve().parents[2]),
}
"""In local mode Spark's Python workers use this interpreter, and import this checkout."""

_ERROR_CONDITION = re.compile(r"\[([A-Z][A-Z0-9_]+)((?:\.[A-Z0-9_]+)*)\] ?(.*)")
_NOT_FOUND_CONDITIONS = {"PATH_NOT_FOUND", "UNRESOLVED_COLUMN", "TABLE_OR_VIEW_NOT_FOUND", "UNRESOLVED_ROUTINE"}
_FILE_MISSING_SIGNS = ("FILE_NOT_EXIST", "FileNotFoundException", "does not exist")
_EXECUTOR_LOST_SIGNS = (
    "ExecutorLostFailure",
    "MetadataFetchFailedException",
    "FetchFailedException",
    "SparkContext was shut down",
)

_lock = threading.Lock()
_running: dict[str, Any] = {}


def new_spark_session(master: str, memory_mb: int, configuration: Mapping[str, str]) -> "SparkSession":
    """Return a session with separate tables on this process's Spark, which is started if necessary.

    Raises:
        Conflict: Spark runs in this process with other settings.
        Rejected: pyspark or Java is missing, Spark does not start, or the configuration would change results.
    """
    if changed := sorted(key for key in _REQUIRED_SETTINGS if key in configuration):
        problem = f"the engine's configuration must not set {', '.join(changed)}"
        raise Rejected(f"{problem}: results would differ from DuckDB. Remove it.")
    settings = {"spark.driver.memory": f"{memory_mb}m", **_LOGGING_SETTINGS, **_REQUIRED_SETTINGS, **configuration}
    if master.startswith("local"):
        settings = {**_LOOPBACK_SETTINGS, **_LOCAL_PYTHON_SETTINGS, "spark.sql.shuffle.partitions": "8", **settings}
    with _lock:
        if not _running:
            _running.update(settings=(master, settings), spark=_start_spark(master, settings))
        if _running["settings"] != (master, settings):
            raise Conflict(
                "Spark runs in this process with other settings: a process can have only one. Stop it first."
            )
        spark: SparkSession = _running["spark"]
        return spark.newSession()


def stop_spark() -> None:
    """End the session and its Java process, if there is one."""
    with _lock:
        spark = _running.pop("spark", None)
        _running.clear()
    if spark is not None:
        _stop_session(spark)


def _start_spark(master: str, settings: Mapping[str, str]) -> "SparkSession":
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas", category=FutureWarning)
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as cause:
        raise Rejected("pyspark is not installed. Install it: make setup-engines") from cause
    logging.getLogger("SQLQueryContextLogger").disabled = True  # it prints errors that are raised anyway
    builder = SparkSession.builder.master(master).appName("ratchet")
    for key, value in settings.items():
        builder = builder.config(key, value)
    try:
        started: SparkSession = builder.getOrCreate()
    except (PySparkException, OSError, RuntimeError) as cause:
        remedy = "Check that Java 17 or 21 is installed (JAVA_HOME), and that the master responds."
        raise Rejected(f"Spark does not start on {master}: {' '.join(str(cause).split())[:300]}. {remedy}") from cause
    if python := settings.get(_PYTHON_SETTING):
        started.sparkContext.pythonExec = python  # Spark itself reads the setting only in spark-submit
    atexit.register(stop_spark)
    return started


def _stop_session(spark: "SparkSession") -> None:
    """Stop Spark, then its Java process, which pyspark would otherwise keep with the old settings."""
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    with suppress(Exception):  # fails if Spark has died
        spark.stop()
    if gateway is not None:
        gateway.shutdown()
        process = getattr(gateway, "proc", None)
        if process is not None:
            process.stdin.close()  # pyspark's launcher ends with its input
            process.wait(30)
    SparkContext._gateway = SparkContext._jvm = None
    SparkContext._active_spark_context = None


@contextmanager
def port_errors(sql: str) -> Iterator[None]:
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
