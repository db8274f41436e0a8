"""Looks at a model kept in the lake, and read again: drift and quality over time."""

import json
import logging
from datetime import datetime

from prefect.runtime import flow_run

from blocks.common.errors import NotFound, PortError
from blocks.environment import Environment
from tasks.monitoring.rules.history import Look, dataset_of_looks, look_table, looks_of
from tasks.shared.records import Watched
from tasks.shared.rules import sql

_log = logging.getLogger("ratchet.watch")


def keep_look(world: Environment, seen: Watched, at: datetime) -> bool:
    """Append what a look found to the lake, once for a flow run; say whether it is there.

    A lake that is out of reach loses the look's point on the line, and no alert: those are in the ledger.
    """
    key = str(flow_run.id or seen.folder.name)
    dataset = dataset_of_looks(seen.model)
    try:
        if world.lake().find(dataset, key) is None:
            table = look_table(json.loads((seen.folder / "judgement.json").read_text()), key, at)
            world.lake().append(dataset, table, source=f"watch_drift {key}", key=key, at=at)
    except (PortError, OSError, ValueError, KeyError, TypeError) as problem:
        _log.warning("the look %s at %s is not kept in %s: %s", key, seen.model, dataset, problem)
        return False
    return True


def looks_since(world: Environment, model: str, since: datetime) -> tuple[Look, ...]:
    """Return the looks at a model since a time, oldest first; none where none was kept."""
    lake = world.lake()
    try:
        read = lake.as_of(dataset_of_looks(model))
    except NotFound:
        return ()
    recent = f"WHERE looked_at >= {sql.moment(since)}"
    answer = world.engine().query(sql.select("*", "rows", recent), {"rows": lake.files(read)})
    return looks_of(answer.to_pylist())
