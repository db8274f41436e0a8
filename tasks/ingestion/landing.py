"""Land rows in the lake: what is right is appended as one snapshot, what is not is set aside with its reason."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from prefect.artifacts import create_markdown_artifact

from blocks.common.errors import NotFound
from blocks.common.temporary import swept_folder
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import open_environment
from blocks.lake.base import AsOf, Lake, Snapshot
from blocks.sources import FrameSource, Since, Source, Taken
from blocks.sources.base import no_rows
from blocks.sources.sql import watermark_of
from blocks.sources.staging import Staged, stage
from blocks.sources.taken import taken_by
from blocks.sources.watermarks import Watermark
from tasks.ingestion.rules.acceptance import Judged, Rules, StagedRows, judge
from tasks.ingestion.rules.row_checks import STAGED, relation_of
from tasks.ingestion.stream import Watched, seen_by
from tasks.shared.models import load_model
from tasks.shared.progress import Progress
from tasks.shared.records import Landed
from tasks.shared.rules.model.data import MAIN_TABLE, Landing
from tasks.shared.rules.model.namespaces import base_of, namespace_of
from tasks.shared.rules.model.spec import DataSpec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.content import ContentDigest

_MEMORY_MB = 600
_THREADS = 2
_BATCH_ROWS = 65_536
_SHOWN = 20
_ALL = 1.0
_TENTH = 0.10


def land_frame(model: str, frame: pd.DataFrame, environment: str = "local", table: str = MAIN_TABLE) -> Landed:
    """Land a DataFrame from Python, by the same rules as every other source."""
    data, world = landing_of(model, table), open_environment(environment)
    return land_rows(world.lake(), data, FrameSource(frame, data.kinds), scratch=world.scratch / "ingest")


def landing_of(model: str, table: str) -> Landing:
    """Return what is to be known of a model's table, for rows to land in it.

    Raises:
        Refusal: the model is in a namespace, which shares the data of all others; or it has no such table.
    """
    spec = load_model(model).spec
    if namespace_of(model):
        problem, remedy = "a namespace only reads the data, which is shared", f"Ingest with model={base_of(model)}."
        raise Refusal(problem, where=f"the data set {spec.data.dataset}", value=model, remedy=remedy)
    return spec.data.landing(table)


def land_rows(
    lake: Lake, data: DataSpec | Landing, source: Source, *, scratch: Path | None = None, redrive: str = ""
) -> Landed:
    """Append what is right to the data set of a model's table (of a `DataSpec`, its main one).

    The same source a second time adds nothing.
    The quarantine is written first: once the rows are in, nothing about them is lost. Of rows that were in
    quarantine before (`redrive` is its snapshot) any share may be set aside again.

    Raises:
        Refusal: a declared column is missing, too many rows are wrong, or none is right.
    """
    data = data.landing() if isinstance(data, DataSpec) else data
    key = source.identity()
    if key and (known := lake.find(data.dataset, key)):
        return _landed(known, new=False)
    with swept_folder(scratch, "ingest-") as folder:
        progress = Progress(f"reading {source.description}", source.bytes)
        digest = ContentDigest()
        staged = stage(source, _made(folder / "rows"), seen_by(progress, None if key else digest))
        key = key or digest.hexdigest()
        if staged.rows + staged.broken_rows == 0:
            return _nothing_new(lake, data, source)
        if known := lake.find(data.dataset, key):
            return _landed(known, new=False)
        progress.next(f"judging and landing {source.description}")
        seen = newest(lake, data.dataset)
        judged = sort_out(lake, seen, data, source, staged, folder, most=_ALL if redrive else _TENTH)
        return _append(lake, data, _Arrival(source, judged, key, redrive, seen.id if seen else ""), progress)


@dataclass(frozen=True)
class _Arrival:
    """What is about to land: a source's judged rows, under a key, perhaps out of a quarantine snapshot.

    `onto` is the id of the snapshot up to which the lake's keys were known when they were judged, "" for none.
    """

    source: Source
    judged: Judged
    key: str
    redrive: str
    onto: str

    @property
    def notes(self) -> dict[str, str]:
        """Return what both snapshots remember."""
        counts = {"rows_in": str(self.judged.rows_in), "quarantined": str(self.judged.quarantined)}
        origin = {"redriven_from": self.redrive} if self.redrive else {}
        return {**self.judged.notes, **self.source.notes(), **counts, **origin}


def sort_out(
    lake: Lake, seen: AsOf | None, data: Landing, source: Source, staged: Staged, folder: Path, *, most: float
) -> Judged:
    """Split the rows of a source into accepted and quarantined, knowing the keys of a read of the lake."""
    files = [str(file) for file in staged.files]
    rows = StagedRows(
        relation=relation_of(staged.columns, files),
        tables={} if staged.columns else {STAGED: files},
        rows=staged.rows,
        places=source.places,
        broken=[str(file) for file in staged.broken],
        broken_rows=staged.broken_rows,
        ignored=source.ignored,
    )
    rules = Rules(staged.schema, data.entity, data.target, data.classes or None, staged.finite, data.unique)
    # The source's files are on this machine, so it is judged here, whatever engine reads the lake.
    limits = {"memory_limit_mb": _MEMORY_MB, "threads": _THREADS, "batch_rows": _BATCH_ROWS}
    engine = DuckDBEngine.model_validate({**limits, "spill": _made(folder / "spill")})
    keys = lake.files(seen) if seen else ()
    return judge(engine, rows, rules, folder / "judged", lake_keys=keys, most_quarantined=most)


def quarantine_of(data: DataSpec | Landing) -> str:
    """Return the name of the data set in which the model's wrong rows are set aside."""
    return f"{data.dataset}-quarantine"


