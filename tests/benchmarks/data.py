"""Data at real size: `python -m tests.benchmarks.data [--rows N] [--only PART]` prints the figures as Markdown.

Each step runs in its own process, so that its peak memory is its own. Each ratio compares two steps of one run. The
values are computed from the row number, so the table is the same everywhere. It has 20 columns: the key as text, ten
numbers (three with nulls), five categories, three flags, and the target.
"""

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.local import LocalLake
from runtime.duckdb_files import scan_sql
from tasks.shared.rules.model.data import DataSpec

NUMBERS = [f"n{place}" for place in range(10)]
CATEGORIES = [f"c{place}" for place in range(5)]
FLAGS = [f"f{place}" for place in range(3)]
KINDS: dict[str, Any] = (
    dict.fromkeys(NUMBERS, "number") | dict.fromkeys(CATEGORIES, "category") | dict.fromkeys(FLAGS, "flag")
)
DATA = DataSpec(dataset="big", entity="customer", target="left_us", classes=("No", "Yes"), features=KINDS)
COLUMNS = [DATA.entity, *KINDS, DATA.target]
PEER = "SET threads = 2; SET memory_limit = '2GB';"


def source(folder: Path, rows: int) -> dict[str, float]:
    """Write the source as Parquet, in an order that does not help the reader."""
    fine, coarse = "hash(i * 31 + {k}) / 18446744073709551616.0 * 1000", "(hash(i * 31 + {k}) % 100000) / 100.0"
    numbers = [f"{_nulls(k, (fine if k % 2 else coarse).format(k=k))} AS n{k}" for k in range(10)]
    categories = [f"'value ' || (hash(i * 37 + {k}) % {4 + 3 * k}) AS c{k}" for k in range(5)]
    flags = [f"CAST(hash(i * 41 + {k}) % 2 AS TINYINT) AS f{k}" for k in range(3)]
    target = "CASE WHEN hash(i * 43) % 10 < 3 THEN 'Yes' ELSE 'No' END AS left_us"
    columns = ", ".join(["'customer-' || i AS customer", *numbers, *categories, *flags, target])
    # Steps of a prime modulo the number of rows: each key occurs once, neighbours are far apart.
    made = f"SELECT {columns} FROM (SELECT (range * 7919) % {rows} AS i FROM range({rows}))"
    duckdb.sql(f"{PEER} SET preserve_insertion_order = false")
    duckdb.sql(f"COPY ({made}) TO '{folder}/source.parquet' (FORMAT parquet, COMPRESSION zstd)")
    return {"bytes": float((folder / "source.parquet").stat().st_size)}


def _nulls(place: int, value: str) -> str:
    return f"CASE WHEN hash(i * 47 + {place}) % 20 = 0 THEN NULL ELSE {value} END" if place < 3 else value


def copy(folder: Path, rows: int) -> dict[str, float]:
    """Do what ingest is compared with: DuckDB alone adds the bucket and sorts, into one Parquet file."""
    bucket = "CAST(CAST('0x' || substr(md5(customer), 1, 8) AS BIGINT) % 10000 AS INTEGER) AS _bucket"
    duckdb.sql(f"{PEER} SET temp_directory = '{folder}/spill'")
    rows_sql = f"SELECT *, {bucket} FROM '{folder}/source.parquet' ORDER BY _bucket"
    return clocked(
        lambda: duckdb.sql(
            f"COPY ({rows_sql}) TO '{folder}/sorted.parquet' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 20480)"
        )
    )


def ingest(folder: Path, rows: int) -> dict[str, float]:
    """Ingest the source as the flow does, without its artifact, which needs a Prefect server."""
    import tasks.ingestion.landing as stage
    from tests.fixtures.sources import open_source

    stage.create_markdown_artifact = lambda **_: None  # type: ignore[assignment]
    (folder / "scratch").mkdir(exist_ok=True)

    def land() -> None:
        opened = open_source(
            str(folder / "source.parquet"), kinds=DATA.ingest_schema().column_kinds, scratch=folder / "scratch"
        )
        landed = stage.ingest_rows(lake(folder), DATA, opened, scratch=folder / "scratch")
        assert (landed.accepted, landed.quarantined) == (rows, 0)

    return clocked(land)


def read_plain(folder: Path, rows: int) -> dict[str, float]:
    """Aggregate every column of the sorted file with DuckDB; both reads are compared with it."""
    return several(lambda: scanned([str(folder / "sorted.parquet")]))


def read_lake(folder: Path, rows: int) -> dict[str, float]:
    """Aggregate every column of the lake as of now, snapshot lookup included; `first_s` also verifies the files."""
    begun = time.perf_counter()
    read_now(folder)
    return {"first_s": time.perf_counter() - begun, **several(lambda: read_now(folder))}


