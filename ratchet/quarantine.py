"""Rows that were set aside: which there are, and out of quarantine into a file, to be mended and ingested again."""

from pathlib import Path

from blocks.lake.base import Lake
from ratchet.running import running
from tasks.ingestion.landing import history, quarantine_of
from tasks.ingestion.quarantine import write_out
from tasks.shared.models import load_model
from tasks.shared.rules.model.data import DataSpec, Landing
from tasks.shared.rules.refusal import Refusal


def taken_out(model: str, table: str, snapshot: str, file: Path | None, environment: str) -> str:
    """Do as `told` does for a model's table ("" is the main one) in the running stack."""
    data = load_model(model).spec.data.landing(table)
    return told(running(environment).lake(), data, snapshot, file)


def told(lake: Lake, data: DataSpec | Landing, snapshot: str, file: Path | None) -> str:
    """Write one snapshot's rows into a file, or list the snapshots, and return what to tell.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: a snapshot without a file, or a file that is there already or of another format.
    """
    if not snapshot:
        lines = [
            f"{one.id}  {one.rows:,} rows of {one.source}: {one.notes.get('reasons', '')}"
            for one in reversed(history(lake, quarantine_of(data)))
        ]
        return "\n".join(lines) or f"{quarantine_of(data)}: nothing was set aside"
    if file is None:
        raise Refusal("there is no file to write to", value=snapshot, remedy="Name one: mended.csv or mended.parquet.")
    count = write_out(lake, data, snapshot, file)
    return f"wrote {count:,} rows to {file}: mend the column `row`, then ingest it with redrive={snapshot}"
