"""Time and memory of a monitoring run: `monitor` and Evidently's report over rows of 20 columns.

    python -m tests.benchmarks.monitoring [--rows 100000 10000000] [--log 10000000] [--alone 100000] [--columns 100 400]

Half of the columns are numbers, the others are categories of eight values, in a lake in a local folder. The reference
data is a tenth of the rows, at most one million. The first monitoring run also counts the reference data; the second
finds it counted. `--log` has as many rows as the inference log of the ten days that a nightly monitoring run reads:
three windows and the seven before, and predictions that are joined with labels. Memory is the peak of the process, or
of the process that it starts for Evidently. `--alone` runs Evidently's default preset on this many rows, in its own
process, in the same benchmark. `--columns` monitors tables of this many columns and `WIDE_ROWS` logged rows by turns,
and prints the ratio of their processor time.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.local import LocalLake
from tasks.monitoring.reporting import run_evidently
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.monitoring.rules.requests import (
    MODEL_VERSION_COLUMN,
    REQUEST_COLUMN,
    REQUEST_ROW_COLUMN,
    REQUESTED_AT_COLUMN,
    inference_dataset,
)
from tasks.monitoring.runs import MonitoringScope, monitor_model
from tasks.shared.models import TeamModel
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.rows.buckets import tier_buckets
from tests.fakes.environment import World
from tests.fixtures.monitored import DAY, UNTIL, promote
from tests.fixtures.spec_cases import BINARY

BATCH = 200_000
WIDE_ROWS, WIDE_ROUNDS = 20_000, 3


def names(columns: int) -> tuple[list[str], list[str]]:
    """Return the names of the numbers and of the categories; the first number has a weight in the model."""
    half = range(1, columns // 2)
    return ["rooms", *(f"n{number}" for number in half)], ["c0", *(f"c{number}" for number in half)]


def model(columns: int = 20) -> TeamModel:
    """Return a model of this many columns."""
    known = "    rooms: number\n    street: category\n    garden: flag\n"
    features = "".join(
        f"    {name}: {kind}\n"
        for some, kind in zip(names(columns), ("number", "category"), strict=True)
        for name in some
    )
    text = BINARY.replace(known, features).replace("column: street", "column: c0")
    return TeamModel(Path("models/price"), parse_spec(text, "model.yaml"))


def rows(count: int, seed: int, log: bool = False, width: int = 20) -> pa.RecordBatchReader:
    """Return rows as a stream; with `log` they are logged requests to version 1 in the last ten days."""
    random = np.random.default_rng(seed)
    values = pa.array([f"value {letter}" for letter in "abcdefgh"])
    numbers, texts = names(width)

    def batches():
        for start in range(0, count, BATCH):
            n = min(BATCH, count - start)
            ids = pa.array(np.arange(start, start + n)).cast(pa.string())
            columns = {"house_id": ids, "price": pa.array(np.where(random.random(n) < 0.3, "Yes", "No"))}
            columns |= {name: pa.array(random.normal(0, 1, n)) for name in numbers}
            columns |= {name: values.take(pa.array(random.integers(0, 8, n))) for name in texts}
            if log:
                del columns["price"]
                columns |= logged(columns["rooms"].to_numpy(), start, count)
            yield pa.record_batch({**columns, "_bucket": pa.array(tier_buckets(ids), pa.int32())})

    first = next(batches())
    return pa.RecordBatchReader.from_batches(first.schema, batches())


def logged(rooms: np.ndarray, start: int, count: int) -> dict[str, pa.Array]:
    """Return the other columns of the log: request, row, time, version, and the predicted probabilities."""
    n = len(rooms)
    places = np.arange(start, start + n)
    first = np.datetime64((UNTIL - 10 * DAY).replace(tzinfo=None), "us")
    times = first + (places * (10 * 86_400_000_000 / count)).astype("timedelta64[us]") + np.timedelta64(1, "us")
    positive = 1 / (1 + np.exp(-0.5 * rooms))
    return {
        REQUEST_COLUMN: pa.array(places // 1000).cast(pa.string()),
        REQUEST_ROW_COLUMN: pa.array(places % 1000, pa.int32()),
        REQUESTED_AT_COLUMN: pa.array(times, pa.timestamp("us")).cast(pa.timestamp("us", "UTC")),
        MODEL_VERSION_COLUMN: pa.array(["1"] * n),
        "_prediction_No": pa.array(1 - positive),
        "_prediction_Yes": pa.array(positive),
    }


def measure(count: int, folder: Path, log: bool = False) -> None:
    """Ingest, promote, run monitoring twice; print."""
    env, brought = World.at(folder), model()
    env._adapters["lake"] = LocalLake(root=folder / "lake")
    env._adapters["blocks.engines.duckdb.DuckDBEngine"] = DuckDBEngine(memory_limit_mb=700)
    env.lake().append("houses", rows(min(max(count // 10, 20_000), 1_000_000), 1), source="b", key="a", at=UNTIL)
    dataset = inference_dataset(brought.spec) if log else "now"
    env.lake().append(dataset, rows(count, 2, log), source="b", key="b", at=UNTIL)
    promote(env, brought, {"rooms": 0.5})
    wanted = MonitoringScope(UNTIL, DAY, "" if log else dataset)
    rules = MonitoringRules() if log else MonitoringRules(windows=1, min_breached_windows=1)
    for which in ("first", "second"):
        begin, busy = time.perf_counter(), processor_seconds()
        seen = monitor_model(env, brought, rules, wanted, folder / which)
        judged = time.perf_counter() - begin
        made = run_evidently(seen.folder)
        took = time.perf_counter() - begin
        own, child = (
            resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        print(
            f"{count:,} rows × 20{' of a log of ten days' if log else ''}, {which} look: {took:.1f} s (judged after {judged:.1f} s; "
            f"{processor_seconds() - busy:.1f} s of processor time), {seen.outcome}, "
            f"Evidently's report {'made' if made else 'NOT made'}; at most {own:,.0f} MB, its child {child:,.0f} MB",
            flush=True,
        )


def wide(columns: int, folder: Path) -> None:
    """Run monitoring of a wide table twice; print the processor seconds of both, and of Evidently's report, as JSON."""
    env, brought = World.at(folder), model(columns)
    env._adapters["lake"] = LocalLake(root=folder / "lake")
    env._adapters["blocks.engines.duckdb.DuckDBEngine"] = DuckDBEngine(memory_limit_mb=700)
    env.lake().append("houses", rows(WIDE_ROWS // 4, 1, width=columns), source="b", key="a", at=UNTIL)
    log = inference_dataset(brought.spec)
    env.lake().append(log, rows(WIDE_ROWS, 2, log=True, width=columns), source="b", key="b", at=UNTIL)
    promote(env, brought, {"rooms": 0.5})
    spent, seen = [processor_seconds()], None
    for which in ("first", "second"):
        seen = monitor_model(env, brought, MonitoringRules(), MonitoringScope(UNTIL, DAY), folder / which)
        spent.append(processor_seconds())
    assert seen is not None and seen.outcome == "no_drift", seen
    assert run_evidently(seen.folder)
    spent.append(processor_seconds())
    print(json.dumps([after - before for before, after in pairwise(spent)]))


def compare_widths(widths: list[int]) -> None:
    """Monitor tables of these many columns by turns, each in its own process, and print the ratios to the first."""
    measured: dict[int, list[list[float]]] = {columns: [] for columns in widths}
    for _ in range(WIDE_ROUNDS):
        for columns in widths:
            command = [sys.executable, "-m", "tests.benchmarks.monitoring", "--one-width", str(columns)]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            measured[columns].append(json.loads(printed.splitlines()[-1]))
    for place, what in enumerate(("first run", "second run", "Evidently's report")):
        middle = {columns: statistics.median(each[place] for each in measured[columns]) for columns in widths}
        shown = ", ".join(
            f"{columns} columns {spent:.1f} s ({spent / middle[widths[0]]:.1f} ×)" for columns, spent in middle.items()
        )
        print(f"{what}, processor time: {shown}", flush=True)


def processor_seconds() -> float:
    """Return the processor seconds of this process and of its ended children."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def alone(count: int) -> None:
    """Run Evidently's default preset on this many rows, and print."""
    from tasks.monitoring.rules.evidently_report import default_preset_drift

    then, now = (rows(count, seed).read_all().to_pandas() for seed in (1, 2))
    begin = time.perf_counter()
    default_preset_drift(then, now, [name for name in then if name not in ("house_id", "price", "_bucket")])
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"Evidently's preset alone, {count:,} × 20: {time.perf_counter() - begin:.1f} s, {held:,.0f} MB", flush=True)


def main() -> None:
    """Measure each size in its own process, so that its memory is its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.monitoring", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 10_000_000])
    parser.add_argument("--log", type=int, nargs="*", default=[10_000_000])
    parser.add_argument("--alone", type=int, default=100_000)
    parser.add_argument("--columns", type=int, nargs="*", default=[100, 400])
    parser.add_argument("--one-width", type=int, help="measure a table of this many columns in this process")
    parser.add_argument("--one", type=int, help="measure this one size in this process")
    parser.add_argument("--one-log", type=int, help="the same of a log")
    parser.add_argument("--one-alone", type=int, help="the same of Evidently alone")
    options = parser.parse_args()
    if options.one or options.one_log:
        with tempfile.TemporaryDirectory() as folder:
            measure(options.one or options.one_log, Path(folder), log=bool(options.one_log))
        return
    if options.one_width:
        with tempfile.TemporaryDirectory() as folder:
            wide(options.one_width, Path(folder))
        return
    if options.one_alone:
        alone(options.one_alone)
        return
    command = [sys.executable, "-m", "tests.benchmarks.monitoring"]
    for count in options.rows:
        subprocess.run([*command, "--one", str(count)], check=True)
    for count in options.log:
        subprocess.run([*command, "--one-log", str(count)], check=True)
    if options.columns:
        compare_widths(options.columns)
    if options.alone:
        subprocess.run([*command, "--one-alone", str(options.alone)], check=True)


if __name__ == "__main__":
    main()
