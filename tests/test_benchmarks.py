"""The benchmarks run: a renamed function would otherwise be noticed when somebody needs a figure."""

import subprocess
import sys

import pytest

from tests.checkout import ROOT


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_the_benchmark_of_data_runs_to_its_table() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.data", "--rows", "20000", "--skip", "metadata"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| ingest: " in done.stdout
