"""Take rows out of quarantine, so that a person can mend them and ingest them again (`redrive`)."""

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from blocks.lake.base import Lake
from tasks.ingestion.landing import quarantine_dataset
from tasks.shared.rules.model.data import DataSpec, IngestSchema
from tasks.shared.rules.refusal import Refusal


def export_quarantine(lake: Lake, data: DataSpec | IngestSchema, snapshot: str, to: Path) -> int:
    """Write the rows of one quarantine snapshot as a `.csv` or `.parquet` file; return how many.

    Raises:
        NotFound: there is no such snapshot.
        Refusal: `to` is of another format, or is there already.
    """
    if to.suffix not in (".csv", ".parquet"):
        raise Refusal("the quarantine is written as .csv or .parquet", where=str(to), remedy="Name such a file.")
    if to.exists():
        raise Refusal("the file is there already", where=str(to), remedy="Name another: it may be mended by half.")
    seen = lake.as_of(quarantine_dataset(data), snapshot)
    rows, beside = lake.scan(seen), to.with_name(f".{to.name}.part")
    try:
        count = _write_rows(rows, beside, to.suffix, skip=seen.rows - seen.snapshots[-1].rows)
        beside.rename(to)
    finally:
        beside.unlink(missing_ok=True)
    return count


def _write_rows(rows: pa.RecordBatchReader, to: Path, ending: str, *, skip: int) -> int:
    """Write all rows but the first `skip`, which are those of older snapshots."""
    count = 0
    writer = pcsv.CSVWriter(to, rows.schema) if ending == ".csv" else pq.ParquetWriter(to, rows.schema)
    with writer:
        for batch in rows:
            own = batch.slice(min(skip, batch.num_rows))
            skip -= batch.num_rows - own.num_rows
            writer.write_batch(own)
            count += own.num_rows
    return count
