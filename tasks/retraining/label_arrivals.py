"""What has landed since a version was promoted: rows with a label, and how new the newest label is."""

from bisect import bisect_left
from datetime import datetime

from blocks.environment import Environment
from blocks.lake.base import AsOf
from tasks.retraining.rules.facts import LabelledRows
from tasks.shared.rules import sql
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def labelled_rows_since(env: Environment, spec: ModelSpec, version: str, now: datetime) -> LabelledRows:
    """Return how many labelled rows of the main table landed after a version's snapshot, and the newest label's time.

    Raises:
        Refusal: no version serves, or the registry does not know what it was trained on.
        NotFound: the data set, or that snapshot, is not there.
    """
    if not version:
        raise Refusal("no version serves", where=spec.name, remedy="Retrain and approve a first version.")
    found = env.tracking().version(spec.name, version)
    if found is None or "ratchet.snapshot" not in found.tags:
        raise Refusal("the registry does not know what the version that serves was trained on", value=version)
    champion_read = env.lake().as_of(spec.data.dataset, found.tags["ratchet.snapshot"])
    return LabelledRows(
        labelled_rows(env, spec) - labelled_rows(env, spec, champion_read), _newest_label_time(env, spec, now)
    )


def labelled_rows(env: Environment, spec: ModelSpec, read: AsOf | None = None) -> int:
    """Return how many rows of a read of the main table (by default of now) have a label."""
    lake = env.lake()
    files = lake.files(read or lake.as_of(spec.data.dataset))
    query = sql.select_sql(f"count({sql.quoted_name(spec.data.target)}) AS labelled", "rows")
    return int(env.engine().query(query, {"rows": files})["labelled"][0].as_py())


def _newest_label_time(env: Environment, spec: ModelSpec, now: datetime) -> datetime | None:
    """Return the time of the newest label: the row's own where there is one (none of the future), else its landing."""
    lake, data = env.lake(), spec.data
    read = lake.as_of(data.dataset)
    if data.time:
        time = f"CAST({sql.quoted_name(data.time)} AS TIMESTAMPTZ)"
        past = f"{time} <= CAST({sql.text_literal(now.isoformat())} AS TIMESTAMPTZ)"
        known = f"WHERE {sql.quoted_name(data.target)} IS NOT NULL AND {past}"
        answer = env.engine().query(sql.select_sql(f"max({time}) AS newest", "rows", known), {"rows": lake.files(read)})
        newest: datetime | None = answer["newest"][0].as_py()
        return newest
    if not (total := labelled_rows(env, spec, read)):
        return None
    # The snapshot with which their number was reached; it only grows, so few of them have to be counted.
    place = bisect_left(
        read.snapshots, total, key=lambda each: labelled_rows(env, spec, lake.as_of(data.dataset, each.id))
    )
    return read.snapshots[place].created_at
