"""Land rows in the lake: what is right is appended as one snapshot, what is not is set aside with its reason."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from prefect.artifacts import create_markdown_artifact

from blocks.common.errors import NotFound
from blocks.common.temporary_folders import temporary_folder
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import open_environment
from blocks.lake.base import AsOf, Lake, Snapshot
from blocks.sources import FrameSource, ProcessedFile, Source, WatermarkFilter
from blocks.sources.base import no_rows_error
from blocks.sources.processed_files import processed_from_notes
from blocks.sources.sql_query import watermark_id
from blocks.sources.staging import StagedSource, stage_rows
from blocks.sources.watermarks import Watermark
from tasks.ingestion.rules.acceptance import PartitionedRows, RowRules, StagedRows, partition_rows
from tasks.ingestion.rules.row_checks import STAGED_TABLE, staged_relation_sql
from tasks.ingestion.stream import CountedSourceRows, piece_observer
from tasks.shared.models import load_model
from tasks.shared.progress import Progress
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import MAIN_TABLE, IngestSchema
from tasks.shared.rules.model.namespaces import base_name, namespace_part
from tasks.shared.rules.model.spec import DataSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.content import ContentDigest

_MEMORY_MB = 600
_THREADS = 2
_BATCH_ROWS = 65_536
_QUARANTINED_ROWS_SHOWN = 20
_NO_QUARANTINE_LIMIT = 1.0
_MAX_QUARANTINED_SHARE = 0.10


def ingest_frame(model: str, frame: pd.DataFrame, environment: str = "local", table: str = MAIN_TABLE) -> IngestResult:
    """Land a DataFrame from Python, by the same rules as every other source."""
    data, env = ingest_schema(model, table), open_environment(environment)
    return ingest_rows(env.lake(), data, FrameSource(frame, data.column_kinds), scratch=env.scratch / "ingest")


def ingest_schema(model: str, table: str) -> IngestSchema:
    """Return what is to be known of a model's table, for rows to land in it.

    Raises:
        Refusal: the model is in a namespace, which shares the data of all others; or it has no such table.
    """
    spec = load_model(model).spec
    if namespace_part(model):
        problem, remedy = "a namespace only reads the data, which is shared", f"Ingest with model={base_name(model)}."
        raise Refusal(problem, where=f"the data set {spec.data.dataset}", value=model, remedy=remedy)
    return spec.data.ingest_schema(table)


def ingest_rows(
    lake: Lake, data: DataSpec | IngestSchema, source: Source, *, scratch: Path | None = None, redrive: str = ""
) -> IngestResult:
    """Append what is right to the data set of a model's table (of a `DataSpec`, its main one).

    The same source a second time adds nothing.
    The quarantine is written first: once the rows are in, nothing about them is lost. Of rows that were in
    quarantine before (`redrive` is its snapshot) any share may be set aside again.

    Raises:
        Refusal: a declared column is missing, too many rows are wrong, or none is right.
    """
    data = data.ingest_schema() if isinstance(data, DataSpec) else data
    key = source.content_digest()
    if key and (known := lake.find_by_key(data.dataset, key)):
        return _ingest_result(known, new=False)
    with temporary_folder(scratch, "ingest-") as folder:
        progress = Progress(f"reading {source.description}", source.size_bytes)
        digest = ContentDigest()
        staged = stage_rows(source, _ensure_folder(folder / "rows"), piece_observer(progress, None if key else digest))
        key = key or digest.hexdigest()
        if staged.rows + staged.unreadable_row_count == 0:
            return _no_new_rows(lake, data, source)
        if known := lake.find_by_key(data.dataset, key):
            return _ingest_result(known, new=False)
        progress.start_step(f"judging and landing {source.description}")
        seen = latest_read(lake, data.dataset)
        judged = partition_source(
            lake,
            seen,
            data,
            source,
            staged,
            folder,
            max_quarantined_share=_NO_QUARANTINE_LIMIT if redrive else _MAX_QUARANTINED_SHARE,
        )
        return _append_snapshots(
            lake, data, _PartitionedSource(source, judged, key, redrive, seen.id if seen else ""), progress
        )


@dataclass(frozen=True)
class _PartitionedSource:
    """What is about to land: a source's judged rows, under a key, perhaps out of a quarantine snapshot.

    `expected_latest` is the id of the snapshot up to which the lake's keys were known when they were judged, "" for none.
    """

    source: Source
    partitioned: PartitionedRows
    key: str
    redrive: str
    expected_latest: str

    @property
    def notes(self) -> dict[str, str]:
        """Return what both snapshots remember."""
        counts = {"rows_in": str(self.partitioned.rows_in), "quarantined": str(self.partitioned.quarantined)}
        origin = {"redriven_from": self.redrive} if self.redrive else {}
        return {**self.partitioned.notes, **self.source.snapshot_notes(), **counts, **origin}


def partition_source(
    lake: Lake,
    lake_read: AsOf | None,
    data: IngestSchema,
    source: Source,
    staged: StagedSource,
    folder: Path,
    *,
    max_quarantined_share: float,
) -> PartitionedRows:
    """Split the rows of a source into accepted and quarantined, knowing the keys of a read of the lake."""
    files = [str(file) for file in staged.files]
    rows = StagedRows(
        relation=staged_relation_sql(staged.column_sql, files),
        tables={} if staged.column_sql else {STAGED_TABLE: files},
        rows=staged.rows,
        file_labels=source.position_labels,
        unreadable_files=[str(file) for file in staged.unreadable_files],
        unreadable_rows=staged.unreadable_row_count,
        ignored=source.undeclared_columns,
    )
    rules = RowRules(staged.schema, data.entity, data.target, data.classes or None, staged.finite_columns, data.unique)
    # The source's files are on this machine, so it is judged here, whatever engine reads the lake.
    limits = {"memory_limit_mb": _MEMORY_MB, "threads": _THREADS, "batch_rows": _BATCH_ROWS}
    engine = DuckDBEngine.model_validate({**limits, "spill": _ensure_folder(folder / "spill")})
    keys = lake.files(lake_read) if lake_read else ()
    return partition_rows(
        engine, rows, rules, folder / "judged", lake_keys=keys, max_quarantined_share=max_quarantined_share
    )


def quarantine_dataset(data: DataSpec | IngestSchema) -> str:
    """Return the name of the data set in which the model's wrong rows are set aside."""
    return f"{data.dataset}-quarantine"


