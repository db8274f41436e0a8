"""An ingest that is killed at any moment and run again appends every row once; no partial append is ever visible."""

import random
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.lake.local import LocalLake
from tasks.shared.rules.model.data import DataSpec
from tests.checkout import ROOT

REPOSITORY = ROOT
ROWS, WRONG, KILLS = 400_000, 1_000, 4
SPEC = DataSpec(dataset="events", entity="id", target="y", features={"a": "number", "b": "number", "c": "category"})
INGEST = """
import sys
from pathlib import Path
import tasks.ingestion.landing
from blocks.lake.local import LocalLake
from tests.faults.test_ingest_kills import SPEC
from tests.fixtures.sources import open_source

tasks.ingestion.landing.create_markdown_artifact = lambda **given: None
lake, source = LocalLake(root=Path(sys.argv[1])), open_source(sys.argv[2], kinds=tasks.shared.rules.model.data.column_kinds(SPEC))
print("ready", flush=True)
landed = tasks.ingestion.landing.ingest_rows(lake, SPEC, source, scratch=Path(sys.argv[3]))
print("landed", landed.accepted, landed.quarantined, flush=True)
"""


def source_of(folder: Path, form: str) -> Path:
    """Write rows of which some are invalid: without a target, or with a repeated key."""
    ids = np.arange(ROWS)
    ids[-WRONG // 2 :] = 0
    missing = np.zeros(ROWS, dtype=bool)
    missing[1 : 1 + WRONG // 2] = True
    values = np.random.default_rng(7).normal(size=(3, ROWS)).round(4)
    table = pa.table({"id": ids.astype(str), "a": values[0], "b": values[1], "c": ["x"] * ROWS,
                      "y": pa.array(values[2], mask=missing)})  # fmt: skip
    path = folder / f"events.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        table.to_pandas().to_csv(path, index=False)
    return path


def ingest(root: Path, source: Path, scratch: Path, seconds: float | None) -> tuple[str, float]:
    """Run an ingest; kill it after this many seconds of work. Return its messages, and how long it worked."""
    command = [sys.executable, "-c", INGEST, str(root), str(source), str(scratch)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begun = time.monotonic()
        if seconds is not None:
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        return process.stdout.read(), time.monotonic() - begun


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("form", ["parquet", pytest.param("csv", marks=pytest.mark.heavy)])
def test_an_ingest_killed_at_any_moment_lands_every_row_once_when_run_again(tmp_path: Path, form: str) -> None:
    """It is killed until at least one kill came before the end, however the machine's speed changes."""
    chance = random.Random(20261123)
    source, scratch = source_of(tmp_path, form), tmp_path / "scratch"
    said, whole = ingest(tmp_path / "whole", source, scratch, None)
    assert said == f"landed {ROWS - WRONG} {WRONG}\n"
    undisturbed = LocalLake(root=tmp_path / "whole")
    expected = undisturbed.read(undisturbed.as_of("events"))
    moments = [(number + chance.uniform(0.0, 1.0)) / KILLS * whole for number in range(KILLS)]  # the first is early
    halfway = 0
    for number in count():
        if number >= KILLS and halfway:
            break
        root = tmp_path / f"lake-{number}"
        lake = LocalLake(root=root)
        ingest(
            root, source, scratch, moments[number] if number < KILLS else whole / 2**number
        )  # still too late: earlier
        halfway += not lake.datasets() or lake.datasets() == ("events-quarantine",)
        for dataset in lake.datasets():
            assert lake.as_of(dataset).rows == (WRONG if dataset == "events-quarantine" else ROWS - WRONG)
        said, _ = ingest(root, source, scratch, None)
        assert said == f"landed {ROWS - WRONG} {WRONG}\n"
        assert lake.read(lake.as_of("events")).equals(expected)
        assert [len(lake.as_of(dataset).snapshots) for dataset in lake.datasets()] == [1, 1]
