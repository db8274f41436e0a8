"""The monitoring history: monitoring runs as rows of the lake, written once and read back unchanged."""

import json
from datetime import UTC, datetime

import pytest

from tasks.monitoring.rules.history import (
    MONITORING_HISTORY_SCHEMA,
    MonitoringMeasure,
    monitoring_run_table,
    monitoring_runs,
)

AT = datetime(2026, 11, 25, 3, 30, tzinfo=UTC)
COLUMN = {"name": "_prediction_Yes", "kind": "number", "is_prediction": True}
DRIFTED = {"column": COLUMN, "psi": 0.3, "drifted": True}
AUC = {
    "metric": "auc",
    "reference_value": 0.85,
    "current_value": 0.8,
    "lower": 0.78,
    "upper": None,
    "rows": 500,
    "worse": True,
}
WHOLE = {
    "version": "2", "outcome": "degraded", "sentence": "auc is 0.8.", "rows_per_window": [500, 400],
    "column_drifts": [DRIFTED], "quality_metrics": [AUC],
}  # fmt: skip


def test_a_look_is_read_back_as_it_was() -> None:
    table = monitoring_run_table(WHOLE, "run-1", AT)
    assert table.schema == MONITORING_HISTORY_SCHEMA
    (look,) = monitoring_runs(table.to_pylist())
    assert (look.id, look.started_at, look.version, look.outcome, look.sentence, look.newest_rows) == (
        "run-1", AT, "2", "degraded", "auc is 0.8.", 500
    )  # fmt: skip
    assert look.of("drift") == (MonitoringMeasure("drift", "prediction Yes", 0.3, None, None, None, True),)
    assert look.of("quality") == (MonitoringMeasure("quality", "auc", 0.8, 0.85, 0.78, None, True),)


def test_a_look_that_could_measure_nothing_is_kept_as_well() -> None:
    empty = {"rows_per_window": [], "column_drifts": [], "quality_metrics": [], "outcome": "not_checked"}
    nothing = json.loads(json.dumps({**WHOLE, **empty}))
    table = monitoring_run_table(nothing, "run-2", AT)
    (look,) = monitoring_runs(table.to_pylist())
    assert (table.num_rows, look.measures, look.newest_rows, look.outcome) == (1, (), 0, "not_checked")


def test_looks_come_in_the_order_of_their_times() -> None:
    rows = [
        *monitoring_run_table(WHOLE, "later", AT.replace(hour=9)).to_pylist(),
        *monitoring_run_table(WHOLE, "earlier", AT).to_pylist(),
    ]
    assert [look.id for look in monitoring_runs(rows)] == ["earlier", "later"]
    assert monitoring_runs([]) == ()


def test_what_is_no_judgement_is_not_taken_for_one() -> None:
    with pytest.raises(KeyError):
        monitoring_run_table({"version": "2"}, "run-1", AT)
