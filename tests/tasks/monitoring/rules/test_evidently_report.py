"""Evidently's report: it has our scores, and includes columns on which Evidently alone raises an error."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.checkout import ROOT


@pytest.mark.slow
def test_the_report_bears_our_scores_with_their_tests(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = pd.DataFrame(
        {"rooms": random.normal(0, 1, 300), "street": random.choice(["Elm", "Oak"], 300), "empty": np.nan}
    )
    rows.loc[3, "rooms"] = np.inf
    rows.to_parquet(tmp_path / "reference.parquet")
    rows[:100].to_parquet(tmp_path / "current.parquet")
    scores = {
        name: {"score": score, "threshold": 0.1, "drifted": False}
        for name, score in (("rooms", 0.3), ("street", 0.0), ("empty", None))
    }
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    module = "tasks.monitoring.rules.evidently_report"
    done = subprocess.run(
        [sys.executable, "-m", module, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "report.json").read_text())
    ours = [each for each in said["metrics"] if each["metric_name"].startswith("StabilityIndex")]
    assert [each["value"] for each in ours] == [0.3, 0.0]
    assert [each["status"] for each in said["tests"]][:2] == ["FAIL", "SUCCESS"]
    assert "Population stability index of rooms" in (tmp_path / "report.html").read_text()