def read_tier(folder: Path, rows: int) -> dict[str, float]:
    """Aggregate every column of the 1 % tier; `bytes` is what this process read from files."""
    begun, before = time.perf_counter(), bytes_read()
    found = read_now(folder, below=100)
    first, first_bytes = time.perf_counter() - begun, bytes_read() - before
    before = bytes_read()
    read_now(folder, below=100)
    warm_bytes = bytes_read() - before
    assert 0.008 * rows < found < 0.012 * rows or rows < 100_000, found
    return {"first_s": first, "first_bytes": first_bytes, "bytes": warm_bytes, "tier_rows": float(found)} | several(
        lambda: read_now(folder, below=100)
    )


def tier(folder: Path, rows: int) -> dict[str, float]:
    """Write the development tier as files, as stage `sample` of the flow does."""
    from tasks.shared.tables import resolve_reads
    from tasks.shared.tiers import materialise

    spec = model_spec()
    from_lake = lake(folder)
    reads = resolve_reads(from_lake, spec.data, "")
    return clocked(
        lambda: materialise(from_lake, DuckDBEngine.model_validate({}), reads, spec, "development", folder / "scratch")
    )


def checks(folder: Path, rows: int) -> dict[str, float]:
    """Validate the whole lake by the suite of 18 expectations, without copying it."""
    from tasks.validation.rules.expectations import parse_suite, validate_table
    from tasks.validation.tasks import open_parquet_rows

    suite = parse_suite(suite_text(rows), "expectations.yaml")
    from_lake = lake(folder)

    def run() -> None:
        with open_parquet_rows(from_lake.files(from_lake.as_of("big")), DuckDBEngine.model_validate({})) as lying:
            report = validate_table(lying, suite, key="customer")
        assert report.passed, report.reasons

    return clocked(run)


def metadata(folder: Path, rows: int) -> dict[str, float]:
    """Find the newest of 1 and of 1,000 snapshots."""
    few, many = LocalLake(root=folder / "few"), LocalLake(root=folder / "many")
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    for into, count in ((few, 1), (many, 1000)):
        for number in range(count):
            table = pa.table({"customer": [f"k{number}"], "_bucket": pa.array([number % 10_000], pa.int32())})
            into.append("one", table, source="bench", key=str(number), at=begun + timedelta(seconds=number))
    one, thousand = (several(lambda into=into: into.as_of("one"), 20) for into in (few, many))
    middle = several(lambda: many.as_of("one", "2026-01-01T00:08:00Z"), 20)
    named = {"one": one, "thousand": thousand, "middle": middle}
    return {f"{word}_{name}": found[name] for word, found in named.items() for name in found}


def lake(folder: Path) -> LocalLake:
    """Return the lake of this run."""
    return LocalLake(root=folder / "lake")


def read_now(folder: Path, below: int | None = None) -> int:
    """Fix an as-of read, verify its files, and aggregate all of their columns."""
    from_lake = lake(folder)
    files = from_lake.files(from_lake.as_of("big"), below_bucket=below)
    return scanned(list(files), f"WHERE _bucket < {below}" if below is not None else "")


def scanned(files: list[str], where: str = "") -> int:
    """Aggregate every column so that each value is read (minima would come from the footer); return the rows."""
    texts = {DATA.entity, DATA.target, *CATEGORIES}
    aggregates = ", ".join(f"sum({f'strlen({name})' if name in texts else name})" for name in COLUMNS)
    with duckdb.connect(config={"threads": 2, "memory_limit": "2GB"}) as connection:
        found = connection.execute(
            f"SELECT count(*), {aggregates} FROM {scan_sql(files, 'union_by_name = true')} {where}"
        )
        return int((found.fetchone() or (0,))[0])


def clocked(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of the work, and as `cpu` its processor seconds over all threads."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return {"s": time.perf_counter() - begun, "cpu": time.process_time() - used}


def several(work: Callable[[], object], times: int = 5) -> dict[str, float]:
    """Return the medians of several times, after one run that is not counted."""
    work()
    runs = [clocked(work) for _ in range(times)]
    return {name: statistics.median(run[name] for run in runs) for name in ("s", "cpu")}


def bytes_read() -> float:
    """Return how many bytes this process has read by system calls."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("rchar")))


def suite_text(rows: int) -> str:
    """Return 18 expectations that the data meets: bounds, nulls, sets, lengths, types, uniqueness, aggregates."""
    rules = [("expect_table_row_count_to_be_between", {"min_value": rows, "max_value": rows})]
    rules += [("expect_column_values_to_not_be_null", {"column": name}) for name in ("customer", "n5", "c0", "left_us")]
    rules += [("expect_column_values_to_be_unique", {"column": "customer"})]
    rules += [
        ("expect_column_values_to_be_between", {"column": n, "min_value": 0, "max_value": 1000}) for n in NUMBERS[3:8]
    ]
    rules += [("expect_column_values_to_be_in_set", {"column": c, "value_set": [f"value {k}" for k in range(4 + 3 * place)]})
              for place, c in enumerate(CATEGORIES[:3])]  # fmt: skip
    rules += [("expect_column_values_to_be_in_set", {"column": "f0", "value_set": [0, 1]})]
    rules += [("expect_column_mean_to_be_between", {"column": "n9", "min_value": 450, "max_value": 550})]
    rules += [("expect_column_values_to_match_regex", {"column": "customer", "regex": "^customer-[0-9]+$"})]
    rules += [("expect_column_values_to_not_be_null", {"column": "n0", "mostly": 0.9})]
    listed = "\n".join(f"  - type: {kind}\n    kwargs: {json.dumps(arguments)}" for kind, arguments in rules)
    return f"name: big\nminimum_rows: 100\nexpectations:\n{listed}\n"


def model_spec() -> Any:
    """Return the model of this table: churn's settings over these columns."""
    from tasks.shared.rules.model.spec import parse_spec

    features = "\n".join(f"    {name}: {kind}" for name, kind in KINDS.items())
    text = MODEL.replace("FEATURES", features)
    return parse_spec(text, "model.yaml")


MODEL = """
name: big
description: The table of the benchmarks.
owner: bench@example.com
task: binary
data:
  dataset: big
  entity: customer
  target: left_us
  classes: ["No", "Yes"]
  features:
FEATURES
training: {seed: 7, max_minutes: 10, max_memory_mb: 4096, parameters: {n_estimators: 10}}
evaluation: {minimum_rows: 100, floors: [{metric: auc, at_least: 0.5}], comparison: {metric: auc, rule: superior, margin: 0.005, confidence: 0.95}}
"""

STEPS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    step.__name__: step for step in (source, copy, ingest, read_plain, read_lake, read_tier, tier, checks, metadata)
}


