"""The rows that are to be predicted: of a source, laid down as typed files, or of a read of the lake as they lie."""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import Environment
from blocks.lake.base import Lake
from blocks.sources import RowBatch, UnreadableRow, open_source
from blocks.sources.base import no_rows_error
from blocks.sources.secret_addresses import resolve_address
from blocks.sources.staging import StagedSource, stage_rows
from runtime.digests import text_digest
from tasks.shared.progress import Progress
from tasks.shared.reads import TableReads, resolve_reads
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec, column_kinds
from tasks.shared.rules.model.strict_record import did_you_mean
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS
from tasks.shared.rules.rows.content import ContentDigest
from tasks.shared.rules.rows.join_rules import refuse_changed_row_count
from tasks.shared.rules.rows.joins import model_rows_sql, select_where
from tasks.shared.rules.rows.tiers import TierRule
from tasks.shared.tables import TableFiles, check_table_columns, check_tier_rows, count_tier_rows
from tasks.validation.rules.parquet_rows import TABLE_NAME, ParquetRows

LAKE_PREFIX = "lake:"
"""How an input begins that is a data set of the lake: `lake:churn`."""

LOCAL_ENGINE_ROWS = 100_000
"""Up to here the rows of a source are predicted in this process: on a cluster most of the time would be its start."""


@dataclass(frozen=True)
class InferenceInput:
    """Rows to be predicted, in Parquet files.

    Attributes:
        engine: reads the files.
        rows_sql: SQL that gives entity (text) and features over `tables`.
        tables: the files, by their names in the SQL.
        rows: how many there are.
        digest: stands for the rows: the same rows have the same.
        description: what was read, for people.
    """

    engine: Engine
    rows_sql: str
    tables: TableFiles
    rows: int
    digest: str
    description: str

    def predictions_key(self, version: str) -> str:
        """Return what stands for the predictions of these rows by that version."""
        return text_digest(f"{self.digest} {version}")

    def as_parquet_rows(self) -> ParquetRows:
        """Return the rows as a suite is held against them, where they lie."""
        files = tuple(file for each in self.tables.values() for file in each)
        within = f"WITH {TABLE_NAME} AS ({self.rows_sql})"
        return ParquetRows(files, lambda asked: self.engine.query(f"{within} {asked}", self.tables))

    def rows_with_buckets_sql(self, entity: str) -> str:
        """Return SQL that gives beside entity and features the bucket of the entity, by which the lake is laid out."""
        return select_where(
            ["*", f"{sql.bucket_sql(entity, 1)} AS {sql.quoted_name(BUCKET_COLUMN)}"], f"({self.rows_sql}) AS t"
        )

    def refuse_rows_without_entity(self, entity: str) -> None:
        """Refuse rows without an entity: nobody could tell whose prediction theirs is."""
        asked = select_where(["count(*) AS found"], f"({self.rows_sql}) AS t", f"{sql.quoted_name(entity)} IS NULL")
        if found := int(self.engine.query(asked, self.tables)["found"][0].as_py()):
            remedy = "Give each row its key, or take these rows out; nothing was scored."
            raise Refusal(f"{found} rows have no entity", where=f"{self.description}, column {entity!r}", remedy=remedy)


def open_inference_input(
    env: Environment, data: DataSpec, source: str, query: str, as_of: str, folder: Path
) -> InferenceInput:
    """Return the rows that `source` names; see `flows.batch_inference` for the arguments.

    Args:
        env: where lake and engine are.
        data: the columns that the model needs.
        source: a file, a folder, a glob, an s3:// address, a database, or `lake:` and a data set.
        query: for a database.
        as_of: for a data set of the lake.
        folder: empty; holds what has to be laid down as long as the rows are read.

    Raises:
        Refusal: rows that cannot be read, columns that are missing, or arguments that do not go together.
    """
    if source.startswith(LAKE_PREFIX):
        if query:
            raise Refusal("a query is for a database", where=source, value=query, remedy="Leave it empty.")
        return input_from_lake(env.lake(), env.engine(), data, source.removeprefix(LAKE_PREFIX), as_of, folder)
    if as_of:
        remedy = f"Leave it empty, or read the lake: {LAKE_PREFIX}{data.dataset}."
        raise Refusal("a point in time is for a data set of the lake", where=source, value=as_of, remedy=remedy)
    found = input_from_source(data, source, query, folder)
    return found if found.rows <= LOCAL_ENGINE_ROWS else replace(found, engine=env.engine())


