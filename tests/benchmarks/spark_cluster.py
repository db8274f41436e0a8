"""Spark on a cluster: `python -m tests.benchmarks.spark_cluster` starts a standalone master and worker, and uses them.

Executors are separate processes, as on separate machines: they share only folders. Configuration alone moves tiers,
SQL of the expectations and batch inference to the cluster. The results are compared with DuckDB's rows.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.engines.spark import SparkEngine
from blocks.lake.local import LocalLake
from blocks.tracking.fake import FakeTracking
from tasks.batch.input import input_from_lake
from tasks.batch.predictor import Predictor
from tasks.batch.tasks import append_predictions
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise
from tests.checkout import ROOT
from tests.fixtures.batch_scoring import DATA, made, predictions
from tests.fixtures.sampled_rows import SPEC, append

ROWS = 200_000
MASTER, WORKER = "org.apache.spark.deploy.master.Master", "org.apache.spark.deploy.worker.Worker"


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """Start a master and a worker on free ports, and yield the master's address."""
    import pyspark

    home = Path(pyspark.__file__).parent
    told = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    started: list[subprocess.Popen[bytes]] = []

    def start(kind: str, *arguments: str) -> str:
        log = folder / f"{kind.rpartition('.')[2]}.log"
        command = [str(home / "bin" / "spark-class"), kind, "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
        with log.open("wb") as output:
            started.append(subprocess.Popen([*command, *arguments], env=told, cwd=folder, stdout=output, stderr=output))
        for _ in range(600):
            said = re.search(r"(?:Starting Spark master at |registered with master )(spark://\S+)", log.read_text())
            if said:
                return said[1]
            time.sleep(0.1)
        raise SystemExit(f"{kind} did not start:\n{log.read_text()[-2000:]}")

    try:
        address = start(MASTER)
        start(WORKER, "--cores", "2", "--memory", "2g", "--work-dir", str(folder / "work"), address)
        yield address
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def asked(engine: Engine, lake: LocalLake, folder: Path) -> dict[str, object]:
    """Return what the engine computes from the lake's rows: a tier, an aggregate, predictions."""
    reads = resolve_reads(lake, SPEC.data, "")
    tier = materialise(lake, engine, reads, SPEC, "development", folder / "tiers")
    files = {"t": lake.files(reads.main)}
    sql = "SELECT street, count(*) AS n, min(price) AS low FROM t WHERE isfinite(rooms) GROUP BY street ORDER BY street"
    whole = made(folder / "tracking")
    tracking = FakeTracking(root=folder / "tracking")
    (folder / "work").mkdir()
    rows = input_from_lake(lake, engine, DATA, "houses", "", folder / "work")
    scored = LocalLake(root=folder / "scored")
    append_predictions(
        scored,
        rows,
        Predictor(tracking, whole.model_path, whole.model_digest, DATA, "3"),
        lambda _: None,
        folder / "work",
    )
    return {
        "tier": (tier.train_rows, tier.holdout_rows),
        "aggregate": engine.query(sql, files).to_pylist(),
        "predictions": predictions(scored),
    }


def main() -> None:
    """Start the cluster, query both engines, and compare."""
    folder = Path(tempfile.mkdtemp(prefix="ratchet-cluster-"))
    try:
        lake = LocalLake(root=folder / "lake")
        append(lake, 0, ROWS)
        for name in ("duckdb", "spark"):
            (folder / name).mkdir()
        local = asked(DuckDBEngine(), lake, folder / "duckdb")
        with cluster(folder) as address:
            there = {"spark.pyspark.python": sys.executable, "spark.executorEnv.PYTHONPATH": str(ROOT),
                     "spark.executor.memory": "1g", "spark.driver.host": "127.0.0.1",
                     "spark.driver.bindAddress": "127.0.0.1"}  # fmt: skip
            engine = SparkEngine(master=address, memory_mb=800, spill=folder, configuration=there)
            begun = time.perf_counter()
            found = asked(engine, lake, folder / "spark")
            engine.stop()
        for name, value in found.items():
            same = value.equals(local[name]) if isinstance(value, pa.Table) else value == local[name]
            assert same, f"{name}: {local[name]} on DuckDB, {value} on the cluster"
            print(f"{name}: the same on DuckDB and on {address}")
        print(f"{ROWS:,} rows, all three: {time.perf_counter() - begun:.0f} s, the session's start included")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
