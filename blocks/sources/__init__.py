"""Sources: typed rows from files, databases, S3 and DataFrames. No type is guessed."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from blocks.common.source_settings import SourceSettings
from blocks.sources.base import RowBatch, Source, UnreadableRow, check_kinds
from blocks.sources.dialects import PLAIN_FORMAT, SourceFormat
from blocks.sources.file_listing import ProcessedFile
from blocks.sources.files import open_file_source
from blocks.sources.frames import FrameSource
from blocks.sources.json_lines import QUARANTINE_COLUMNS, RedriveSource, is_quarantine_file
from blocks.sources.s3 import S3Source
from blocks.sources.sql_query import QuerySource, WatermarkFilter
from blocks.sources.versioned_tables import DELTA_PREFIX, ICEBERG_PREFIX, DeltaSource

__all__ = [
    "FrameSource",
    "ProcessedFile",
    "RowBatch",
    "Source",
    "SourceFormat",
    "UnreadableRow",
    "WatermarkFilter",
    "open_source",
]


def open_source(
    source: str,
    *,
    query: str = "",
    kinds: Mapping[str, str],
    allowed: SourceSettings,
    watermark: WatermarkFilter | None = None,
    processed: Sequence[ProcessedFile] | None = None,
    scratch: Path | None = None,
    redrive: bool = False,
    source_format: SourceFormat = PLAIN_FORMAT,
    ingested: Mapping[str, str] | None = None,
) -> Source:
    """Return the declared columns of a source, to be read in bounded memory; `close()` it afterwards.

    Args:
        source: a `.csv`, `.jsonl`, `.ndjson` or `.parquet` file, a folder of them, a glob (`in/*.parquet`),
            `s3://bucket/key`, `s3://bucket/prefix/`, a SQLAlchemy URL such as `sqlite:///data/customers.db`, or a
            table: `delta:s3://bucket/table`, `iceberg:/data/table/metadata/v3.metadata.json`.
        query: the SQL query of a database; empty for everything else.
        kinds: kind of each declared column (entity, features, target): number (float64), integer
            (int64), flag (int8, 0 or 1), key, category or text (string), time (microseconds in UTC); see
            `runtime.values`. Columns not declared are not read.
        allowed: the places that may be read; see `Environment.allowed_sources`.
        watermark: for a database, the watermark column, and the value above which rows are new.
        processed: for a folder, glob or prefix, the files ingested before; they are skipped, and a changed one raises
            Rejected. None reads everything, and so does the path of a single file.
        scratch: folder for objects downloaded from S3; None: the system's temporary folder.
        redrive: whether this is a corrected quarantine file, whose rows are the JSON in its column `row`. A file
            without the columns of a quarantine is read as usual.
        ingested: for a Delta or Iceberg table, the version that was ingested before, by the table's id.
        source_format: how its files are written; a quarantine file is always read as Ratchet writes it.

    Raises:
        NotFound: there is no such file, or none matches.
        Rejected: the source is in no allowed place, or cannot be used; the message gives the place and the remedy.
        Unavailable: the database or S3 does not respond.
    """
    check_kinds(kinds)
    if redrive:
        quarantine = open_source(source, query=query, kinds=QUARANTINE_COLUMNS, allowed=allowed, scratch=scratch)
        if is_quarantine_file(quarantine):
            return RedriveSource(quarantine, kinds)
        quarantine.close()
    if source.startswith(DELTA_PREFIX):
        return DeltaSource(source, query, kinds, allowed, scratch, ingested or {})
    if source.startswith(ICEBERG_PREFIX):
        from blocks.sources.iceberg_tables import IcebergSource  # pyiceberg takes a second to import

        return IcebergSource(source, query, kinds, allowed, ingested or {})
    if source.startswith("s3://"):
        return S3Source(source, query, kinds, allowed, scratch, processed, source_format)
    if "://" in source:
        return QuerySource(source, query, kinds, watermark, allowed)
    return open_file_source(source, query, kinds, allowed, processed, source_format)
