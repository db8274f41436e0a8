"""A suite of 18 expectations by SQL over the files, compared with pandas and with one hand-written query.

`python -m tests.benchmarks.checks [--rows N] [--pandas-rows N]` prints a Markdown table. Each way runs in its own
process, so that its peak memory is its own; the memory of imports is not counted. Pandas holds all ten million rows
in about 5 GB. Where there is less memory, `--pandas-rows` measures pandas on fewer rows and scales the result.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from blocks.engines.duckdb import DuckDBEngine
from tasks.validation.rules.expectations import parse_suite, validate_table
from tasks.validation.rules.parquet_rows import TABLE_NAME, to_frame
from tasks.validation.rules.suites import Suite
from tasks.validation.tasks import open_parquet_rows

TABLE_SQL = """SELECT i AS id, 'user-' || i AS name, CAST(hash(i) % 100 AS INTEGER) AS tenure,
    (hash(i + 1) % 10000) / 100e0 AS charge, CASE WHEN hash(i + 2) % 50 > 0 THEN (hash(i + 3) % 100000) / 10e0 END AS total,
    chr(CAST(65 + hash(i + 4) % 4 AS INTEGER)) AS contract, chr(CAST(120 + hash(i + 5) % 3 AS INTEGER)) AS service,
    CAST(hash(i + 6) % 2 AS TINYINT) AS senior, CASE WHEN hash(i + 7) % 4 = 0 THEN 'Yes' ELSE 'No' END AS label,
    'z' || (hash(i + 8) % 100000) AS zip, (hash(i + 9) % 1000) / 7e0 AS score, CAST(hash(i + 10) % 1000 AS BIGINT) AS points,
    to_timestamp(1760000000 + CAST(hash(i + 11) % 86400 AS BIGINT)) AS at, (hash(i + 12) % 1000) / 3e0 AS x1,
    (hash(i + 13) % 1000) / 3e0 AS x2, (hash(i + 14) % 1000) / 3e0 AS x3, CAST(hash(i + 15) % 9 AS INTEGER) AS n1,
    CAST(hash(i + 16) % 9 AS INTEGER) AS n2, CAST(hash(i + 17) % 9 AS INTEGER) AS n3, CAST(hash(i + 18) % 2 AS TINYINT) AS flag
    FROM range({rows}) AS t(i)"""

SUITE = """
name: bench
minimum_rows: 1
expectations:
  - {type: expect_column_values_to_be_unique, kwargs: {column: id}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: id}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: label}}
  - {type: expect_column_distinct_values_to_equal_set, kwargs: {column: label, value_set: ["No", "Yes"]}}
  - {type: expect_column_values_to_be_between, kwargs: {column: tenure, min_value: 0, max_value: 120}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: tenure}}
  - {type: expect_column_values_to_be_between, kwargs: {column: charge, min_value: 0, max_value: 200}}
  - {type: expect_column_mean_to_be_between, kwargs: {column: charge, min_value: 45, max_value: 85}}
  - {type: expect_column_values_to_be_between, kwargs: {column: total, min_value: 0, max_value: 20000}}
  - {type: expect_column_values_to_not_be_null, kwargs: {column: total, mostly: 0.95}}
  - {type: expect_column_pair_values_a_to_be_greater_than_b, kwargs: {column_A: total, column_B: charge,
      or_equal: true, ignore_row_if: either_value_is_missing, mostly: 0.9}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: contract, value_set: [A, B, C, D]}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: service, value_set: [x, "y", z]}}
  - {type: expect_column_values_to_be_in_set, kwargs: {column: senior, value_set: [0, 1]}}
  - {type: expect_column_values_to_match_regex, kwargs: {column: zip, regex: "^z[0-9]+$"}}
  - {type: expect_column_value_lengths_to_be_between, kwargs: {column: name, min_value: 3, max_value: 20}}
  - {type: expect_column_quantile_values_to_be_between, kwargs: {column: score,
      quantile_ranges: {quantiles: [0.5], value_ranges: [[0, 200]]}}}
  - {type: expect_column_max_to_be_between, kwargs: {column: points, min_value: 0, max_value: 2000}}
