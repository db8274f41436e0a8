"""Batch inference at size: `python -m tests.benchmarks.score [--rows N …] [--spark]` prints the figures as Markdown.

The table is churn drawn with replacement, with varied charges. The model is churn's own, trained on the real table.
Each step runs in its own process, so that its peak memory is its own (with Spark's Java and Python processes). What
needs a Prefect server is excluded: artifacts and the run log.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.local import LocalLake
from blocks.tracking.mlflow import MlflowTracking
from runtime.digests import folder_digest
from tasks.batch.input import InferenceInput, input_from_lake
from tasks.batch.predictor import Predictor
from tasks.batch.tasks import append_predictions
from tasks.shared.models import TeamModel, load_model
from tasks.validation.rules.expectations import validate_table
from tasks.validation.rules.parquet_rows import ParquetRows
from tests.benchmarks.__main__ import Peak, scaled
from tests.fixtures.signing_keys import MODELS, signed
from tests.fixtures.sources import input_from_source
from tests.fixtures.support import customers

PART = 250_000
MOST_BARE = 2_000_000
"""The bare script holds all rows in memory and more: 1.8 GB for a million."""


def source(folder: Path, rows: int) -> dict[str, float]:
    """Write the rows as several Parquet files, so that creating them needs little memory."""
    (folder / "in").mkdir()
    for place, start in enumerate(range(0, rows, PART)):
        part = scaled(min(PART, rows - start), seed=place).drop(columns="churn")
        part["customer_id"] = [f"c{start + number}" for number in range(len(part))]
        part.to_parquet(folder / "in" / f"part-{place:03}.parquet", index=False)
    return {"mb_of_files": sum(file.stat().st_size for file in (folder / "in").iterdir()) / 1e6}


def train(folder: Path, rows: int) -> dict[str, float]:
    """Train churn's model on the real table."""
    (folder / "train").mkdir()
    customers().drop(columns="customer_id").to_parquet(folder / "train" / "part-0.parquet", index=False)
    told = {"SM_CHANNEL_TRAIN": str(folder / "train"), "SM_MODEL_DIR": str(folder / "model"), "HOME": str(folder)}
    program = load_model("churn").folder / "train.py"
    subprocess.run([sys.executable, str(program)], env={**os.environ, **told}, check=True, stdout=subprocess.DEVNULL)
    signed(folder / "model")
    return {}


def bare(folder: Path, rows: int) -> dict[str, float]:
    """Do what a script does: read all, predict at once, write. It checks nothing and quarantines nothing."""
    import mlflow
    import pandas as pd

    features = list(churn().spec.data.features)
    begun = time.perf_counter()
    frame = pd.read_parquet(folder / "in")
    numbers = frame[features].select_dtypes("number").columns
    said = mlflow.pyfunc.load_model(str(folder / "model")).predict(
        frame[features].astype(dict.fromkeys(numbers, "float64"))
    )
    pd.DataFrame({"customer_id": frame["customer_id"], "yes": np.asarray(said)[:, 1]}).to_parquet(
        folder / "bare.parquet"
    )
    return {"s": time.perf_counter() - begun}


def from_files(folder: Path, rows: int) -> dict[str, float]:
    """Predict a folder of files as the flow does on DuckDB: stage, digest, check, predict, append."""
    return scored(folder, "by-files", rows, partial(input_from_source, churn().spec.data, str(folder / "in"), ""))


def from_lake(folder: Path, rows: int) -> dict[str, float]:
    """Predict a data set of the lake."""
    lake, data = LocalLake(root=folder / "lake"), churn().spec.data
    engine = DuckDBEngine(spill=folder)
    land(lake, folder)
    return scored(folder, "by-lake", rows, partial(input_from_lake, lake, engine, data, "candidates", ""))


def on_spark(folder: Path, rows: int) -> dict[str, float]:
    """Predict the same data set on Spark in local mode; its start is not counted."""
    from blocks.engines.spark import SparkEngine

    lake, data = LocalLake(root=folder / "lake"), churn().spec.data
    engine = SparkEngine(spill=folder)
    engine.query("SELECT 1 AS one", {})
    try:
        return scored(folder, "by-spark", rows, partial(input_from_lake, lake, engine, data, "candidates", ""))
    finally:
        engine.stop()


def map_duckdb(folder: Path, rows: int) -> dict[str, float]:
    """Only predict and write, on DuckDB: the best of two runs; the first run loads the model."""
    return mapped(folder, DuckDBEngine(spill=folder))


def map_spark(folder: Path, rows: int) -> dict[str, float]:
    """Only predict and write, on Spark in local mode: the best of two runs; in the second the workers are warm."""
    from blocks.engines.spark import SparkEngine

    engine = SparkEngine(spill=folder)
    try:
        return mapped(folder, engine)
    finally:
        engine.stop()


