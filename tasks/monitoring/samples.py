"""Samples of bounded size for Evidently's report, and the scores that it is to carry."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.environment import Environment
from tasks.monitoring.current import CurrentData
from tasks.monitoring.reference import ReferenceData
from tasks.monitoring.rules.columns import MonitoredColumn
from tasks.monitoring.rules.drift import ColumnDrift
from tasks.monitoring.rules.findings import MonitoringRules
from tasks.shared.rules import sql

REPORT_SAMPLE_ROWS = 5_000
_BUCKETS = 10_000


def write_report_samples(
    env: Environment,
    reference: ReferenceData,
    current: CurrentData,
    compared: Sequence[ColumnDrift],
    rules: MonitoringRules,
    folder: Path,
) -> None:
    """Write `reference.parquet`, `current.parquet` and `scores.json`: at most `SAMPLE_ROWS` rows each.

    Rows are taken by a hash of their key, so that a repeat takes the same; the reference is the holdout, for
    which the version's predictions are known.
    """
    columns = [each.column for each in compared]
    before = pq.read_table(reference.holdout).slice(0, REPORT_SAMPLE_ROWS)
    pq.write_table(cast_columns(before, columns), folder / "reference.parquet")
    share = max(1, min(_BUCKETS, math.ceil(1.1 * _BUCKETS * REPORT_SAMPLE_ROWS / max(1, sum(current.rows_per_window)))))
    text = " || '-' || ".join(
        f"coalesce(CAST({sql.quoted_name(name)} AS VARCHAR), '')" for name in current.sampling_key
    )
    chosen = f"WHERE bucket_of({text}, 1) < {share}" if share < _BUCKETS else ""
    query = sql.select_sql(
        sql.quoted_names(each.name for each in columns), current.source_sql, chosen, f"LIMIT {REPORT_SAMPLE_ROWS}"
    )
    now = env.engine().query(query, {"rows": current.files})
    pq.write_table(cast_columns(now, columns), folder / "current.parquet")
    scores = {
        each.column.name: {
            "score": each.psi if math.isfinite(each.psi) else None,
            "threshold": rules.psi_threshold,
            "drifted": each.drifted,
        }
        for each in compared
    }
    (folder / "scores.json").write_text(json.dumps(scores))


def cast_columns(rows: pa.Table, columns: Sequence[MonitoredColumn]) -> pa.Table:
    """Return the columns as doubles and text, so that both samples are of one type."""
    kinds = {"number": pa.float64(), "category": pa.string()}
    return pa.table({each.name: rows[each.name].cast(kinds[each.kind]) for each in columns})