def run(step: str, folder: Path, rows: int) -> dict[str, float]:
    """Run a step in its own process and return its figures, with its peak resident megabytes."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.data",
        "--step",
        step,
        "--folder",
        str(folder),
        "--rows",
        str(rows),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"- {step}: " + ", ".join(f"{name} {value:,.4g}" for name, value in found.items()), file=sys.stderr, flush=True
    )
    return found


def report(found: dict[str, dict[str, float]], rows: int) -> str:
    """Return the figures as a table beside their targets; a skipped step has no line."""
    total, whole, one = found["source"]["bytes"], found["read_lake"], found["read_tier"]
    ingested, checked, tier_made = found["ingest"], found["checks"], found["tier"]
    lines = [
        f"| {rows:,} rows × 20 columns ({total / 1e6:,.0f} MB of Parquet) | this | peer, same run | ratio | to reach |",
        "|---|---|---|---|---|",
        versus(
            "ingest: judge, bucket, lay out, checksums, commit", ingested, "DuckDB COPY sorted", found.get("copy"), 1.5
        ),
        f"| peak memory of it | {ingested['mb']:,.0f} MB | | | 2,000 MB |",
        _a_million(ingested, rows),
        versus("full as-of read, all columns summed", whole, "DuckDB on plain Parquet", found.get("read_plain"), 1.1),
        f"| the first such read, which verifies SHA-256 | {whole['first_s']:.2f} s | | | |",
        versus("read of the 1 % tier", one, "full read of the same lake", whole, "0.15; 0.05 at 100 million"),
        f"| bytes read for it | {one['bytes'] / 1e6:.1f} MB | {total / 1e6:,.0f} MB | {one['bytes'] / total:.4f} | 0.02 |",
        f"| development tier laid down as files | {_cost(tier_made)}, {tier_made['mb']:,.0f} MB | | | |",
        f"| 18 expectations on all rows | {_cost(checked)}, {checked['mb']:,.0f} MB | | | |",
        _a_million(checked, rows),
    ]
    if "metadata" in found:
        few, many = ({n: found["metadata"][f"{word}_{n}"] for n in ("s", "cpu")} for word in ("one", "thousand"))
        lines.append(versus("as-of of 1,000 snapshots", many, "of 1 snapshot", few, 1.5))
    return "\n".join(lines)


def versus(work: str, ours: dict[str, float], peer: str, theirs: dict[str, float] | None, reach: float | str) -> str:
    """Return a line that compares our seconds with those of another program, if that ran."""
    if theirs is None:
        return f"| {work} | {_cost(ours)} | | | |"
    ratios = f"{ours['s'] / theirs['s']:.3g}, of processor {ours['cpu'] / theirs['cpu']:.3g}"
    return f"| {work} | {_cost(ours)} | {peer} {_cost(theirs)} | {ratios} | {reach} |"


def _cost(found: dict[str, float]) -> str:
    return f"{found['s']:.4g} s ({found['cpu']:.4g} s of processor)"


def _a_million(found: dict[str, float], rows: int) -> str:
    each = {name: found[name] / rows * 1e6 for name in ("s", "cpu")}
    return f"| the same, a million rows | {_cost(each)} | | | |"


def main() -> None:
    """Run all steps, or the named one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path, help="where files are made; needs about 300 bytes a row")
    parser.add_argument("--skip", nargs="*", default=[], choices=STEPS)
    options = parser.parse_args()
    if options.step:
        found = STEPS[options.step](options.folder, options.rows)
        found["mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found))
        return
    folder = Path(tempfile.mkdtemp(prefix="ratchet-bench-", dir=options.folder))
    try:
        steps = [step for step in STEPS if step not in options.skip]
        print(report({step: run(step, folder, options.rows) for step in steps}, options.rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
