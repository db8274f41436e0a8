"""The input rows of a batch inference: a source, staged as typed files, or a read of the lake."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.source_settings import SourceSettings
from blocks.engines.base import Engine
from blocks.engines.duckdb import DuckDBEngine
from blocks.environment import Environment
from blocks.lake.base import Lake
from blocks.sources import RowBatch, SourceFormat, UnreadableRow, open_source
from blocks.sources.base import MissingColumns, Source, no_rows_error, number_range
from blocks.sources.secret_addresses import resolve_address
from blocks.sources.staging import FILE_COLUMN, ROW_COLUMN, StagedSource, stage_rows
from runtime.digests import text_digest
from tasks.batch.predictor import SOURCE_FILE_COLUMN, SOURCE_ROW_COLUMN
from tasks.shared.progress import Progress
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec
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

    `rows_sql` is SQL over `tables` that returns `columns` (the entity as text, the time where there is one, the
    features) and the row's position: the index of its file in `files`, and its line or row number there, which is null
    for rows of the lake that their key identifies. Equal rows have equal digests. `description` names the source for
    people. `changed_columns` have values that earlier releases knew in another form.
    """

    engine: Engine
    rows_sql: str
    columns: tuple[str, ...]
    files: tuple[str, ...]
    tables: TableFiles
    rows: int
    digest: str
    description: str
    changed_columns: frozenset[str] = frozenset()

    def predictions_key(self, version: str) -> str:
        """Return the key of the predictions of these rows by a version."""
        return text_digest(f"{self.digest} {version}")

    def as_parquet_rows(self) -> ParquetRows:
        """Return the rows in place, as an expectation suite validates them."""
        files = tuple(file for each in self.tables.values() for file in each)
        chosen = select_where(map(sql.quoted_name, self.columns), f"({self.rows_sql}) AS t")
        within = f"WITH {TABLE_NAME} AS ({chosen})"
        return ParquetRows(files, lambda query: self.engine.query(f"{within} {query}", self.tables))

    def rows_with_buckets_sql(self, entity: str) -> str:
        """Return SQL for the rows and the bucket of the entity, by which the lake partitions its files."""
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
    staged = input_from_source(data, source, query, folder, env.allowed_sources())
    return staged if staged.rows <= LOCAL_ENGINE_ROWS else replace(staged, engine=env.engine())


def input_from_source(data: DataSpec, source: str, query: str, folder: Path, allowed: SourceSettings) -> InferenceInput:
    """Stage a source of any size as typed files below the folder: every row, or none.

    The time is read if the source has its column, as in a request.

    Raises:
        Rejected, Unavailable: the source cannot be read, or a part of its files has the time.
        Refusal: a row cannot be read.
    """
    kinds = {data.entity: "key", **data.features}
    if not data.time or data.time in kinds:
        return _staged_input(data, kinds, source, query, folder, allowed)[0]
    try:
        return _staged_input(data, {data.entity: "key", data.time: "time", **kinds}, source, query, folder, allowed)[0]
    except MissingColumns as cause:
        if cause.columns != (data.time,):
            raise
        rows, undeclared = _staged_input(data, kinds, source, query, folder, allowed)
        if data.time in undeclared:  # in other files of the source: their rows have one
            raise
        return rows


