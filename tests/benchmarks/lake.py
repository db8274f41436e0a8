"""The lake's own figures: `python -m tests.benchmarks.lake [--rows N] [--snapshots N]` prints them as Markdown.

Each is compared with a baseline in the same run, in turn: ingest with DuckDB's `COPY ... ORDER BY _bucket`, reads
with DuckDB on that plain file, a read of many snapshots with a read of one snapshot.
"""

import argparse
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from multiprocessing import get_context  # noqa: TID251 - what a fork server has loaded would count as memory
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from blocks.lake.local import LocalLake
from tests.benchmarks.lake_formats import query, rows_of

BATCH = 100_000
PAIRS = 3


def source(rows: int) -> pa.RecordBatchReader:
    """Return rows of 20 columns and their bucket as a stream, which holds a fraction of them in memory."""
    made = [rows_of(BATCH, seed) for seed in range(4)]

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(rows // BATCH):
            yield from made[number % len(made)].to_batches()

    return pa.RecordBatchReader.from_batches(made[0].schema, batches())


def ingest(root: Path, rows: int) -> None:
    """Append the rows to a new lake."""
    LocalLake(root=root).append("t", source(rows), source="bench", key="k", at=datetime.now(UTC))


def copy(to: Path, rows: int) -> None:
    """Write the same rows sorted by bucket, with DuckDB alone."""
    connection = duckdb.connect(config={"threads": 2, "memory_limit": "2GB", "temp_directory": str(to.parent)})
    connection.register("t", source(rows))
    connection.execute(f"COPY (SELECT * FROM t ORDER BY _bucket) TO '{to}' (FORMAT parquet)")


def apart(work: Callable[..., None], *arguments: Any) -> tuple[float, float, float]:
    """Return (seconds, processor seconds, peak megabytes) of work in its own process."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work, arguments))


def _measured(work: Callable[..., None], arguments: tuple[Any, ...]) -> tuple[float, float, float]:
    begun, busy = time.perf_counter(), time.process_time()
    work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return time.perf_counter() - begun, time.process_time() - busy, peak


def timed(work: Callable[[], Any], times: int = 9) -> float:
    """Return the median seconds of the work."""
    spent = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def line(name: str, ours: str, peer: str, ratio: float) -> None:
    """Print a row of the table."""
    print(f"| {name} | {ours} | {peer} | {ratio:.2f} |", flush=True)


def of_ingest(base: Path, rows: int) -> None:
    """Measure ingest and `COPY` in turn."""
    ours, peer = [], []
    for _ in range(PAIRS):
        shutil.rmtree(base / "lake", ignore_errors=True)
        ours.append(apart(ingest, base / "lake", rows))
        peer.append(apart(copy, base / "plain.parquet", rows))
    for number, name in enumerate(("ingest, s", "ingest, s of processors", "ingest, peak MB")):
        mine, theirs = (statistics.median(run[number] for run in runs) for runs in (ours, peer))
        line(f"{name} ({rows:,} rows × 20)", f"{mine:.1f}", f"{theirs:.1f}", mine / theirs)


def of_reads(base: Path) -> None:
    """Measure full reads and tier reads of the ingested rows."""
    plain, root = [str(base / "plain.parquet")], base / "lake"

    def files(below: int | None) -> list[str]:
        lake = LocalLake(root=root)
        return list(lake.files(lake.as_of("t"), below_bucket=below))

    everything, tier = files(None), files(100)
    full, baseline = query(everything), query(plain)
    listed = timed(lambda: files(None))
    line(
        "full read by DuckDB, checks of files included, ms",
        f"{(full + listed) * 1e3:.0f}",
        f"{baseline * 1e3:.0f}",
        (full + listed) / baseline,
    )
    small = query(tier, "WHERE _bucket < 100") + timed(lambda: files(100))
    line(
        "1 % tier by DuckDB, against the full read of the lake, ms",
        f"{small * 1e3:.0f}",
        f"{full * 1e3:.0f}",
        small / full,
    )
    share = sum(Path(p).stat().st_size for p in tier) / sum(Path(p).stat().st_size for p in everything)
    line("1 % tier, bytes", f"{share:.4f}", "1", share)
    lake = LocalLake(root=root)
    now = lake.as_of("t")
    streamed = timed(lambda: sum(batch.num_rows for batch in lake.scan(now)), 1)
    line("full read as a stream of Arrow, s", f"{streamed:.2f}", f"{baseline:.2f}", streamed / baseline)


def of_snapshots(base: Path, count: int) -> None:
    """Measure the same rows in one snapshot and in many, then in many after a compaction."""
    one, many = LocalLake(root=base / "one"), LocalLake(root=base / "many")
    tables = [rows_of(500, seed + 1) for seed in range(count)]
    one.append("t", pa.concat_tables(tables), source="bench", key="k", at=datetime.now(UTC))
    begun = time.perf_counter()
    for number, table in enumerate(tables):
        many.append("t", table, source="bench", key=f"k{number}", at=datetime.now(UTC))
    each = (time.perf_counter() - begun) / count
    line(f"append of 500 rows, mean of {count}, ms", f"{each * 1e3:.1f}", "", np.nan)

    def fixed(lake: LocalLake) -> float:
        return timed(lambda: LocalLake(root=lake.root).as_of("t").digest, 31)

    def whole(lake: LocalLake) -> float:
        def read() -> None:
            opened = LocalLake(root=lake.root)
            opened.read(opened.as_of("t"))

        return timed(read, 3)

    line(
        f"as-of, {count} snapshots against 1, ms",
        f"{fixed(many) * 1e3:.2f}",
        f"{fixed(one) * 1e3:.2f}",
        fixed(many) / fixed(one),
    )
    base_time, loose = whole(one), whole(many)
    line(
        f"as-of and full read, {count} snapshots against 1, not compacted, s",
        f"{loose:.2f}",
        f"{base_time:.2f}",
        loose / base_time,
    )
    begun = time.perf_counter()
    many.compact("t")
    took = time.perf_counter() - begun
    line(f"compaction of {count} snapshots, s", f"{took:.2f}", "", np.nan)
    line(
        f"as-of, {count} snapshots compacted, ms",
        f"{fixed(many) * 1e3:.2f}",
        f"{fixed(one) * 1e3:.2f}",
        fixed(many) / fixed(one),
    )
    tight = whole(many)
    line(f"as-of and full read, {count} snapshots compacted, s", f"{tight:.2f}", f"{base_time:.2f}", tight / base_time)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--snapshots", type=int, default=1_000)
    chosen = parser.parse_args()
    base = Path(tempfile.mkdtemp(prefix="lake-figures-"))
    print("| work | lake | peer | ratio |\n|---|---|---|---|")
    try:
        of_ingest(base, chosen.rows)
        of_reads(base)
        of_snapshots(base, chosen.snapshots)
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
