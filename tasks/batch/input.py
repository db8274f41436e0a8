"""The input rows of a batch inference: a source, staged as typed files, or a read of the lake."""

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
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec, column_kinds
from tasks.shared.rules.model.strict_record import did_you_mean
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS
from tasks.shared.rules.rows.content import ContentDigest
from tasks.shared.rules.rows.join_rules import check_tables, refuse_changed_row_count
from tasks.shared.rules.rows.joins import model_rows_sql, select_where
from tasks.shared.rules.rows.tiers import TierRule
from tasks.shared.tables import (
    TableFiles,
    TableReads,
    check_tier_rows,
    count_tier_rows,
    resolve_reads,
)
from tasks.validation.rules.parquet_rows import TABLE_NAME, ParquetRows

LAKE_PREFIX = "lake:"
"""The prefix of an input that is a data set of the lake: `lake:churn`."""

LOCAL_ENGINE_ROWS = 100_000
"""Up to this many rows of a source are predicted in this process: a cluster would take longer to start."""


@dataclass(frozen=True)
class InferenceInput:
    """The rows to predict, in Parquet files.

    `rows_sql` is SQL over `tables` that returns the entity (as text) and the features. Equal rows have equal digests.
    `description` names the source for people.
    """

    engine: Engine
    rows_sql: str
    tables: TableFiles
    rows: int
    digest: str
    description: str

    def predictions_key(self, version: str) -> str:
        """Return the key of the predictions of these rows by a version."""
        return text_digest(f"{self.digest} {version}")

    def as_parquet_rows(self) -> ParquetRows:
        """Return the rows in place, as an expectation suite validates them."""
        files = tuple(file for each in self.tables.values() for file in each)
        within = f"WITH {TABLE_NAME} AS ({self.rows_sql})"
        return ParquetRows(files, lambda query: self.engine.query(f"{within} {query}", self.tables))

    def rows_with_buckets_sql(self, entity: str) -> str:
        """Return SQL for entity, features and the bucket of the entity, by which the lake partitions its files."""
        return select_where(
            ["*", f"{sql.bucket_sql(entity, 1)} AS {sql.quoted_name(BUCKET_COLUMN)}"], f"({self.rows_sql}) AS t"
        )

    def refuse_rows_without_entity(self, entity: str) -> None:
        """Refuse rows without an entity: their predictions would belong to nobody."""
        query = select_where(["count(*) AS missing"], f"({self.rows_sql}) AS t", f"{sql.quoted_name(entity)} IS NULL")
        if missing := int(self.engine.query(query, self.tables)["missing"][0].as_py()):
            remedy = "Give each row its key, or remove these rows; nothing was predicted."
            raise Refusal(
                f"{missing} rows have no entity", where=f"{self.description}, column {entity!r}", remedy=remedy
            )


def open_inference_input(
    env: Environment, data: DataSpec, source: str, query: str, as_of: str, folder: Path
) -> InferenceInput:
    """Return the input rows that `source` names. `flows.batch_inference` documents source, query and as_of.

    `folder` is empty and receives the staged files. It must exist as long as the rows are read.

    Raises:
        Refusal: a row cannot be read, a column is missing, or the arguments contradict each other.
    """
    if source.startswith(LAKE_PREFIX):
        if query:
            raise Refusal("only a database takes a query", where=source, value=query, remedy="Leave it empty.")
        return input_from_lake(env.lake(), env.engine(), data, source.removeprefix(LAKE_PREFIX), as_of, folder)
    if as_of:
        remedy = f"Leave it empty, or read the lake: {LAKE_PREFIX}{data.dataset}."
        raise Refusal("only a data set of the lake takes as_of", where=source, value=as_of, remedy=remedy)
    staged = input_from_source(data, source, query, folder)
    return staged if staged.rows <= LOCAL_ENGINE_ROWS else replace(staged, engine=env.engine())


