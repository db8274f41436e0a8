"""The data sets that ingestion writes: what they hold, what was read already, and the export of quarantined rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from blocks.common.errors import NotFound
from blocks.lake.base import AsOf, Lake, Snapshot
from blocks.sources import ProcessedFile, WatermarkFilter
from blocks.sources.file_listing import processed_from_notes
from blocks.sources.sql_query import Watermark, watermark_id
from blocks.sources.versioned_tables import ingested_versions
from runtime.foreign_text import spreadsheet_text
from tasks.shared.models import TeamModel
from tasks.shared.rules.model.data import DataSpec, IngestSchema
from tasks.shared.rules.model.namespaces import base_name, namespace_part
from tasks.shared.rules.refusal import Refusal


def ingest_schema(model: TeamModel, table: str) -> IngestSchema:
    """Return the ingest schema of a model's table.

    Raises:
        Refusal: the model is in a namespace, which only reads the shared data; or it has no such table.
    """
    name, data = model.spec.name, model.spec.data
    if namespace_part(name):
        problem, remedy = "a namespace only reads the data, which is shared", f"Ingest with model={base_name(name)}."
        raise Refusal(problem, where=f"the data set {data.dataset}", value=name, remedy=remedy)
    return data.ingest_schema(table)


def quarantine_dataset(data: DataSpec | IngestSchema) -> str:
    """Return the name of the data set that holds the quarantined rows of `data`."""
    return f"{data.dataset}-quarantine"


def latest_read(lake: Lake, dataset: str) -> AsOf | None:
    """Return a read of the whole data set as it is now; None when it has no snapshot."""
    try:
        return lake.as_of(dataset)
    except NotFound:
        return None


def dataset_snapshots(lake: Lake, dataset: str) -> tuple[Snapshot, ...]:
    """Return the snapshots of a data set, oldest first; an empty tuple when it has none."""
    now = latest_read(lake, dataset)
    return now.snapshots if now else ()


def watermark_filter(
    lake: Lake, data: DataSpec | IngestSchema, source: str, query: str, column: str, look_back: str = ""
) -> WatermarkFilter | None:
    """Return the filter for the new rows of a query: those above its last ingested watermark. None without a column.

    Raises:
        Refusal: there is a lookback without a column.
    """
    if not column and look_back:
        remedy = "Name the column in watermark, or leave look_back empty."
        raise Refusal("only a watermark has a lookback", where="look_back", value=look_back, remedy=remedy)
    if not column:
        return None
    watermark_name = watermark_id(source, query, column)
    ingested = (
        Watermark.from_notes(snapshot.notes, watermark_name)
        for snapshot in reversed(dataset_snapshots(lake, data.dataset))
    )
    return WatermarkFilter(column, next((mark for mark in ingested if mark), None), look_back)


def processed_files(lake: Lake, data: DataSpec | IngestSchema) -> tuple[ProcessedFile, ...]:
    """Return the files whose rows the data set already holds."""
    return tuple(
        file for snapshot in dataset_snapshots(lake, data.dataset) for file in processed_from_notes(snapshot.notes)
    )


def table_versions(lake: Lake, data: DataSpec | IngestSchema) -> dict[str, str]:
    """Return the newest ingested version of each Delta or Iceberg table, by the table's id."""
    return ingested_versions([snapshot.notes for snapshot in dataset_snapshots(lake, data.dataset)])


def export_quarantine(lake: Lake, data: DataSpec | IngestSchema, snapshot: str, to: Path) -> int:
    """Write the rows of one quarantine snapshot as a `.csv` or `.parquet` file; return how many.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: `to` has another format, or exists already.
    """
    if to.suffix not in (".csv", ".parquet"):
        remedy = "Give a file name that ends in .csv or .parquet."
        raise Refusal("the quarantine is written as .csv or .parquet", where=str(to), remedy=remedy)
    if to.exists():
        remedy = "Give another name: somebody may be correcting this file."
        raise Refusal("the file exists already", where=str(to), remedy=remedy)
    read = lake.as_of(quarantine_dataset(data), snapshot)
    rows, beside = lake.scan(read), to.with_name(f".{to.name}.part")
    try:
        count = _write_rows(rows, beside, to.suffix, skip=read.rows - read.snapshots[-1].rows)
        beside.rename(to)
    finally:
        beside.unlink(missing_ok=True)
    return count


def _write_rows(rows: pa.RecordBatchReader, to: Path, ending: str, *, skip: int) -> int:
    """Write the rows after the first `skip`, which belong to older snapshots. Return how many."""
    count = 0
    writer = pcsv.CSVWriter(to, rows.schema) if ending == ".csv" else pq.ParquetWriter(to, rows.schema)
    with writer:
        for batch in rows:
            own = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - own.num_rows
            writer.write_batch(_for_spreadsheets(own) if ending == ".csv" else own)
            count += own.num_rows
    return count


def _for_spreadsheets(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return rows of text in which no cell is a formula; the JSON in the column `row` never looks like one."""
    texts = [[None if cell is None else spreadsheet_text(cell) for cell in each.to_pylist()] for each in rows.columns]
    return pa.RecordBatch.from_arrays([pa.array(each, pa.string()) for each in texts], schema=rows.schema)