def input_from_source(data: DataSpec, source: str, query: str, folder: Path) -> InferenceInput:
    """Read a source of any size into typed files below the folder: every row, or none.

    Raises:
        Rejected, Unavailable: the source cannot be used as a whole.
        Refusal: rows that cannot be read.
    """
    kinds = {name: kind for name, kind in column_kinds(data).items() if name != data.target}
    for name in ("fetched", "rows"):
        (folder / name).mkdir()
    digest = ContentDigest()
    address = resolve_address(source)
    with closing(open_source(address, query=query, kinds=kinds, scratch=folder / "fetched")) as opened:
        progress = Progress(f"reading {opened.description}", opened.size_bytes)

        def seen(piece: RowBatch) -> None:
            progress.add(piece.table.num_rows + len(piece.unreadable_rows), piece.bytes_read)
            digest.update(piece.table)

        staged = stage_rows(opened, folder / "rows", seen, always_copy=True)
        if staged.unreadable_row_count:
            refuse_unreadable_rows(staged.unreadable_row_count, _first_unreadable_row(staged), source)
        if not staged.rows:
            raise no_rows_error(opened.description)
        described = opened.description
    chosen = select_where(map(sql.quoted_name, kinds), "staged")
    tables = {"staged": tuple(map(str, staged.files))}
    here = DuckDBEngine.model_validate({"spill": folder})
    return InferenceInput(here, chosen, tables, staged.rows, digest.hexdigest(), described)


def input_from_lake(
    lake: Lake, engine: Engine, data: DataSpec, dataset: str, as_of: str, folder: Path
) -> InferenceInput:
    """Return the rows of a data set as of a snapshot or time: the model's own, joined, or another with its columns.

    Raises:
        NotFound: no such data set or snapshot, or nothing had landed then.
        Refusal: a column that the model needs is not there, or the tables cannot be joined.
    """
    own = dataset == data.dataset
    read = data if own else data.model_copy(update={"dataset": dataset, "tables": {}, "time": None})
    reads = resolve_reads(lake, read, as_of)
    described = f"{dataset} as of {reads.main.id}"
    needed = (*read.unique, *read.features)  # the time, too: the suite may speak of it
    columns = [f"{sql.key_text_sql(data.entity)} AS {sql.quoted_name(data.entity)}", *map(sql.quoted_name, needed[1:])]
    if not read.tables:
        refuse_missing_columns(needed, reads)
        chosen, tables = select_where(columns, "main"), reads.files(lake, read, BUCKETS)
        return InferenceInput(engine, chosen, tables, reads.main.rows, _input_digest(reads, chosen), described)
    check_table_columns(reads, read)
    files, everything = reads.files(lake, read, BUCKETS), TierRule(BUCKETS)
    check_tier_rows(engine, files, read, everything)
    chosen = select_where(columns, f"({model_rows_sql(read)}) AS joined")
    refuse_changed_row_count(
        read, count_tier_rows(engine, files, everything), engine.write(chosen, files, folder / "joined")
    )
    tables = {"joined": tuple(map(str, sorted((folder / "joined").iterdir())))}
    named = select_where(map(sql.quoted_name, needed), "joined")
    return InferenceInput(engine, named, tables, reads.main.rows, _input_digest(reads, chosen), described)


def refuse_missing_columns(needed: Iterable[str], reads: TableReads) -> None:
    """Refuse a data set that lacks a column which the model needs."""
    held = reads.columns()[MAIN_TABLE]
    if missing := next((column for column in needed if column not in held), None):
        where = f"data set {reads.main.dataset} as of {reads.main.id}"
        remedy = did_you_mean(missing, held) or "Score another data set, or ingest it with this column."
        raise Refusal("a column that the model needs is not there", where=where, value=missing, remedy=remedy)


def refuse_unreadable_rows(count: int, first: UnreadableRow, source: str) -> None:
    """Refuse a source with rows that cannot be read: every row that was asked for gets an answer or a reason."""
    raise Refusal(
        f"{count} rows cannot be read, the first because {first.reason}",
        where=f"{source}, {first.position}",
        value=first.raw_text,
        remedy="Mend the rows; nothing was scored.",
    )


def _first_unreadable_row(staged: StagedSource) -> UnreadableRow:
    with pq.ParquetFile(staged.unreadable_files[0]) as file:
        return UnreadableRow(**next(file.iter_batches(1)).to_pylist()[0])


def _input_digest(reads: TableReads, chosen: str) -> str:
    return text_digest("\n".join(("lake", reads.digest, chosen)))