def input_from_source(data: DataSpec, source: str, query: str, folder: Path) -> InferenceInput:
    """Stage a source of any size as typed files below the folder: every row, or none.

    Raises:
        Rejected, Unavailable: the source cannot be read.
        Refusal: a row cannot be read.
    """
    kinds = {name: kind for name, kind in column_kinds(data).items() if name != data.target}
    for name in ("fetched", "rows"):
        (folder / name).mkdir()
    digest = ContentDigest()
    address = resolve_address(source)
    with closing(open_source(address, query=query, kinds=kinds, scratch=folder / "fetched")) as opened:
        progress = Progress(f"reading {opened.description}", opened.size_bytes)

        def add_batch(batch: RowBatch) -> None:
            progress.add(batch.table.num_rows + len(batch.unreadable_rows), batch.bytes_read)
            digest.update(batch.table)

        staged = stage_rows(opened, folder / "rows", add_batch, always_copy=True)
        if staged.unreadable_row_count:
            refuse_unreadable_rows(staged.unreadable_row_count, _first_unreadable_row(staged), source)
        if not staged.rows:
            raise no_rows_error(opened.description)
        description = opened.description
    chosen = select_where(map(sql.quoted_name, kinds), "staged")
    tables = {"staged": tuple(map(str, staged.files))}
    local_engine = DuckDBEngine.model_validate({"spill": folder})
    return InferenceInput(local_engine, chosen, tables, staged.rows, digest.hexdigest(), description)


def input_from_lake(
    lake: Lake, engine: Engine, data: DataSpec, dataset: str, as_of: str, folder: Path
) -> InferenceInput:
    """Return the rows of a data set as of a snapshot or time.

    It is the model's own data set, joined with its tables, or another one with the same columns.

    Raises:
        NotFound: there is no such data set or snapshot, or the data set was empty at that time.
        Refusal: a column that the model needs is missing, or the tables cannot be joined.
    """
    own = dataset == data.dataset
    read = data if own else data.model_copy(update={"dataset": dataset, "tables": {}, "time": None})
    reads = resolve_reads(lake, read, as_of)
    description = f"{dataset} as of {reads.main.id}"
    needed = (*read.unique, *read.features)  # includes the time: an expectation may use it
    columns = [f"{sql.key_text_sql(data.entity)} AS {sql.quoted_name(data.entity)}", *map(sql.quoted_name, needed[1:])]
    if not read.tables:
        refuse_missing_columns(needed, reads)
        chosen, tables = select_where(columns, "main"), reads.files(lake, read, BUCKETS)
        return InferenceInput(engine, chosen, tables, reads.main.rows, _input_digest(reads, chosen), description)
    check_tables(read, reads.columns())
    files, everything = reads.files(lake, read, BUCKETS), TierRule(BUCKETS)
    check_tier_rows(engine, files, read, everything)
    chosen = select_where(columns, f"({model_rows_sql(read)}) AS joined")
    refuse_changed_row_count(
        read, count_tier_rows(engine, files, everything), engine.write(chosen, files, folder / "joined")
    )
    tables = {"joined": tuple(map(str, sorted((folder / "joined").iterdir())))}
    named = select_where(map(sql.quoted_name, needed), "joined")
    return InferenceInput(engine, named, tables, reads.main.rows, _input_digest(reads, chosen), description)


def refuse_missing_columns(needed: Iterable[str], reads: TableReads) -> None:
    """Refuse a data set without a column that the model needs."""
    columns = reads.columns()[MAIN_TABLE]
    if missing := next((column for column in needed if column not in columns), None):
        where = f"data set {reads.main.dataset} as of {reads.main.id}"
        remedy = did_you_mean(missing, columns) or "Predict another data set, or ingest this one with the column."
        raise Refusal("a column that the model needs is missing", where=where, value=missing, remedy=remedy)


def refuse_unreadable_rows(count: int, first: UnreadableRow, source: str) -> None:
    """Refuse a source with unreadable rows: every input row gets a prediction, or the run fails with a reason."""
    raise Refusal(
        f"{count} rows cannot be read, the first because {first.reason}",
        where=f"{source}, {first.position}",
        value=first.raw_text,
        remedy="Correct the rows; nothing was predicted.",
    )


def _first_unreadable_row(staged: StagedSource) -> UnreadableRow:
    with pq.ParquetFile(staged.unreadable_files[0]) as file:
        first = next(file.iter_batches(1)).to_pylist()[0]
    return UnreadableRow(position=first["position"], reason=first["reason"], raw_text=first["text"])


def _input_digest(reads: TableReads, chosen: str) -> str:
    return text_digest("\n".join(("lake", reads.digest, chosen)))
