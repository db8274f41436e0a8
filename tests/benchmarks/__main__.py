"""The figures of docs/benchmarks.md: `python -m tests.benchmarks [--rows N]` prints them as Markdown.

`retrain` is compared with a bare script that does the same work. Both run in turn, so that a busy machine slows both.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

from deployments.flow_runs import start_run, wait_for_run
from local.stack import use_running_stack
from local.supervisor import down
from tests.checkout import copy_checkout, start_stack
from tests.fixtures.support import SMALL, approve, customers, outcome, processes_of_run, run

WHO = "bench@example.com"


class Peak(threading.Thread):
    """Measure the memory of processes and their children; `megabytes` is the highest sum of resident sizes."""

    def __init__(self, find: Callable[[], list[psutil.Process]]) -> None:
        super().__init__(daemon=True)
        self.find, self.megabytes, self.over = find, 0.0, False

    def run(self) -> None:
        """Measure about every tenth of a second, until `over`."""
        while not self.over:
            family: dict[int, psutil.Process] = {}
            for process in self.find():
                try:
                    family |= {member.pid: member for member in [process, *process.children(recursive=True)]}
                except psutil.Error:
                    continue
            self.megabytes = max(self.megabytes, sum(map(resident, family.values())) / 1e6)
            time.sleep(0.1)


def resident(process: psutil.Process) -> int:
    """Return the resident bytes of a process, or 0 when it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def scaled(rows: int, seed: int = 7) -> pd.DataFrame:
    """Return `rows` rows drawn from the churn table with replacement; their numbers vary by up to 5 %."""
    generator = np.random.default_rng(seed)
    table = customers()
    drawn = table.iloc[generator.integers(0, len(table), rows)].reset_index(drop=True)
    drawn["customer_id"] = np.arange(1, rows + 1)
    factor = generator.uniform(0.95, 1.0, rows)
    for name in ("monthly_charges", "total_charges"):
        drawn[name] = (drawn[name] * factor).round(2)
    return drawn


def timed_retrain(model: str, **parameters: Any) -> tuple[float, float, dict[str, float]]:
    """Return the seconds from trigger to approval request, the peak megabytes, and the seconds by task."""
    started = time.monotonic()
    run_id = start_run("retrain/retrain", {"model": model, "requested_by": WHO, **parameters})
    peak = Peak(lambda: processes_of_run(run_id))
    peak.start()
    ended = wait_for_run(run_id, seconds=900)
    seconds = time.monotonic() - started
    peak.over = True
    assert outcome(ended) == "Suspended", outcome(ended)
    return seconds, peak.megabytes, seconds_by_task(run_id, started_at=ended.created)


def seconds_by_task(run_id: Any, started_at: datetime | None) -> dict[str, float]:
    """Return how long each task ran, and how long it took until the first task began."""
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
    tasks = sorted((t for t in tasks if t.start_time and t.end_time), key=lambda t: str(t.start_time))
    took = {"start of the run": (tasks[0].start_time - started_at).total_seconds()} if started_at else {}
    return took | {task.name.rsplit("-", 1)[0]: task.total_run_time.total_seconds() for task in tasks}


