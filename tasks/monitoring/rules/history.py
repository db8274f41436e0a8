"""The monitoring history of a model: its monitoring runs as rows of the lake, one row per measure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from tasks.monitoring.rules.columns import MonitoredColumn

MeasureKind = Literal["drift", "quality", "none"]

MONITORING_HISTORY_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("run_at", pa.timestamp("us", "UTC")),
        ("version", pa.string()),
        ("outcome", pa.string()),
        ("sentence", pa.string()),
        ("newest_window_rows", pa.int64()),
        ("kind", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
        ("reference", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("is_finding", pa.bool_()),
    ]
)
"""`run_id` is the flow run. `measure` is a column, with its drift index as `value`, or a metric with its interval.
`reference` is the metric at promotion, and `is_finding` whether it is a finding. A run without measures has one row."""


@dataclass(frozen=True)
class MonitoringMeasure:
    """One measure of a monitoring run. Values that it does not have are None."""

    kind: MeasureKind
    name: str
    value: float | None
    reference: float | None
    lower: float | None
    upper: float | None
    is_finding: bool


@dataclass(frozen=True)
class MonitoringRun:
    """One monitoring run of a model. `newest_rows` is the number of rows of its newest window."""

    id: str
    started_at: datetime
    version: str
    outcome: str
    sentence: str
    newest_rows: int
    measures: tuple[MonitoringMeasure, ...]

    def of(self, kind: MeasureKind) -> tuple[MonitoringMeasure, ...]:
        """Return the measures of one kind."""
        return tuple(measure for measure in self.measures if measure.kind == kind)


def monitoring_dataset(model: str) -> str:
    """Return the name of the data set with a model's monitoring history."""
    return f"{model}-monitoring"


def monitoring_run_table(report: Mapping[str, Any], run_id: str, at: datetime) -> pa.Table:
    """Return the report of a monitoring run, which was written as JSON, as rows.

    Raises:
        KeyError, TypeError: it is not such a report.
    """
    rows = report["rows_per_window"]
    run_columns = {
        "run_id": run_id,
        "run_at": at,
        "version": report["version"],
        "outcome": report["outcome"],
        "sentence": report["sentence"],
        "newest_window_rows": int(rows[0]) if rows else 0,
    }
    columns = [
        {"kind": "drift", "measure": _display_name(each["column"]), "value": each["psi"], "is_finding": each["drifted"]}
        for each in report["column_drifts"]
    ]
    metrics = [
        {
            "kind": "quality",
            "measure": each["metric"],
            "value": each["current_value"],
            "reference": each["reference_value"],
            "lower": each["lower"],
            "upper": each["upper"],
            "is_finding": each["worse"],
        }
        for each in report["quality_metrics"]
    ]
    measured = [*columns, *metrics] or [{"kind": "none", "measure": "", "is_finding": False}]
    return pa.Table.from_pylist([run_columns | each for each in measured], schema=MONITORING_HISTORY_SCHEMA)


def monitoring_runs(rows: Iterable[Mapping[str, Any]]) -> tuple[MonitoringRun, ...]:
    """Return the monitoring runs of the rows, oldest first."""
    rows_by_run: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        rows_by_run.setdefault(row["run_id"], []).append(row)
    runs = [_monitoring_run(run_rows) for run_rows in rows_by_run.values()]
    return tuple(sorted(runs, key=lambda each: (each.started_at, each.id)))


def _display_name(column: Mapping[str, Any]) -> str:
    return MonitoredColumn(column["name"], column["kind"], is_prediction=column["is_prediction"]).display_name


def _monitoring_run(rows: Sequence[Mapping[str, Any]]) -> MonitoringRun:
    first = rows[0]
    return MonitoringRun(
        id=first["run_id"],
        started_at=first["run_at"],
        version=first["version"],
        outcome=first["outcome"],
        sentence=first["sentence"],
        newest_rows=first["newest_window_rows"],
        measures=tuple(_measure(row) for row in rows if row["kind"] != "none"),
    )


def _measure(row: Mapping[str, Any]) -> MonitoringMeasure:
    return MonitoringMeasure(
        row["kind"], row["measure"], row["value"], row["reference"], row["lower"], row["upper"], bool(row["is_finding"])
    )
