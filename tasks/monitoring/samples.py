"""Samples of bounded size for Evidently's report, and the scores that it is to carry."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.environment import Environment
from tasks.monitoring.current import Current
from tasks.monitoring.reference import Reference
from tasks.monitoring.rules.columns import WatchedColumn
from tasks.monitoring.rules.drift import Compared
from tasks.monitoring.rules.findings import WatchRules
from tasks.shared.rules import sql

SAMPLE_ROWS = 5_000
_BUCKETS = 10_000


def write_samples(
    world: Environment,
    reference: Reference,
    current: Current,
    compared: Sequence[Compared],
    rules: WatchRules,
    folder: Path,
) -> None:
    """Write `reference.parquet`, `current.parquet` and `scores.json`: at most `SAMPLE_ROWS` rows each.

    Rows are taken by a hash of their key, so that a repeat takes the same; the reference is the holdout, for
    which the version's predictions are known.
    """
    columns = [each.column for each in compared]
    before = pq.read_table(reference.holdout).slice(0, SAMPLE_ROWS)
    pq.write_table(typed(before, columns), folder / "reference.parquet")
    share = max(1, min(_BUCKETS, math.ceil(1.1 * _BUCKETS * SAMPLE_ROWS / max(1, sum(current.rows)))))
    text = " || '-' || ".join(f"coalesce(CAST({sql.name(name)} AS VARCHAR), '')" for name in current.key)
    chosen = f"WHERE bucket_of({text}, 1) < {share}" if share < _BUCKETS else ""
    query = sql.select(sql.names(each.name for each in columns), current.source, chosen, f"LIMIT {SAMPLE_ROWS}")
    now = world.engine().query(query, {"rows": current.files})
    pq.write_table(typed(now, columns), folder / "current.parquet")
    scores = {
        each.column.name: {
            "score": each.effect if math.isfinite(each.effect) else None,
            "threshold": rules.effect,
            "drifted": each.drifted,
        }
        for each in compared
    }
    (folder / "scores.json").write_text(json.dumps(scores))


def typed(rows: pa.Table, columns: Sequence[WatchedColumn]) -> pa.Table:
    """Return the columns as doubles and text, so that both samples are of one type."""
    kinds = {"number": pa.float64(), "category": pa.string()}
    return pa.table({each.name: rows[each.name].cast(kinds[each.kind]) for each in columns})
