"""The engines that a contract suite runs over: DuckDB, and Spark where it is installed."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine

_MISSING = [word for word in ("pyspark", "sqlglot") if importlib.util.find_spec(word) is None]
if shutil.which("java") is None:
    _MISSING.append("java")
_WHERE_INSTALLED = pytest.mark.skipif(bool(_MISSING), reason=f"not installed here: {', '.join(_MISSING)}")

ENGINES = ("duckdb", pytest.param("spark", marks=[pytest.mark.slow, _WHERE_INSTALLED]))

ENGINES_KILLED = (
    pytest.param("duckdb", marks=pytest.mark.slow),
    pytest.param("spark", marks=[pytest.mark.slow, pytest.mark.heavy, _WHERE_INSTALLED]),
)
"""For a test that kills a process with an engine of its own: with Spark that takes a minute."""

FOR_FEW_ROWS = {
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",  # compiled once and lightly
    "spark.sql.shuffle.partitions": "3",
}
"""What makes Spark quick at many small questions; none of it changes a plan's meaning."""


@contextmanager
def running_engine(kind: str, spill: Path) -> Iterator[Engine]:
    """Start the engine of that name, and see that it removes what it spilled."""
    if kind == "duckdb":
        yield DuckDBEngine(spill=spill)
    else:
        from blocks.engines.spark import SparkEngine

        spark = SparkEngine(spill=spill, memory_mb=800, configuration=FOR_FEW_ROWS)
        yield spark
        spark.stop()
    assert list(spill.iterdir()) == [], "what was spilled is removed"
