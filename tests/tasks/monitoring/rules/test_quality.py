"""Quality monitoring: degraded only beyond chance and by enough to matter."""

import numpy as np
import pytest

from tasks.monitoring.rules.quality import check_quality, too_few_labels_reason
from tasks.shared.rules.model.spec import parse_spec
from tests.fixtures.spec_cases import BINARY, GOOD

HOUSES, SOLD = parse_spec(GOOD, "model.yaml"), parse_spec(BINARY, "model.yaml")


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
