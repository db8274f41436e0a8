"""The tables of docs/monitoring.md by kind of number: false alarms and detection, beside three other libraries.

    python -m tests.benchmarks.drift_kinds [--windows 200] [--peer-windows 30] [--nannyml FOLDER] [--alibi FOLDER]

A table has one column of each kind of `tests/fixtures/distributions.py`. Windows without drift count as false alarms
when any column is found, windows with drift as detected when the changed column is found. Each library uses its
defaults, and sees the same windows, of which there are fewer. NannyML and alibi-detect do not fit our lock file:
install each into a folder of its own (`pip install --target FOLDER nannyml`), and name it; without, they are left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.monitoring.rules.bins import number_column
from tasks.monitoring.rules.columns import BinCounts, MonitoredColumn
from tasks.monitoring.rules.drift import column_drifts
from tasks.monitoring.rules.findings import MonitoringRules
from tests.fixtures.distributions import MOVED

RULES = MonitoringRules()
REFERENCE_ROWS = 5000
SIZES = ((50, 200), (1000, 1000), (10_000, 10_000), (100_000, 100_000), (10_000, 200), (200, 10_000))
Counts = dict[str, BinCounts]


def table(rows: int, random: np.random.Generator, changed: str = "") -> pd.DataFrame:
    """Draw a table with a column of each kind, of which one has changed."""
    return pd.DataFrame({name: MOVED[name][name == changed](random, rows) for name in MOVED})


def counted(columns: list[MonitoredColumn], rows: pd.DataFrame) -> Counts:
    """Return the counts of each column."""
    return {
        column.name: BinCounts(tuple(np.bincount(column.bins_of(rows[column.name].to_numpy()), minlength=column.bins)))
        for column in columns
    }


def ours(reference: pd.DataFrame, windows: list[pd.DataFrame]) -> list[list[str]]:
    """Return the columns that have drifted in each window."""
    columns = [number_column(name, reference[name].to_numpy()) for name in reference]
    before = counted(columns, reference)
    return [
        [each.column.name for each in column_drifts(columns, before, counted(columns, window), RULES) if each.drifted]
        for window in windows
    ]


def peer(name: str, installed: str, reference: pd.DataFrame, windows: list[pd.DataFrame]) -> list[list[str]]:
    """Return what another library finds, in a process of its own with the library's folder on its path."""
    with tempfile.TemporaryDirectory() as folder:
        reference.to_parquet(Path(folder) / "reference.parquet")
        numbered = [window.assign(window=at) for at, window in enumerate(windows)]
        pd.concat(numbered).to_parquet(Path(folder) / "windows.parquet")
        command = [sys.executable, str(Path(__file__).with_name("drift_peers.py")), name, folder]
        environment = os.environ | {"PYTHONPATH": installed, "DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    found: list[list[str]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def false_alarms_by_size(draws: int) -> None:
    """Print how often a column is found without drift, by the rows of the reference and of the window."""
    print(
        "| rows of the reference | of the window | columns | found without drift | p-value at most 1 % |\n"
        + "|---" * 5
        + "|"
    )
    random = np.random.default_rng(21)
    for rows, window in SIZES:
        some = draws if rows < 100_000 else max(1, draws // 10)
        columns, found, small = 0, 0, 0
        for _ in range(some):
            reference, now = table(rows, random), table(window, random)
            for name in MOVED:
                column = number_column(name, reference[name].to_numpy())
                before, after = (counted([column], side) for side in (reference, now))
                (compared,) = column_drifts([column], before, after, RULES)
                columns, found = columns + 1, found + compared.drifted
                small += compared.p_value <= RULES.significance_level
        print(f"| {rows:,} | {window:,} | {columns:,} | {found / columns:.2%} | {small / columns:.2%} |", flush=True)


def main() -> None:
    """Measure, and print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.drift_kinds", description=__doc__)
    parser.add_argument("--windows", type=int, default=200, help="windows that Ratchet compares, for each kind")
    parser.add_argument("--peer-windows", type=int, default=30, help="windows that the other libraries compare")
    parser.add_argument("--draws", type=int, default=100, help="tables without drift for each size")
    parser.add_argument("--nannyml", default="", help="the folder in which NannyML is installed")
    parser.add_argument("--alibi", default="", help="the folder in which alibi-detect is installed")
    options = parser.parse_args()
    false_alarms_by_size(options.draws)
    peers = {"evidently": ""} | {name: at for name in ("nannyml", "alibi") if (at := getattr(options, name))}
    random = np.random.default_rng(22)
    reference = table(REFERENCE_ROWS, random)
    kinds = ["", *MOVED]
    drawn = {kind: [table(500, random, kind) for _ in range(options.windows)] for kind in kinds}
    found_by_peers = {
        name: _by_kind(name, at, reference, {kind: drawn[kind][: _shown(options, name, kind)] for kind in kinds})
        for name, at in peers.items()
    }
    print("\n| in windows of 500 rows | " + " | ".join(["Ratchet", *peers]) + " |\n" + "|---" * (2 + len(peers)) + "|")
    for kind in kinds:
        cells = [_share(ours(reference, drawn[kind]), kind)]
        cells += [_share(found[kind], kind) for found in found_by_peers.values()]
        print(f"| {kind or 'no drift, any column'} | {' | '.join(cells)} |", flush=True)


def _shown(options: argparse.Namespace, name: str, kind: str) -> int:
    """Return how many windows of a kind a library compares. Evidently needs seconds for each."""
    return int(options.peer_windows) if name != "evidently" or not kind else max(1, options.peer_windows // 10)


def _by_kind(
    name: str, installed: str, reference: pd.DataFrame, windows: dict[str, list[pd.DataFrame]]
) -> dict[str, list[list[str]]]:
    found = iter(peer(name, installed, reference, [each for some in windows.values() for each in some]))
    return {kind: [next(found) for _ in some] for kind, some in windows.items()}


def _share(found: list[list[str]], kind: str) -> str:
    return f"{np.mean([kind in names if kind else bool(names) for names in found]):.0%}"


if __name__ == "__main__":
    main()
