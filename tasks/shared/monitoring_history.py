"""Monitoring history in the lake: one row for each measure of a monitoring run."""

import json
import logging
from datetime import datetime

from prefect.runtime import flow_run

from blocks.common.errors import NotFound, PortError
from blocks.environment import Environment
from tasks.monitoring.rules.history import MonitoringRun, monitoring_dataset, monitoring_run_table, monitoring_runs
from tasks.shared.records import MonitoringResult
from tasks.shared.rules import sql

_log = logging.getLogger("ratchet.monitoring")


def store_monitoring_run(env: Environment, result: MonitoringResult, at: datetime) -> bool:
    """Append the result of a monitoring run to the lake, once per flow run. Return whether it is stored.

    When the lake is unreachable, this run is missing from the history; its alerts are in the ledger.
    """
    key = str(flow_run.id or result.folder.name)
    dataset = monitoring_dataset(result.model)
    try:
        if env.lake().find_by_key(dataset, key) is None:
            table = monitoring_run_table(json.loads((result.folder / "monitoring-report.json").read_text()), key, at)
            env.lake().append(dataset, table, source=f"monitor {key}", key=key, at=at)
    except (PortError, OSError, ValueError, KeyError, TypeError) as problem:
        _log.warning("monitoring run %s of %s is not stored in %s: %s", key, result.model, dataset, problem)
        return False
    return True


def monitoring_runs_since(env: Environment, model: str, since: datetime) -> tuple[MonitoringRun, ...]:
    """Return the monitoring runs of a model since a time, oldest first; empty when there are none."""
    lake = env.lake()
    try:
        read = lake.as_of(monitoring_dataset(model))
    except NotFound:
        return ()
    recent = f"WHERE run_at >= {sql.timestamp_literal(since)}"
    answer = env.engine().query(sql.select_sql("*", "rows", recent), {"rows": lake.files(read)})
    return monitoring_runs(answer.to_pylist())
