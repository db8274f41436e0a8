"""Quality monitoring: degraded only beyond chance and by enough to matter; labels must be later than predictions."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.engines.duckdb import DuckDBEngine
from tasks.monitoring.rules.quality import check_quality, labelled_predictions_sql, too_few_labels_reason
from tasks.monitoring.rules.requests import REQUESTED_AT_COLUMN
from tasks.shared.rules.model.spec import parse_spec
from tests.fixtures.spec_cases import BINARY, GOOD

HOUSES, SOLD = parse_spec(GOOD, "model.yaml"), parse_spec(BINARY, "model.yaml")
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


def regression(error: float, rows: int = 2000, seed: int = 0):
    random = np.random.default_rng(seed)
    truth = random.normal(0, 3, rows)
    return truth, truth + random.normal(0, error, rows)


@pytest.mark.parametrize(
    ("error", "worse"),
    [(1.0, set()), (1.2, set()), (2.0, {"rmse"}), (3.5, {"rmse", "r2"})],
    ids=["as before", "within the margin of 0.5", "beyond the margin", "below its floor too"],
)
def test_a_regression_is_worse_beyond_its_margin_or_below_its_floor(error: float, worse: set[str]) -> None:
    measured, found = check_quality(HOUSES.evaluation, "regression", regression(1.0), regression(error, seed=1))
    assert {each.metric for each in measured if each.worse} == worse == {each.column for each in found}
    assert all(each.lower <= each.current_value <= each.upper for each in measured)
    assert all(each.kind == "quality" and "at promotion" in each.text for each in found)


def test_few_rows_are_no_reason_to_call_a_model_worse() -> None:
    measured, found = check_quality(HOUSES.evaluation, "regression", regression(1.0), regression(1.7, rows=8, seed=3))
    assert found == [] and measured[0].upper - measured[0].lower > 0.5


def test_rows_are_counted_by_class_before_anything_is_judged() -> None:
    assert "fewer than the 50" in too_few_labels_reason("binary", np.zeros(10, np.int64), 50)
    assert too_few_labels_reason("binary", np.repeat([0, 1], 50), 50) == ""
    assert (
        too_few_labels_reason("binary", np.repeat([0, 1], [95, 5]), 50) == "a class has 5 labelled rows, fewer than 10"
    )
    assert too_few_labels_reason("binary", np.zeros(60, np.int64), 50) == "a class has 0 labelled rows, fewer than 10"
    assert (
        too_few_labels_reason("multiclass", np.repeat([0, 1], 50), 50, 3)
        == "a class has 0 labelled rows, fewer than 10"
    )
    assert too_few_labels_reason("regression", np.zeros(60), 50) == ""


def asked(folder: Path, spec, labels: dict[str, list], seen: list[str]) -> list[dict]:
    """Two predictions of h1, and one each of h2 and h3, joined with labels."""
    keys, hours = ["h1", "h1", "h2", "h3"], [5, 1, 5, 5]
    said = {"_prediction_No": [0.9, 0.2, 0.5, 0.5], "_prediction_Yes": [0.1, 0.8, 0.5, 0.5]}
    at = pa.array([NOON - timedelta(hours=hour) for hour in hours], pa.timestamp("us", "UTC"))
    tables = {
        "rows": pa.table({"house_id": keys, REQUESTED_AT_COLUMN: at, **said}),
        "labels": pa.table(labels),
        "seen": pa.table({"house_id": seen}),
    }
    files = {}
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
        files[name] = (str(folder / f"{name}.parquet"),)
    return sorted(DuckDBEngine().query(labelled_predictions_sql(spec, "rows"), files).to_pylist(), key=str)


def test_the_newest_prediction_of_an_entity_meets_its_label_unless_it_was_trained_on(tmp_path: Path) -> None:
    labels = {"house_id": ["h1", "h2", "h4", "h3"], "price": ["Yes", "No", "No", None]}
    (found,) = asked(tmp_path, SOLD, labels, seen=["h2"])
    assert (found["_prediction_Yes"], found["_truth"]) == (0.8, "Yes")


def test_with_times_the_label_is_the_first_after_the_prediction(tmp_path: Path) -> None:
    timed = parse_spec(BINARY.replace("  target:", "  time: sold_at\n  target:"), "model.yaml")
    hours = [3, -1, -2, 6]
    labels = {
        "house_id": ["h1", "h1", "h1", "h2"],
        "price": ["No", "Yes", "No", "Yes"],
        "sold_at": [NOON - timedelta(hours=hour) for hour in hours],
    }
    (found,) = asked(tmp_path, timed, labels, seen=["h1"])
    assert (found["_prediction_Yes"], found["_truth"]) == (0.8, "Yes"), "h1's first after; h2's was before"