def newest(lake: Lake, dataset: str) -> AsOf | None:
    """Return the read of everything that has landed; None when nothing has."""
    try:
        return lake.as_of(dataset)
    except NotFound:
        return None


def history(lake: Lake, dataset: str) -> tuple[Snapshot, ...]:
    """Return the data set's snapshots, oldest first; none when nothing has landed."""
    now = newest(lake, dataset)
    return now.snapshots if now else ()


def newer(lake: Lake, data: DataSpec | Landing, source: str, query: str, column: str) -> Since | None:
    """Return from where on rows of a query are new: after the highest watermark that has landed of it."""
    if not column:
        return None
    of = watermark_of(source, query, column)
    landed = (Watermark.from_notes(snapshot.notes, of) for snapshot in reversed(history(lake, data.dataset)))
    return Since(column, next((mark for mark in landed if mark), None))


def landed_files(lake: Lake, data: DataSpec | Landing) -> tuple[Taken, ...]:
    """Return the files whose rows are in the data set."""
    return tuple(file for snapshot in history(lake, data.dataset) for file in taken_by(snapshot.notes))


def _append(lake: Lake, data: Landing, landing: _Arrival, progress: Progress) -> Landed:
    judged, now, notes = landing.judged, datetime.now(UTC), landing.notes
    described, key = landing.source.description, landing.key
    if judged.quarantined:
        # By what it was judged against, too: after another ingest came between, other rows may be the wrong ones.
        aside_key = f"{key} onto {landing.onto}" if landing.onto else key
        aside = lake.append(
            quarantine_of(data), judged.quarantined_rows(), source=described, key=aside_key, at=now, notes=notes
        )
        notes = {**notes, "quarantine_snapshot": aside.id}
    watched = Watched(judged.accepted_rows(), landing.source, landing.source.bytes / judged.rows_in, progress)
    try:
        snapshot = lake.append(
            data.dataset, watched.reader(), source=described, key=key, at=now, notes=notes, onto=landing.onto
        )
    except Exception as error:
        raise watched.error or error from error
    _show(snapshot, judged)
    return _landed(snapshot, new=True)


def _nothing_new(lake: Lake, data: Landing, source: Source) -> Landed:
    """Say that there is no row that has not landed; a source that has none at all is an error."""
    landed = history(lake, data.dataset)
    if not source.nothing_new() or not landed:
        raise no_rows(source.description)
    return Landed(dataset=data.dataset, snapshot=landed[-1].id, rows_in=0, accepted=0, quarantined=0, new=False)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _landed(snapshot: Snapshot, *, new: bool) -> Landed:
    return Landed(
        dataset=snapshot.dataset,
        snapshot=snapshot.id,
        rows_in=int(snapshot.notes["rows_in"]),
        accepted=snapshot.rows,
        quarantined=int(snapshot.notes["quarantined"]),
        quarantine_snapshot=snapshot.notes.get("quarantine_snapshot", ""),
        new=new,
    )


def _show(snapshot: Snapshot, judged: Judged) -> None:
    aside = list(judged.set_aside(_SHOWN))[:_SHOWN]
    lines = [
        f"**{snapshot.dataset}**: {judged.rows_in} rows in = {snapshot.rows} accepted "
        f"+ {judged.quarantined} quarantined, as snapshot `{snapshot.id}`.",
        *(["", "| where | key | why |", "|---|---|---|"] if aside else []),
        *(f"| {row['position']} | {row['key']} | {row['reason']} |" for row in aside),
    ]
    create_markdown_artifact(key="ingest", markdown="\n".join(lines), description=snapshot.source)
