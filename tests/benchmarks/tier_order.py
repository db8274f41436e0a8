"""The cost of a defined row order in a tier: `python -m tests.benchmarks.tier_order [--rows N]` prints the figures.

DuckDB writes the full tier of the table of `tests.benchmarks.data`, appended in eight snapshots, as stage `sample`
does (two parts, 1.5 GB, two threads). Each order runs in its own process.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from blocks.engines.duckdb import DuckDBEngine
from runtime.duckdb_files import scan_sql
from tasks.shared.tiers import content_digest
from tests.benchmarks.data import COLUMNS, DATA, PEER, clocked, lake, source

SNAPSHOTS = 8
KEY = f'"_bucket", CAST("{DATA.entity}" AS VARCHAR) NULLS FIRST'
REST = ", ".join(f'"{column}" NULLS FIRST' for column in COLUMNS if column != DATA.entity)
DECIDES = f"bucket_of({DATA.entity}, 9) < 2000"


def land(folder: Path, rows: int) -> dict[str, float]:
    """Append the source in parts, so that every bucket occurs in each of them."""
    bucket = "CAST(CAST('0x' || substr(md5(customer), 1, 8) AS BIGINT) % 10000 AS INTEGER) AS _bucket"

    def every_part() -> None:
        for part in range(SNAPSHOTS):
            low, high = part * rows // SNAPSHOTS, (part + 1) * rows // SNAPSHOTS
            with duckdb.connect() as connection:
                connection.execute(PEER)
                found = connection.sql(
                    f"SELECT * EXCLUDE file_row_number, {bucket} FROM "
                    f"{scan_sql([f'{folder}/source.parquet'], 'file_row_number = true')} WHERE file_row_number >= {low} AND file_row_number < {high}"
                )
                reader = found.to_arrow_reader(65_536)
                lake(folder).append(DATA.dataset, reader, source="bench", key=str(part), at=datetime.now(UTC))

    return clocked(every_part)


def laid_down(folder: Path, train: str, holdout: str) -> dict[str, float]:
    """Write both parts, and compute the digest of the holdout rows."""
    from_lake, engine, to = lake(folder), DuckDBEngine.model_validate({}), folder / "tier"
    columns = ", ".join(COLUMNS)

    def work() -> None:
        files = {"main": from_lake.files(from_lake.as_of(DATA.dataset))}
        for part, order, where in (("train", train, f"NOT ({DECIDES})"), ("holdout", holdout, DECIDES)):
            engine.write(f"SELECT {columns} FROM main WHERE {where} {order}", files, to / part)

    used = time.process_time()
    found = {**clocked(work), "cpu_s": time.process_time() - used}
    digested = clocked(lambda: content_digest(to / "holdout"))
    size = sum(path.stat().st_size for path in to.rglob("*.parquet"))
    shutil.rmtree(to)
    return {**found, "digest_s": digested["s"], "bytes": float(size)}


def as_it_lies(folder: Path, rows: int) -> dict[str, float]:
    """In the order of the files, which changes with a compaction."""
    return laid_down(folder, "", "")


def by_key(folder: Path, rows: int) -> dict[str, float]:
    """By bucket and key: a total order where each key has one row."""
    return laid_down(folder, f"ORDER BY {KEY}", f"ORDER BY {KEY}")


def by_all_columns(folder: Path, rows: int) -> dict[str, float]:
    """By bucket, key and then every other column: a total order for any rows."""
    return laid_down(folder, f"ORDER BY {KEY}, {REST}", f"ORDER BY {KEY}, {REST}")


def by_key_training_rows_only(folder: Path, rows: int) -> dict[str, float]:
    """Only the training rows in order; the digest of the holdout rows is a sum of hashes, here DuckDB's own."""
    found = laid_down(folder, f"ORDER BY {KEY}", "")
    from_lake, engine = lake(folder), DuckDBEngine.model_validate({})
    files = {"main": from_lake.files(from_lake.as_of(DATA.dataset))}
    summed = f"SELECT sum(CAST(hash({', '.join(COLUMNS)}) AS HUGEINT)) AS digest FROM main WHERE {DECIDES}"
    return {**found, "digest_s": clocked(lambda: engine.query(summed, files))["s"]}


ORDERS: tuple[Callable[[Path, int], dict[str, float]], ...] = (
    as_it_lies,
    by_key,
    by_all_columns,
    by_key_training_rows_only,
)
STEPS = {step.__name__: step for step in (source, land, *ORDERS)}


def run(step: str, folder: Path, rows: int) -> dict[str, float]:
    """Run a step in its own process and return its figures, with its peak resident megabytes."""
    command = [sys.executable, "-m", "tests.benchmarks.tier_order", "--step", step, "--folder", str(folder)]
    done = subprocess.run([*command, "--rows", str(rows)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"- {step}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Run all steps, or the named one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.tier_order", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path, help="where files are made; needs about 600 bytes a row")
    options = parser.parse_args()
    if options.step:
        found = STEPS[options.step](options.folder, options.rows)
        print(json.dumps({**found, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    folder = Path(tempfile.mkdtemp(prefix="ratchet-bench-", dir=options.folder))
    try:
        figures = {step: run(step, folder, options.rows) for step in STEPS}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"| {options.rows:,} rows × 20 columns | written, s | the same, s of processors | digest of the holdout, s | peak MB | MB of Parquet |"
    )
    print("|---|---|---|---|---|---|")
    for order in ORDERS:
        one = figures[order.__name__]
        name = order.__name__.replace("_", " ")
        print(
            f"| {name} | {one['s']:.1f} | {one['cpu_s']:.1f} | {one['digest_s']:.1f} | {one['mb']:,.0f} | {one['bytes'] / 1e6:,.0f} |"
        )


if __name__ == "__main__":
    main()
