"""Ingest rows into the lake: valid rows are appended as one snapshot, invalid rows are quarantined with reasons."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from blocks.common.source_settings import SourceSettings
from blocks.common.temporary_folders import temporary_folder
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.base import AsOf, Lake, Snapshot
from blocks.sources import RowBatch, Source, SourceFormat, open_source
from blocks.sources.base import no_rows_error
from blocks.sources.secret_addresses import resolve_address
from blocks.sources.staging import StagedSource, stage_rows
from runtime.foreign_text import Markdown, markdown_code, markdown_table, one_line
from runtime.values import FORMS_VERSION
from tasks.ingestion.datasets import (
    dataset_snapshots,
    latest_read,
    processed_files,
    quarantine_dataset,
    table_versions,
    watermark_filter,
)
from tasks.ingestion.rules.acceptance import PartitionedRows, StagedRows, partition_rows
from tasks.ingestion.rules.lookalikes import LOOKALIKE_NOTE
from tasks.ingestion.rules.quarantine import ingest_summary
from tasks.ingestion.rules.repeated_rows import without_repeated_rows
from tasks.ingestion.rules.row_checks import STAGED_TABLE, RowRules, staged_relation_sql
from tasks.shared.progress import Progress
from tasks.shared.records import IngestResult
from tasks.shared.reports import create_markdown_artifact, only_reports
from tasks.shared.rules.model.data import DataSpec, IngestSchema
from tasks.shared.rules.rows.content import ContentDigest
from tasks.shared.tables import VALUES_NOTE
from tasks.validation.rules.report import MAX_CELL_LENGTH

_MEMORY_MB, _THREADS = 600, 2
_BATCH_ROWS = 65_536
_QUARANTINED_ROWS_SHOWN = 20
_NO_QUARANTINE_LIMIT = 1.0
_MAX_QUARANTINED_SHARE = 0.10
_KNOWN = "the lake holds these rows already, up to snapshot"


def open_source_rows(
    lake: Lake,
    data: IngestSchema,
    source: str,
    query: str,
    watermark: str,
    redrive: str,
    scratch: Path,
    allowed: SourceSettings,
    look_back: str = "",
) -> Source:
    """Return the rows of a source that are not ingested yet, to be closed; see `flows.ingest` for the arguments.

    Raises:
        NotFound: there is no such quarantine snapshot as `redrive` names.
    """
    if redrive:
        lake.as_of(quarantine_dataset(data), redrive)
    address = resolve_address(source)
    return open_source(
        address,
        query=query,
        kinds=data.column_kinds,
        allowed=allowed,
        watermark=watermark_filter(lake, data, address, query, watermark, look_back),
        processed=None if redrive else processed_files(lake, data),
        scratch=_ensure_folder(scratch),
        redrive=bool(redrive),
        source_format=SourceFormat(**data.source.settings()),
        ingested=None if redrive else table_versions(lake, data),
    )


def ingest_rows(
    lake: Lake, data: DataSpec | IngestSchema, source: Source, *, scratch: Path | None = None, redrive: str = ""
) -> IngestResult:
    """Append the valid rows of a source to the data set of a model's table (the main table of a `DataSpec`).

    Ingesting the same source again adds nothing. The quarantine is written before the rows, so that a crash in
    between loses nothing. `redrive` is the quarantine snapshot that the source corrects: such a source may be
    quarantined in any share.

    Raises:
        Refusal: a declared column is missing, too many rows are invalid, or no row is valid.
    """
    data = data.ingest_schema() if isinstance(data, DataSpec) else data
    key = source.content_digest()
    if key and (known := lake.find_by_key(data.dataset, key)):
        return _ingest_result(known, new=False)
    with temporary_folder(scratch, "ingest-") as folder:
        progress = Progress(f"reading {source.description}", source.size_bytes)
        digest = ContentDigest()
        staged = stage_rows(source, _ensure_folder(folder / "rows"), _piece_observer(progress, None if key else digest))
        key = key or digest.hexdigest()
        if staged.rows + staged.unreadable_row_count == 0:
            return _no_new_rows(lake, data, source)
        if known := lake.find_by_key(data.dataset, key):
            return _ingest_result(known, new=False)
        progress.start_step(f"checking and appending {source.description}")
        lake_read = latest_read(lake, data.dataset)
        share = _NO_QUARANTINE_LIMIT if redrive else _MAX_QUARANTINED_SHARE
        partitioned = partition_source(lake, lake_read, data, source, staged, folder, max_quarantined_share=share)
        if partitioned is None:
            return _no_new_rows(lake, data, source)
        counts = {"rows_in": str(partitioned.rows_in), "quarantined": str(partitioned.quarantined)}
        if hint := _placeholder_hint(partitioned, data.column_kinds):
            counts["look here"] = hint
        origin = {"redriven_from": redrive} if redrive else {}
        notes = {**partitioned.notes, **source.snapshot_notes(), **counts, **origin, VALUES_NOTE: FORMS_VERSION}
        expected_latest = lake_read.id if lake_read else ""
        return _append_snapshots(lake, data, source, partitioned, key, notes, expected_latest, progress)


def _placeholder_hint(partitioned: PartitionedRows, kinds: Mapping[str, str]) -> str:
    """Return the sentence about placeholders. Never fails: it only reports."""
    hint = ""
    with only_reports("the search for placeholders of missing values") as report:
        hint = partitioned.placeholder_hint(kinds)
    return f"Placeholders of missing values were not looked for: {report.problem[:200]}" if report.problem else hint


def partition_source(
    lake: Lake,
    lake_read: AsOf | None,
    data: IngestSchema,
    source: Source,
    staged: StagedSource,
    folder: Path,
    *,
    max_quarantined_share: float,
) -> PartitionedRows | None:
    """Split the rows of a source into accepted and quarantined ones. Keys of `lake_read` may not occur again.

    Rows that the lookback reads again are left out first. Return None if no other row is left.
    """
    files = [str(file) for file in staged.files]
    rows = StagedRows(
        relation=staged_relation_sql(staged.column_sql, files),
        tables={} if staged.column_sql else {STAGED_TABLE: files},
        rows=staged.rows,
        file_labels=source.position_labels,
        unreadable_files=[str(file) for file in staged.unreadable_files],
        unreadable_rows=staged.unreadable_row_count,
        ignored=source.undeclared_columns,
        changed_columns=staged.changed_columns,
    )
    classes, finite = data.classes or None, staged.finite_columns
    rules = RowRules(staged.schema, data.entity, data.target, classes, finite, data.unique, data.group)
    # The source's files are on this machine, so DuckDB checks them here, whichever engine reads the lake.
    limits = {"memory_limit_mb": _MEMORY_MB, "threads": _THREADS, "batch_rows": _BATCH_ROWS}
    engine = DuckDBEngine.model_validate({**limits, "spill": _ensure_folder(folder / "spill")})
    keys = lake.files(lake_read) if lake_read else ()
    columns = [name for name, _ in lake_read.schema] if lake_read else []
    older = lake_read and any(each.notes.get(VALUES_NOTE) != FORMS_VERSION for each in lake_read.snapshots)
    if source.may_repeat_rows and lake_read:
        aside = latest_read(lake, quarantine_dataset(data))
        rows = without_repeated_rows(
            engine,
            rows,
            rules,
            folder / "fresh",
            lake_columns=columns,
            lake_files=keys,
            quarantine_files=lake.files(aside) if aside else (),
        )
        if rows.repeated and not rows.rows + rows.unreadable_rows:
            return None
    return partition_rows(
        engine,
        rows,
        rules,
        folder / "checked",
        lake_keys=keys,
        lake_columns=columns if older else (),
        max_quarantined_share=max_quarantined_share,
        corrections=source.may_repeat_rows,
    )


def _append_snapshots(
    lake: Lake,
    data: IngestSchema,
    source: Source,
    partitioned: PartitionedRows,
    key: str,
    notes: Mapping[str, str],
    expected_latest: str,
    progress: Progress,
) -> IngestResult:
    """Append the quarantined and the accepted rows, the latter only onto the snapshot that they were compared with."""
    now, examples = datetime.now(UTC), list[Mapping[str, str | None]]()
    if partitioned.quarantined:
        quarantined = partitioned.quarantined_rows()
        # The key names the snapshot that the rows were compared with: after another ingest, other rows may be invalid.
        quarantine_snapshot = lake.append(
            quarantine_dataset(data),
            pa.RecordBatchReader.from_batches(quarantined.schema, _remembered_rows(quarantined, examples)),
            source=source.description,
            key=f"{key} onto {expected_latest}" if expected_latest else key,
            at=now,
            notes=notes,
        )
        notes = {**notes, "quarantine_snapshot": quarantine_snapshot.id}
    if not partitioned.accepted:  # corrections alone, which the lookback found: the data set stays as it is
        return IngestResult(
            dataset=data.dataset, snapshot=expected_latest, rows_in=partitioned.rows_in, accepted=0,
            quarantined=partitioned.quarantined, quarantine_snapshot=notes["quarantine_snapshot"], appended=False,
            summary=ingest_summary(0, notes),
        )  # fmt: skip
    rows, errors = partitioned.accepted_rows(), list[Exception]()
    try:
        snapshot = lake.append(
            data.dataset,
            pa.RecordBatchReader.from_batches(
                rows.schema, _counted_rows(rows, source, source.size_bytes / partitioned.rows_in, progress, errors)
            ),
            source=source.description,
            key=key,
            at=now,
            notes=notes,
            expected_parent=expected_latest,
        )
    except Exception as error:
        raise (errors[0] if errors else error) from error
    with only_reports("the report of the ingest"):
        _create_ingest_artifact(snapshot, partitioned, examples)
    return _ingest_result(snapshot, new=True)


def _counted_rows(
    rows: pa.RecordBatchReader, source: Source, bytes_a_row: float, progress: Progress, errors: list[Exception]
) -> Iterator[pa.RecordBatch]:
    """Yield the rows that are appended, count them, and fail at their end when the source has changed meanwhile.

    `errors` receives the original exception: a reader in C++ sees only its text.
    """
    try:
        for batch in rows:
            progress.add(batch.num_rows, int(batch.num_rows * bytes_a_row))
            yield batch
        source.check_unchanged()
    except Exception as error:
        errors.append(error)
        raise


def _no_new_rows(lake: Lake, data: IngestSchema, source: Source) -> IngestResult:
    """Return the result of a source without new rows. A source that never had a row is an error."""
    snapshots = dataset_snapshots(lake, data.dataset)
    if not source.has_no_new_rows() or not snapshots:
        raise no_rows_error(source.description)
    return IngestResult(
        dataset=data.dataset, snapshot=snapshots[-1].id, rows_in=0, accepted=0, quarantined=0, appended=False,
        summary=f"Nothing was added: there are no new rows since snapshot {snapshots[-1].id}.",
    )  # fmt: skip


def _ensure_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _ingest_result(snapshot: Snapshot, *, new: bool) -> IngestResult:
    return IngestResult(
        dataset=snapshot.dataset,
        snapshot=snapshot.id,
        rows_in=int(snapshot.notes["rows_in"]),
        accepted=snapshot.rows,
        quarantined=int(snapshot.notes["quarantined"]),
        quarantine_snapshot=snapshot.notes.get("quarantine_snapshot", ""),
        appended=new,
        summary=ingest_summary(snapshot.rows, snapshot.notes) if new else f"Nothing was added: {_KNOWN} {snapshot.id}.",
    )


def _remembered_rows(rows: pa.RecordBatchReader, examples: list[Mapping[str, str | None]]) -> Iterator[pa.RecordBatch]:
    """Yield the rows, and add the first ones to `examples`: a query for them could need more memory than there is."""
    for batch in rows:
        examples += batch.slice(0, _QUARANTINED_ROWS_SHOWN - len(examples)).to_pylist()
        yield batch


def _create_ingest_artifact(
    snapshot: Snapshot, partitioned: PartitionedRows, examples: list[Mapping[str, str | None]]
) -> None:
    with only_reports("the examples of quarantined rows") as shown:
        if partitioned.quarantined and not examples:  # the quarantine was appended before a crash
            examples = list(partitioned.quarantined_examples(_QUARANTINED_ROWS_SHOWN))[:_QUARANTINED_ROWS_SHOWN]
    alike = partitioned.notes.get(LOOKALIKE_NOTE, "")
    rows = [[one_line(row[name], MAX_CELL_LENGTH) for name in ("position", "key", "reason")] for row in examples]
    lines = [
        Markdown("**{}**: {} rows in = {} accepted + {} quarantined, as snapshot {}.").format(
            snapshot.dataset, partitioned.rows_in, snapshot.rows, partitioned.quarantined, markdown_code(snapshot.id)
        ),
        *(["", one_line(snapshot.notes["look here"], MAX_CELL_LENGTH)] if "look here" in snapshot.notes else []),
        *([f"These stay apart, but {LOOKALIKE_NOTE}: {one_line(alike, MAX_CELL_LENGTH)}."] if alike else []),
        *(["", markdown_table(("where", "key", "why"), rows)] if rows else []),
        *(["", f"Examples could not be read: {shown.problem}"] if shown.problem else []),
    ]
    create_markdown_artifact(key="ingest", markdown=Markdown("\n").join(lines), description=snapshot.source)


def _piece_observer(progress: Progress, digest: ContentDigest | None) -> Callable[[RowBatch], None]:
    """Return the callback for each piece of a source: it counts its rows, and adds them to the digest if given."""

    def observe(piece: RowBatch) -> None:
        progress.add(piece.table.num_rows + len(piece.unreadable_rows), piece.bytes_read)
        if digest:
            digest.update(piece.table)
            for row in piece.unreadable_rows:
                digest.update_unread(row.position, row.reason, row.raw_text)

    return observe