def _staged_input(
    data: DataSpec, kinds: Mapping[str, str], source: str, query: str, folder: Path, allowed: SourceSettings
) -> tuple[InferenceInput, tuple[str, ...]]:
    """Return the staged rows of a source, and its columns that are not in `kinds`."""
    for name in ("fetched", "rows"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    digest = ContentDigest()
    address = resolve_address(source)
    written = SourceFormat(**{**data.source.settings(), "partitions": ()})  # a batch is no folder of partitions
    fetched = folder / "fetched"
    with closing(
        open_source(address, query=query, kinds=kinds, allowed=allowed, scratch=fetched, source_format=written)
    ) as opened:
        progress = Progress(f"reading {opened.description}", opened.size_bytes)

        def add_batch(batch: RowBatch) -> None:
            progress.add(batch.table.num_rows + len(batch.unreadable_rows), batch.bytes_read)
            digest.update(batch.table)

        staged = stage_rows(opened, folder / "rows", add_batch, always_copy=True)
        if staged.unreadable_row_count:
            refuse_unreadable_rows(staged.unreadable_row_count, _first_unreadable_row(staged), source)
        if not staged.rows:
            raise no_rows_error(opened.description)
        description, names, undeclared = opened.description, file_names(opened, address), opened.undeclared_columns
    position = [f"{FILE_COLUMN} AS {SOURCE_FILE_COLUMN}", f"{ROW_COLUMN} AS {SOURCE_ROW_COLUMN}"]
    chosen = select_where([*map(sql.quoted_name, kinds), *position], "staged")
    tables = {"staged": tuple(map(str, staged.files))}
    local_engine = DuckDBEngine.model_validate({"spill": folder})
    rows = InferenceInput(
        local_engine,
        chosen,
        tuple(kinds),
        names,
        tables,
        staged.rows,
        digest.hexdigest(),
        description,
        changed_columns=staged.changed_columns,
    )
    return rows, undeclared


def file_names(source: Source, address: str) -> tuple[str, ...]:
    """Return the name of each file of a source: relative to its folder if there are several."""
    plain = "://" not in address or address.startswith("s3://")
    single = address.rstrip("/").rpartition("/")[2] if plain else source.description
    return tuple(label.rpartition(" ")[0] or single for label in source.position_labels)


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
    read = data if own else data.model_copy(update={"dataset": dataset, "tables": {}})
    reads = resolve_reads(lake, read, as_of)
    if not own and data.time not in reads.columns()[MAIN_TABLE]:
        read = read.model_copy(update={"time": None})
    needed = (*read.unique, *read.features)  # includes the time: an expectation may use it
    columns = [f"{sql.key_text_sql(data.entity)} AS {sql.quoted_name(data.entity)}", *map(sql.quoted_name, needed[1:])]
    if not read.tables:
        refuse_missing_columns(needed, reads)
        chosen, tables = select_where(columns, "main"), reads.files(lake, read, BUCKETS)
        if numbered := not own and has_repeated_keys(engine, tables, read):
            tables = {"main": (str(_write_numbered_rows(lake, reads, needed, folder)),)}
        digest = _input_digest(reads, chosen)
        return _lake_input(engine, needed, columns, tables, reads, digest, numbered=numbered)
    check_tables(read, reads.columns())
    files, everything = reads.files(lake, read, BUCKETS), TierRule(BUCKETS)
    check_tier_rows(engine, files, read, everything)
    chosen = select_where(columns, f"({model_rows_sql(read)}) AS joined")
    refuse_changed_row_count(
        read, count_tier_rows(engine, files, everything), engine.write(chosen, files, folder / "joined")
    )
    tables = {"joined": tuple(map(str, sorted((folder / "joined").iterdir())))}
    names = list(map(sql.quoted_name, needed))
    return _lake_input(engine, needed, names, tables, reads, _input_digest(reads, chosen))


def has_repeated_keys(engine: Engine, tables: TableFiles, read: DataSpec) -> bool:
    """Return whether rows of a data set have the same entity (and time)."""
    key = ", ".join([sql.key_text_sql(read.entity), *map(sql.quoted_name, read.unique[1:])])
    groups = sql.select_sql(f"{key}, count(*) AS found", "main", f"GROUP BY {key} HAVING count(*) > 1")
    return bool(engine.query(sql.select_sql("1", f"({groups}) AS repeated", "LIMIT 1"), tables).num_rows)


def _write_numbered_rows(lake: Lake, reads: TableReads, columns: Sequence[str], folder: Path) -> Path:
    """Write the rows with their number, from 1, in the order in which the lake returns them at any time."""
    reader, path, first = lake.scan(reads.main, columns=list(columns)), folder / "numbered.parquet", 1
    schema = reader.schema.append(pa.field(SOURCE_ROW_COLUMN, pa.int64()))
    with pq.ParquetWriter(path, schema) as file:
        for batch in reader:
            numbers = number_range(first, batch.num_rows)
            file.write_batch(batch.append_column(SOURCE_ROW_COLUMN, numbers))
            first += batch.num_rows
    return path


def _lake_input(
    engine: Engine,
    columns: tuple[str, ...],
    values: Sequence[str],
    tables: TableFiles,
    reads: TableReads,
    digest: str,
    *,
    numbered: bool = False,
) -> InferenceInput:
    """Return the rows of a read of the lake: `values` are its `columns` as SQL over the only table.

    Their position is the data set and its snapshot, and if they are `numbered` the number of the row in it.
    """
    (source,) = tables
    row = sql.quoted_name(SOURCE_ROW_COLUMN) if numbered else "CAST(NULL AS BIGINT)"
    position = [f"CAST(0 AS INTEGER) AS {SOURCE_FILE_COLUMN}", f"{row} AS {SOURCE_ROW_COLUMN}"]
    rows_sql = select_where([*values, *position], source)
    name = f"{reads.main.dataset} as of {reads.main.id}"
    return InferenceInput(engine, rows_sql, columns, (name,), tables, reads.main.rows, digest, name)


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
