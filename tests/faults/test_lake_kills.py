"""A writer of the lake is killed at any moment: snapshots are complete, and no acknowledged one is lost."""

import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from blocks.lake.local import LocalLake
from tests.checkout import ROOT

REPOSITORY = ROOT
ROWS = 2_000
KILLS = 15
WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from blocks.lake.fake import FakeLake
from blocks.lake.local import LocalLake
from tests.faults.test_lake_kills import batch

lake, life = LocalLake(root=Path(sys.argv[1])), sys.argv[2]
FakeLake().append("events", batch("x"), source="warm up", key="x", at=datetime.now(UTC))  # loads what is lazy
print("ready", flush=True)
for number in range(100_000):
    key = f"{life}-{number}"
    snapshot = lake.append("events", batch(key), source="loop", key=key, at=datetime.now(UTC))
    print(key, snapshot.id, flush=True)
"""


def batch(key):
    """Return the rows of one append, all of them marked with its key."""
    buckets = np.random.default_rng(len(key)).integers(0, 10_000, ROWS).astype(np.int32)
    return pa.table({"key": [key] * ROWS, "value": np.arange(ROWS), "_bucket": buckets})


def write_and_be_killed(root, life, appends, seconds):
    """Kill a process this many seconds after some appends; return the acknowledged ones: key to id."""
    command = [sys.executable, "-c", WRITER, str(root), str(life)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        first = "".join(process.stdout.readline() for _ in range(appends))
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = [line for line in (first + process.stdout.read()).splitlines(keepends=True) if line.endswith("\n")]
    assert process.returncode == -signal.SIGKILL
    return dict(line.split() for line in lines)


@pytest.mark.slow
def test_a_killed_writer_leaves_no_half_and_loses_nothing_acknowledged(tmp_path):
    chance = random.Random(20261121)
    lake, acknowledged = LocalLake(root=tmp_path / "lake"), {}
    for life in range(KILLS):
        acknowledged |= write_and_be_killed(lake.root, life, chance.randint(0, 3), chance.uniform(0.0, 0.008))
        if not lake.datasets():
            continue
        now = lake.as_of("events")
        assert {s.key: s.id for s in now.snapshots}.items() >= acknowledged.items()
        values, counts = np.unique(lake.read(now)["key"].to_numpy(), return_counts=True)
        assert set(values) == {s.key for s in now.snapshots}
        assert set(counts.tolist()) == {ROWS}
    assert len(acknowledged) >= KILLS
    last = lake.append("events", batch("last"), source="test", key="last", at=datetime.now(UTC))
    assert last.sequence == len(lake.as_of("events").snapshots) >= len(acknowledged) + 1


@pytest.mark.slow
def test_an_append_repeated_after_a_kill_happens_once(tmp_path):
    lake = LocalLake(root=tmp_path / "lake")
    for appends in (1, 3, 6):
        write_and_be_killed(lake.root, "same", appends, 0.003)
    keys = [snapshot.key for snapshot in lake.as_of("events").snapshots]
    assert len(set(keys)) == len(keys)
    assert keys == [f"same-{number}" for number in range(max(6, len(keys)))]
