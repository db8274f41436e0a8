"""Rows that were set aside: which there are, and out of quarantine into a file, to be mended and ingested again."""

from pathlib import Path

from blocks.lake.base import Lake
from ratchet.running import running
from tasks.ingestion.landing import dataset_snapshots, quarantine_dataset
from tasks.ingestion.quarantine import export_quarantine
from tasks.shared.models import load_model
from tasks.shared.rules.model.data import DataSpec, IngestSchema
from tasks.shared.rules.refusal import Refusal


def taken_out(model: str, table: str, snapshot: str, file: Path | None, environment: str) -> str:
    """Do as `told` does for a model's table ("" is the main one) in the running stack."""
    data = load_model(model).spec.data.ingest_schema(table)
    return run_quarantine_command(running(environment).lake(), data, snapshot, file)


def run_quarantine_command(lake: Lake, data: DataSpec | IngestSchema, snapshot: str, target: Path | None) -> str:
    """Write one snapshot's rows into a file, or list the snapshots, and return what to tell.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: a snapshot without a file, or a file that is there already or of another format.
    """
    if not snapshot:
        lines = [
            f"{one.id}  {one.rows:,} rows of {one.source}: {one.notes.get('reasons', '')}"
            for one in reversed(dataset_snapshots(lake, quarantine_dataset(data)))
        ]
        return "\n".join(lines) or f"{quarantine_dataset(data)}: nothing was set aside"
    if target is None:
        raise Refusal("there is no file to write to", value=snapshot, remedy="Name one: mended.csv or mended.parquet.")
    count = export_quarantine(lake, data, snapshot, target)
    return f"wrote {count:,} rows to {target}: mend the column `row`, then ingest it with redrive={snapshot}"