def latest_read(lake: Lake, dataset: str) -> AsOf | None:
    """Return the read of everything that has landed; None when nothing has."""
    try:
        return lake.as_of(dataset)
    except NotFound:
        return None


def dataset_snapshots(lake: Lake, dataset: str) -> tuple[Snapshot, ...]:
    """Return the data set's snapshots, oldest first; none when nothing has landed."""
    now = latest_read(lake, dataset)
    return now.snapshots if now else ()


def watermark_filter(
    lake: Lake, data: DataSpec | IngestSchema, source: str, query: str, column: str
) -> WatermarkFilter | None:
    """Return from where on rows of a query are new: after the highest watermark that has landed of it."""
    if not column:
        return None
    watermark_name = watermark_id(source, query, column)
    landed = (
        Watermark.from_notes(snapshot.notes, watermark_name)
        for snapshot in reversed(dataset_snapshots(lake, data.dataset))
    )
    return WatermarkFilter(column, next((mark for mark in landed if mark), None))


def processed_files(lake: Lake, data: DataSpec | IngestSchema) -> tuple[ProcessedFile, ...]:
    """Return the files whose rows are in the data set."""
    return tuple(
        file for snapshot in dataset_snapshots(lake, data.dataset) for file in processed_from_notes(snapshot.notes)
    )


def _append_snapshots(lake: Lake, data: IngestSchema, arrival: _PartitionedSource, progress: Progress) -> IngestResult:
    judged, now, notes = arrival.partitioned, datetime.now(UTC), arrival.notes
    described, key = arrival.source.description, arrival.key
    if judged.quarantined:
        # By what it was judged against, too: after another ingest came between, other rows may be the wrong ones.
        aside_key = f"{key} onto {arrival.expected_latest}" if arrival.expected_latest else key
        quarantine_snapshot = lake.append(
            quarantine_dataset(data), judged.quarantined_rows(), source=described, key=aside_key, at=now, notes=notes
        )
        notes = {**notes, "quarantine_snapshot": quarantine_snapshot.id}
    counted_rows = CountedSourceRows(
        judged.accepted_rows(), arrival.source, arrival.source.size_bytes / judged.rows_in, progress
    )
    try:
        snapshot = lake.append(
            data.dataset,
            counted_rows.reader(),
            source=described,
            key=key,
            at=now,
            notes=notes,
            expected_parent=arrival.expected_latest,
        )
    except Exception as error:
        raise counted_rows.error or error from error
    _create_ingest_artifact(snapshot, judged)
    return _ingest_result(snapshot, new=True)


def _no_new_rows(lake: Lake, data: IngestSchema, source: Source) -> IngestResult:
    """Say that there is no row that has not landed; a source that has none at all is an error."""
    landed = dataset_snapshots(lake, data.dataset)
    if not source.has_no_new_rows() or not landed:
        raise no_rows_error(source.description)
    return IngestResult(
        dataset=data.dataset, snapshot=landed[-1].id, rows_in=0, accepted=0, quarantined=0, appended=False
    )


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
    )


def _create_ingest_artifact(snapshot: Snapshot, evaluation_result: PartitionedRows) -> None:
    aside = list(evaluation_result.quarantined_examples(_QUARANTINED_ROWS_SHOWN))[:_QUARANTINED_ROWS_SHOWN]
    lines = [
        f"**{snapshot.dataset}**: {evaluation_result.rows_in} rows in = {snapshot.rows} accepted "
        f"+ {evaluation_result.quarantined} quarantined, as snapshot `{snapshot.id}`.",
        *(["", "| where | key | why |", "|---|---|---|"] if aside else []),
        *(f"| {row['position']} | {row['key']} | {row['reason']} |" for row in aside),
    ]
    create_markdown_artifact(key="ingest", markdown="\n".join(lines), description=snapshot.source)