def timed_bare(rows_file: Path, folder: Path, uri: str) -> tuple[float, float, dict[str, float]]:
    """Return the seconds, the peak megabytes and the seconds by stage of the bare script."""
    started = time.monotonic()
    command = [sys.executable, str(Path(__file__).with_name("bare.py")), str(rows_file), str(folder), uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        peak = Peak(lambda: [psutil.Process(process.pid)] if psutil.pid_exists(process.pid) else [])
        peak.start()
        printed, _ = process.communicate()
    peak.over = True
    assert process.returncode == 0, printed
    laps = next(line for line in reversed(printed.splitlines()) if line.startswith("{"))
    return time.monotonic() - started, peak.megabytes, json.loads(laps)


def small_figures(folder: Path) -> list[str]:
    """Measure a warm retrain on the real table, and a rollback."""
    customers().to_csv(folder / "churn.csv", index=False)
    assert outcome(run("ingest/ingest", model="churn", source=str(folder / "churn.csv"))) == "Completed"
    timed_retrain("churn")  # the first run compiles the imported modules
    fresh = []
    for _ in range(3):
        forget_tiers("churn")
        fresh.append(timed_retrain("churn")[0])
    again = [timed_retrain("churn")[0] for _ in range(3)]
    for parameters in (SMALL, None):
        asked = run("retrain/retrain", model="churn", requested_by=WHO, parameters=parameters)
        assert outcome(approve(asked)) == "deployed"
    started = time.monotonic()
    back = run("rollback/rollback", model="churn", requested_by=WHO, reason="bench")
    whole, inside = time.monotonic() - started, str(back.state.message if back.state else "").rsplit("after ", 1)[-1]
    return [
        "| work | seconds | to reach |",
        "|---|---|---|",
        f"| retrain of 7,043 rows, from trigger to approval request | {shown(fresh)} | 20 |",
        f"| the same, the rows having been checked before under the same suite | {shown(again)} | 20 |",
        f"| rollback: restore, verify, write down | {inside} | 5 |",
        f"| rollback as a flow run, from trigger to end | {whole:.1f} | – |",
    ]


def shown(values: list[float]) -> str:
    """Return the median and the range."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def forget_tiers(model: str) -> None:
    """Remove the tiers that were written, so that the next run reads the lake and validates again."""
    shutil.rmtree(Path(os.environ["RATCHET_STATE"]) / "scratch" / "tiers" / model, ignore_errors=True)


def big_figures(folder: Path, rows: int, uri: str, pairs: int) -> list[str]:
    """Measure `retrain` and the bare script in turn, on the same rows."""
    source = folder / "big.parquet"
    scaled(rows).to_parquet(source, index=False)
    started = time.monotonic()
    assert outcome(run("ingest/ingest", model="big", source=str(source), seconds=900)) == "Completed"
    landed = time.monotonic() - started
    ours, bare = [], []
    for _ in range(pairs):
        forget_tiers("big")
        bare.append(timed_bare(source, Path(os.environ["BENCH_CHECKOUT"]) / "models" / "big", uri))
        ours.append(timed_retrain("big"))
    time_ratio = statistics.median(a[0] / b[0] for a, b in zip(ours, bare, strict=True))
    memory_ratio = statistics.median(a[1] / b[1] for a, b in zip(ours, bare, strict=True))
    lines = [
        f"| {rows:,} rows | retrain | bare script | ratio | to reach |",
        "|---|---|---|---|---|",
        f"| seconds | {shown([a[0] for a in ours])} | {shown([b[0] for b in bare])} | {time_ratio:.2f} | 1.3 |",
        f"| peak MB | {shown([a[1] for a in ours])} | {shown([b[1] for b in bare])} | {memory_ratio:.2f} | 1.5 |",
        "",
        f"Ingest of the same rows, once: {landed:.1f} s.",
        "",
        "| where retrain spends it (last pair) | s | bare script | s |",
        "|---|---|---|---|",
    ]
    left, right = list(ours[-1][2].items()), list(bare[-1][2].items())
    right += [("imports and exit", bare[-1][0] - sum(bare[-1][2].values()))]
    for place in range(max(len(left), len(right))):
        a = left[place] if place < len(left) else ("", None)
        b = right[place] if place < len(right) else ("", None)
        lines.append(f"| {a[0]} | {seconds(a[1])} | {b[0]} | {seconds(b[1])} |")
    return lines


def seconds(value: float | None) -> str:
    """Return seconds with one decimal, or an empty text."""
    return "" if value is None else f"{value:.1f}"


def main() -> None:
    """Run all benchmarks on their own stack and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the large table")
    parser.add_argument("--pairs", type=int, default=3, help="how often retrain and the bare script run in turn")
    parser.add_argument("--only", choices=["small", "large"], help="one of the two tables")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkout").mkdir()
        checkout = copy_checkout(folder / "checkout", like_churn=["big"])
        try:
            start_stack(checkout, folder / "state")
            stack = use_running_stack(folder / "state")
            os.environ["BENCH_CHECKOUT"] = str(checkout)
            if options.only != "large":
                print("\n".join(small_figures(folder)) + "\n", flush=True)
            if options.only != "small":
                uri = stack.url("mlflow")
                print("\n".join(big_figures(folder, options.rows, uri, options.pairs)), flush=True)
        finally:
            down(folder / "state")


if __name__ == "__main__":
    main()
