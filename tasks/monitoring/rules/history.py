"""Looks at a model as rows of the lake, one row a measure: so that drift and quality can be seen over time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from tasks.monitoring.rules.columns import MonitoredColumn

MeasureKind = Literal["drift", "quality", "none"]

MONITORING_HISTORY_SCHEMA = pa.schema(
    [
        ("look", pa.string()),
        ("looked_at", pa.timestamp("us", "UTC")),
        ("version", pa.string()),
        ("outcome", pa.string()),
        ("sentence", pa.string()),
        ("newest_rows", pa.int64()),
        ("kind", pa.string()),
        ("measure", pa.string()),
        ("value", pa.float64()),
        ("reference", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("found", pa.bool_()),
    ]
)
"""`look` is the flow run; `measure` a column, whose `value` is its index of drift, or a metric with its interval;
`reference` the metric at promotion; `found` whether it was told. A look that measured nothing is one row."""


@dataclass(frozen=True)
class MonitoringMeasure:
    """One thing that a look measured; what there is none of is None."""

    kind: MeasureKind
    name: str
    value: float | None
    reference: float | None
    lower: float | None
    upper: float | None
    is_finding: bool


@dataclass(frozen=True)
class MonitoringRun:
    """What one look at a model found; `newest_rows` are those of its newest window."""

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
    """Return the name of the data set in which the looks at a model lie."""
    return f"{model}-watch"


def monitoring_run_table(judgement: Mapping[str, Any], look: str, at: datetime) -> pa.Table:
    """Return a judgement, as `monitoring_report_json` wrote it, as rows.

    Raises:
        KeyError, TypeError: it is not a judgement.
    """
    rows = judgement["rows"]
    run_columns = {
        "look": look,
        "looked_at": at,
        "version": judgement["version"],
        "outcome": judgement["outcome"],
        "sentence": judgement["sentence"],
        "newest_rows": int(rows[0]) if rows else 0,
    }
    columns = [
        {"kind": "drift", "measure": _shown(each["column"]), "value": each["effect"], "found": each["drifted"]}
        for each in judgement["compared"]
    ]
    metrics = [
        {
            "kind": "quality",
            "measure": each["metric"],
            "value": each["now"],
            "reference": each["before"],
            "lower": each["lower"],
            "upper": each["upper"],
            "found": each["worse"],
        }
        for each in judgement["measured"]
    ]
    measured = [*columns, *metrics] or [{"kind": "none", "measure": "", "found": False}]
    return pa.Table.from_pylist([run_columns | each for each in measured], schema=MONITORING_HISTORY_SCHEMA)


def monitoring_runs(rows: Iterable[Mapping[str, Any]]) -> tuple[MonitoringRun, ...]:
    """Return the looks that the rows tell of, oldest first."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["look"], []).append(row)
    looks = [_monitoring_run(its) for its in found.values()]
    return tuple(sorted(looks, key=lambda each: (each.started_at, each.id)))


def _shown(column: Mapping[str, Any]) -> str:
    return MonitoredColumn(column["name"], column["kind"], is_prediction=column["prediction"]).display_name


def _monitoring_run(rows: Sequence[Mapping[str, Any]]) -> MonitoringRun:
    first = rows[0]
    return MonitoringRun(
        id=first["look"],
        started_at=first["looked_at"],
        version=first["version"],
        outcome=first["outcome"],
        sentence=first["sentence"],
        newest_rows=first["newest_rows"],
        measures=tuple(_measure(row) for row in rows if row["kind"] != "none"),
    )


def _measure(row: Mapping[str, Any]) -> MonitoringMeasure:
    return MonitoringMeasure(
        row["kind"], row["measure"], row["value"], row["reference"], row["lower"], row["upper"], bool(row["found"])
    )