"""

BY_HAND = """SELECT count(*), count(id), count(DISTINCT id), count(label), count(DISTINCT label),
    count(*) FILTER (WHERE label NOT IN ('No', 'Yes')), count(*) FILTER (WHERE tenure < 0 OR tenure > 120), count(tenure),
    count(*) FILTER (WHERE charge < 0 OR charge > 200), avg(charge), count(*) FILTER (WHERE total < 0 OR total > 20000),
    count(total), count(*) FILTER (WHERE total < charge), count(*) FILTER (WHERE contract NOT IN ('A', 'B', 'C', 'D')),
    count(*) FILTER (WHERE service NOT IN ('x', 'y', 'z')), count(*) FILTER (WHERE senior NOT IN (0, 1)),
    count(*) FILTER (WHERE NOT regexp_matches(zip, '^z[0-9]+$')), count(*) FILTER (WHERE length(name) NOT BETWEEN 3 AND 20),
    quantile_disc(score, 0.5), max(points) FROM rows"""


def engine() -> DuckDBEngine:
    """Return the engine of this benchmark."""
    return DuckDBEngine.model_validate({})


def by_files(file: str, suite: Suite) -> None:
    """Validate by SQL over the files, without loading them."""
    with open_parquet_rows([file], engine()) as rows:
        _passed(validate_table(rows, suite, key="id").passed)


def by_pandas(file: str, suite: Suite) -> None:
    """Load all rows and validate them by the library's pandas engine."""
    _passed(validate_table(to_frame(pq.read_table(file)), suite, key="id").passed)


def by_hand(file: str, suite: Suite) -> None:
    """Compute the same metrics in one query."""
    _passed(engine().query(BY_HAND, {TABLE_NAME: [file]}).num_rows == 1)


WAYS: dict[str, Callable[[str, Suite], None]] = {"files": by_files, "pandas": by_pandas, "hand": by_hand}


def measure(way: str, file: str) -> dict[str, float]:
    """Measure one way in its own process; return the seconds and by how many megabytes its memory grew at the peak."""
    command = [sys.executable, "-m", "tests.benchmarks.checks", "--way", way, "--file", file]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_way(way: str, file: str) -> dict[str, float]:
    """Run one way in this process and measure it; the library is imported before the clock starts."""

    suite, process = parse_suite(SUITE, "bench"), psutil.Process()
    engine().query("SELECT 1", {})
    before = process.memory_info().rss
    peak, over = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, used = time.perf_counter(), time.process_time()
    try:
        WAYS[way](file, suite)
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
    finally:
        over.set()
        watcher.join()
    return {"seconds": seconds, "cpu": cpu, "megabytes": (peak - before) / 1e6}


def report(rows: int, pandas_rows: int, repeats: int) -> str:
    """Measure all ways in turn, and return a Markdown table with the best run of each."""
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for count in {rows, pandas_rows}:
            files[count] = str(Path(folder) / str(count) / "rows-00000.parquet")
            DuckDBEngine.model_validate({}).write(TABLE_SQL.format(rows=count), {}, Path(files[count]).parent)
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way in WAYS:
                found[way].append(measure(way, files[pandas_rows if way == "pandas" else rows]))
    best = {way: {word: min(each[word] for each in runs) for word in runs[0]} for way, runs in found.items()}
    scale = rows / pandas_rows
    lines = [
        "| 18 expectations | rows | seconds | of processor | memory above idle | suite on files, of it |",
        "|---|---|---|---|---|---|",
        _line("suite on files", rows, best["files"], best["files"], 1),
        _line("one hand-written query", rows, best["hand"], best["files"], 1),
        _line("GX on pandas, with the read", pandas_rows, best["pandas"], best["files"], scale),
    ]
    return "\n".join(lines)


def _line(name: str, rows: int, found: dict[str, float], ours: dict[str, float], scale: float) -> str:
    ratio = f"{ours['seconds'] / (scale * found['seconds']):.2f} x time"
    ratio += f", {ours['cpu'] / (scale * found['cpu']):.2f} x processor"
    ratio += f", {ours['megabytes'] / (scale * found['megabytes']):.2f} x memory"
    ratio += f" (times {scale:g} for its rows)" if scale != 1 else ""
    return (
        f"| {name} | {rows:,} | {found['seconds']:.2f} | {found['cpu']:.2f} | {found['megabytes']:,.0f} MB | {ratio} |"
    )


def _passed(held: bool) -> None:
    if not held:
        raise SystemExit("the suite did not hold: nothing was measured")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the table")
    parser.add_argument("--pandas-rows", type=int, default=10_000_000, help="rows that pandas is measured on")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each way; the best counts")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(run_way(given.way, given.file)))
        return
    print(report(given.rows, given.pandas_rows, given.repeats))


if __name__ == "__main__":
    main()
