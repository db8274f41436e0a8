"""Land rows in the lake: what is right is appended as one snapshot, what is not is set aside with its reason."""

import hashlib
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from blocks.environment import open_environment
from blocks.errors import NotFound
from blocks.lake.base import Lake, Snapshot
from blocks.sources import SourceTable, from_frame, read_source
from tasks.logic.ingestion import Ingested, accept, content_key
from tasks.logic.model_spec import DataSpec
from tasks.models import load_model
from tasks.records import Landed
from tasks.retries import STAGE


@task(name="ingest", **STAGE)
def land(model: str, source: str, query: str, environment: str) -> Landed:
    """Read a source by the model's declared columns and land it."""
    data = load_model(model).spec.data
    rows = read_source(source, query=query, kinds=column_kinds(data))
    landed = land_rows(open_environment(environment).lake(), data, rows)
    log = get_run_logger()
    log.info("%d rows in = %d accepted + %d quarantined", landed.rows_in, landed.accepted, landed.quarantined)
    if not landed.new:
        log.info("these rows are in the lake already, as snapshot %s; nothing was added", landed.snapshot)
    return landed


def land_frame(model: str, frame: pd.DataFrame, environment: str = "local") -> Landed:
    """Land a DataFrame from Python, by the same rules as every other source."""
    data = load_model(model).spec.data
    return land_rows(open_environment(environment).lake(), data, from_frame(frame, kinds=column_kinds(data)))


def land_rows(lake: Lake, data: DataSpec, rows: SourceTable) -> Landed:
    """Append what is right to the model's data set; the same rows a second time add nothing.

    The quarantine is written first: once the rows are in, nothing about them is lost.

    Raises:
        Refusal: a declared column is missing, too many rows are wrong, or none is right.
    """
    key, now = source_key(rows), datetime.now(UTC)
    before = history(lake, data.dataset)
    known = next((snapshot for snapshot in before if snapshot.key == key), None)
    if known is not None:
        return _landed(known, rows_in=int(known.notes["rows_in"]), new=False)
    taken = sort_out(lake, data, rows, before)
    notes = {**taken.notes, "rows_in": str(taken.rows_in), "quarantined": str(taken.quarantined.num_rows)}
    if taken.quarantined.num_rows:
        aside = lake.append(f"{data.dataset}-quarantine", taken.quarantined, source=rows.description, key=key, at=now)
        notes["quarantine_snapshot"] = aside.id
    snapshot = lake.append(data.dataset, taken.accepted, source=rows.description, key=key, at=now, notes=notes)
    _show(snapshot, taken)
    return _landed(snapshot, rows_in=taken.rows_in, new=True)


def source_key(rows: SourceTable) -> str:
    """Return the digest of what a source holds: its rows, and those that could not be read."""
    key = content_key(rows.table)
    unread = "".join(f"\n{row.position}\t{row.reason}\t{row.text}" for row in rows.broken)
    return hashlib.sha256(f"{key}{unread}".encode(errors="replace")).hexdigest() if unread else key


def sort_out(lake: Lake, data: DataSpec, rows: SourceTable, before: tuple[Snapshot, ...]) -> Ingested:
    """Split the rows of a source into accepted and quarantined, knowing the keys that are in the lake."""
    keys = lake.read(lake.as_of(data.dataset), columns=[data.entity])[data.entity] if before else None
    return accept(
        rows.table,
        rows.positions,
        entity=data.entity,
        target=data.target,
        kinds=column_kinds(data),
        classes=data.classes or None,
        existing_keys=keys,
        broken=rows.broken,
    )


def column_kinds(data: DataSpec) -> dict[str, str]:
    """Return the declared columns in order, entity first and target last, with the kind of each."""
    target = "category" if data.classes else "number"
    return {data.entity: "text", **data.features, data.target: target}


def history(lake: Lake, dataset: str) -> tuple[Snapshot, ...]:
    """Return the data set's snapshots, oldest first; none when nothing has landed."""
    try:
        return lake.as_of(dataset).snapshots
    except NotFound:
        return ()


def _landed(snapshot: Snapshot, *, rows_in: int, new: bool) -> Landed:
    return Landed(
        dataset=snapshot.dataset,
        snapshot=snapshot.id,
        rows_in=rows_in,
        accepted=snapshot.rows,
        quarantined=int(snapshot.notes["quarantined"]),
        quarantine_snapshot=snapshot.notes.get("quarantine_snapshot", ""),
        new=new,
    )


def _show(snapshot: Snapshot, taken: Ingested) -> None:
    aside = pa.Table.to_pylist(taken.quarantined.slice(0, 20))
    lines = [
        f"**{snapshot.dataset}**: {taken.rows_in} rows in = {snapshot.rows} accepted "
        f"+ {taken.quarantined.num_rows} quarantined, as snapshot `{snapshot.id}`.",
        *(["", "| where | key | why |", "|---|---|---|"] if aside else []),
        *(f"| {row['position']} | {row['key']} | {row['reason']} |" for row in aside),
    ]
    create_markdown_artifact(key="ingest", markdown="\n".join(lines), description=snapshot.source)