def mapped(folder: Path, engine: Engine) -> dict[str, float]:
    lake, found = LocalLake(root=folder / "lake"), []
    given = input_from_lake(lake, engine, churn().spec.data, "candidates", "", folder)
    for _ in range(2):
        begun, to = time.perf_counter(), folder / "mapped"
        engine.map_batches(
            predictor(folder), given.rows_with_buckets_sql("customer_id"), given.tables, predictor(folder).schema, to
        )
        found.append(time.perf_counter() - begun)
        shutil.rmtree(to)
    return {"s": min(found), "first_s": found[0]}


def churn() -> TeamModel:
    return load_model("churn")


def predictor(folder: Path) -> Predictor:
    artifact = folder / "model"
    return Predictor(
        MlflowTracking(tracking_uri="", trusted_keys=(MODELS.public_key_line,)),
        artifact,
        folder_digest(artifact),
        churn().spec.data,
        "1",
    )


def land(lake: LocalLake, folder: Path) -> None:
    """Append the files to the lake, with buckets."""
    files = tuple(map(str, sorted((folder / "in").iterdir())))
    rows = DuckDBEngine(spill=folder).stream("SELECT *, bucket_of(customer_id, 1) AS _bucket FROM t", {"t": files})
    lake.append("candidates", rows, source="benchmark", key="once", at=datetime.now(UTC))


def scored(folder: Path, name: str, rows: int, opened: Callable[[Path], InferenceInput]) -> dict[str, float]:
    """Append the predictions to a new lake and return the seconds of each part."""
    suite = (
        churn().expectation_suite().without_column("churn").with_minimum_rows(1)
    )  # imports Great Expectations, which is not counted
    lake, work = LocalLake(root=folder / name), folder / f"{name}-work"
    work.mkdir()
    marks = [time.perf_counter()]

    def hold(given: ParquetRows) -> None:
        marks.append(time.perf_counter())
        report = validate_table(given, suite, key="customer_id")
        assert report.passed, report.reasons
        marks.append(time.perf_counter())

    kept = append_predictions(lake, opened(work), predictor(folder), hold, work)
    marks.append(time.perf_counter())
    assert kept.rows == rows
    shutil.rmtree(work)
    read, checks, predicted = (marks[place + 1] - marks[place] for place in range(3))
    return {"s": marks[-1] - marks[0], "read_s": read, "check_s": checks, "predict_s": predicted}


STEPS: dict[str, Callable[[Path, int], dict[str, float]]] = {
    step.__name__: step for step in (source, train, bare, from_files, from_lake, on_spark, map_duckdb, map_spark)
}
SPARK = ("on_spark", "map_spark")


def run(step: str, folder: Path, rows: int) -> dict[str, float]:
    """Run a step in its own process and return its figures, with the peak memory of it and its children."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.score",
        "--step",
        step,
        "--folder",
        str(folder),
        "--rows",
        str(rows),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = Peak(lambda: [psutil.Process(process.pid)] if psutil.pid_exists(process.pid) else [])
        peak.start()
        printed, _ = process.communicate()
    peak.over = True
    if process.returncode:
        raise SystemExit(f"{step} failed:\n{printed[-2000:]}")
    found: dict[str, float] = json.loads(printed.splitlines()[-1])
    if step in SPARK:
        found["mb"] = peak.megabytes
    shown = ", ".join(f"{name} {value:,.4g}" for name, value in found.items())
    print(f"- {rows:,} rows, {step}: {shown} (load {os.getloadavg()[0]:.0f})", file=sys.stderr, flush=True)
    return found


NAMES = {
    "bare": "a bare script: pandas reads all, predicts at once, writes",
    "from_files": "`score` of a folder of Parquet, on DuckDB",
    "from_lake": "`score` of a read of the lake, on DuckDB",
    "on_spark": "the same on Spark local[2]",
    "map_duckdb": "predicting alone, on DuckDB",
    "map_spark": "the same on Spark local[2]",
}


def report(rows: int, found: dict[str, dict[str, float]]) -> None:
    """Print one line per step that ran."""
    for step, name in NAMES.items():
        if step in found:
            parts = [
                f"{found[step][part]:.1f}" if part in found[step] else "" for part in ("read_s", "check_s", "predict_s")
            ]
            print(
                f"| {rows:,} | {name} | {found[step]['s']:.1f} | {' | '.join(parts)} | {found[step]['mb']:,.0f} |",
                flush=True,
            )


def main() -> None:
    """Run all steps for each size, or the named one."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.score", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 5_000_000])
    parser.add_argument("--spark", action="store_true", help="Spark as well")
    parser.add_argument("--skip", nargs="*", default=[], choices=STEPS)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.step:
        found = STEPS[asked.step](asked.folder, asked.rows[0])
        print(json.dumps({**found, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
        return
    steps = [step for step in STEPS if step not in asked.skip and (asked.spark or step not in SPARK)]
    print("| rows | work | s | read | check | predict, append | peak MB |\n|---|---|---|---|---|---|---|")
    for rows in asked.rows:
        folder = Path(tempfile.mkdtemp(prefix="ratchet-score-", dir=asked.folder))
        try:
            fitting = [step for step in steps if step != "bare" or rows <= MOST_BARE]
            report(rows, {step: run(step, folder, rows) for step in fitting})
        finally:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
