"""Looks at a model kept in the lake, and read again: drift and quality over time."""

import json
import logging
from datetime import datetime

from prefect.runtime import flow_run

from blocks.common.errors import NotFound, PortError
from blocks.environment import Environment
from tasks.monitoring.rules.history import MonitoringRun, monitoring_dataset, monitoring_run_table, monitoring_runs
from tasks.shared.records import MonitoringResult
from tasks.shared.rules import sql

_log = logging.getLogger("ratchet.watch")


def store_monitoring_run(env: Environment, result: MonitoringResult, at: datetime) -> bool:
    """Append what a look found to the lake, once for a flow run; say whether it is there.

    A lake that is out of reach loses the look's point on the line, and no alert: those are in the ledger.
    """
    key = str(flow_run.id or result.folder.name)
    dataset = monitoring_dataset(result.model)
    try:
        if env.lake().find_by_key(dataset, key) is None:
            table = monitoring_run_table(json.loads((result.folder / "judgement.json").read_text()), key, at)
            env.lake().append(dataset, table, source=f"monitor {key}", key=key, at=at)
    except (PortError, OSError, ValueError, KeyError, TypeError) as problem:
        _log.warning("the look %s at %s is not kept in %s: %s", key, result.model, dataset, problem)
        return False
    return True


def monitoring_runs_since(env: Environment, model: str, since: datetime) -> tuple[MonitoringRun, ...]:
    """Return the looks at a model since a time, oldest first; none where none was kept."""
    lake = env.lake()
    try:
        read = lake.as_of(monitoring_dataset(model))
    except NotFound:
        return ()
    recent = f"WHERE looked_at >= {sql.timestamp_literal(since)}"
    answer = env.engine().query(sql.select_sql("*", "rows", recent), {"rows": lake.files(read)})
    return monitoring_runs(answer.to_pylist())
