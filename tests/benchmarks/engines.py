"""The figures of docs/engines.md: `python -m tests.benchmarks.engines [--rows N …] [--trials]` prints them as Markdown.

The engines run each query in turn on the same files: rows sorted by bucket, 20 columns. Spark's session is warm; its
start has a line of its own. The best of three runs counts, because the machine is shared with other programs.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.engines.spark import SparkEngine

PART = 1_000_000
NUMBERS = [f"n{place}" for place in range(12)]
TEXTS = [f"c{place}" for place in range(5)]
WHERE = "_bucket < 100"
STATISTICS = ", ".join(
    [f"avg({name}) AS a_{name}, max({name}) AS m_{name}" for name in NUMBERS]
    + [f"count(DISTINCT {name}) AS d_{name}" for name in TEXTS]
)
QUERIES = {
    "1 % tier, read": f"SELECT * FROM t WHERE {WHERE}",
    "statistics of all columns": f"SELECT count(*) AS rows, {STATISTICS} FROM t",
    "hash join and groups": "SELECT a.c0 AS c, avg(b.n0) AS n FROM t a JOIN t b ON a.id = b.id GROUP BY a.c0 ORDER BY 1",
}
WRITTEN = {
    "1 % tier, written": f"SELECT * FROM t WHERE {WHERE} ORDER BY id",
    "all rows, ordered, written": "SELECT * FROM t ORDER BY id",
}


def lay_out(rows: int, folder: Path) -> tuple[str, ...]:
    """Write the table in files of a million rows, each sorted by bucket, and return their paths."""
    draw, files = np.random.default_rng(7), []
    for place, start in enumerate(range(0, rows, PART)):
        many = min(PART, rows - start)
        columns: dict[str, object] = {
            "_bucket": np.sort(draw.integers(0, 10_000, many, dtype="int32")),
            "id": draw.permutation(np.arange(start, start + many)),
            **{name: draw.normal(size=many) for name in NUMBERS},
            **{name: pa.array([f"value {v}" for v in range(50)]).take(draw.integers(0, 50, many)) for name in TEXTS},
            "flag": draw.random(many) < 0.3,
        }
        files.append(str(folder / f"part-{place:03}.parquet"))
        pq.write_table(pa.table(columns), files[-1], row_group_size=20_000, compression="zstd")
    return tuple(files)


def best(work: Callable[[], object], times: int) -> float:
    """Return the seconds of the fastest of several runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def once(engine: Engine, sql: str, files: dict[str, tuple[str, ...]], to: Path | None) -> None:
    """Run the query, and remove the files that it wrote."""
    if to is None:
        engine.query(sql, files)
        return
    engine.write(sql, files, to)
    shutil.rmtree(to)


def measure(rows: int, engines: list[Engine], folder: Path, times: int, only: str) -> None:
    """Print one line per query: the seconds of each engine, and the ratio to DuckDB's."""
    files = {"t": lay_out(rows, folder)}
    for name, sql in {**QUERIES, **WRITTEN}.items():
        if only not in name:
            continue
        to = folder / "out" if name in WRITTEN else None
        seconds = [best(partial(once, engine, sql, files, to), times) for engine in engines]
        cells = " | ".join(f"{each:.2f}" for each in seconds)
        print(f"| {rows:,} | {name} | {cells} | {seconds[-1] / seconds[0]:.1f} × |", flush=True)


def compare_engines(sizes: list[int], times: int, memory_mb: int, only: str) -> None:
    """Print the table that compares DuckDB and Spark."""
    with tempfile.TemporaryDirectory(prefix="ratchet-engines-") as scratch:
        spark = SparkEngine(spill=Path(scratch), memory_mb=memory_mb)
        engines = [DuckDBEngine(spill=Path(scratch)), spark]
        try:
            start = best(lambda: spark.query("SELECT 1 AS one", {}), 1)
            print(f"Spark's first query, with the start of its session: {start:.1f} s\n")
            print("| rows | work | DuckDB, s | Spark local[2], s | Spark / DuckDB |\n|---|---|---|---|---|")
            for rows in sizes:
                folder = Path(tempfile.mkdtemp(dir=scratch))
                measure(rows, engines, folder, times, only)
                shutil.rmtree(folder)
        finally:
            spark.stop()


def search(seconds: float) -> float:
    """A trial that computes in this process and holds the interpreter lock; return the number that it counted to."""
    end, count = time.perf_counter() + seconds, 0.0
    while time.perf_counter() < end:
        count += 1
    return count


def compare_runners(trials: int) -> None:
    """Print the cost and the gain of a cluster on this machine compared with threads, for computing and for waiting."""
    from distributed import Client, LocalCluster

    def started() -> tuple[LocalCluster, Client]:
        cluster = LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None)
        return cluster, Client(cluster)

    start = time.perf_counter()
    cluster, client = started()
    print(f"\nStart of two Dask workers: {time.perf_counter() - start:.1f} s\n")
    print("| a trial | threads, work done | Dask, work done | Dask / threads |\n|---|---|---|---|")
    try:
        for seconds in (0.1, 1.0):
            with ThreadPoolExecutor(2) as pool:
                threads = sum(pool.map(search, [seconds] * trials))
            dask = sum(client.gather(client.map(search, [seconds] * trials, pure=False)))
            print(f"| {seconds} s of Python | {threads:,.0f} | {dask:,.0f} | {dask / threads:.2f} × |", flush=True)
    finally:
        client.close()
        cluster.close()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--memory", type=int, default=1_500, help="heap of Spark, MB")
    parser.add_argument("--only", default="", help="queries whose name holds this")
    parser.add_argument("--trials", type=int, default=8, help="trials of the comparison with Dask; 0: none")
    asked = parser.parse_args()
    if asked.rows:
        compare_engines(asked.rows, asked.times, asked.memory, asked.only)
    if asked.trials:
        compare_runners(asked.trials)


if __name__ == "__main__":
    main()
