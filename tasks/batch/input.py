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
from blocks.sources import BrokenRow, Piece, open_source
from blocks.sources.addresses import address_of
from blocks.sources.base import no_rows
from blocks.sources.staging import Staged, stage
from runtime.digests import text_digest
from tasks.shared.progress import Progress
from tasks.shared.reads import Reads, fix_reads
from tasks.shared.rules import sql
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec, column_kinds
from tasks.shared.rules.model.strict_record import nearest
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS
from tasks.shared.rules.rows.content import ContentDigest
from tasks.shared.rules.rows.join_rules import refuse_multiplied
from tasks.shared.rules.rows.joins import rows_sql, select
from tasks.shared.rules.rows.tiers import TierRule
from tasks.shared.tables import Files, check_reads, check_rows, count_rows
from tasks.validation.rules.parquet_rows import TABLE, ParquetRows

LAKE = "lake:"
"""How an input begins that is a data set of the lake: `lake:churn`."""

SMALL_ROWS = 100_000
"""Up to here the rows of a source are predicted in this process: on a cluster most of the time would be its start."""


@dataclass(frozen=True)
class Input:
    """Rows to be predicted, in Parquet files.

    Attributes:
        engine: reads the files.
        select: SQL that gives entity (text) and features over `tables`.
        tables: the files, by their names in the SQL.
        rows: how many there are.
        digest: stands for the rows: the same rows have the same.
        description: what was read, for people.
    """

    engine: Engine
    select: str
    tables: Files
    rows: int
    digest: str
    description: str

    def key(self, version: str) -> str:
        """Return what stands for the predictions of these rows by that version."""
        return text_digest(f"{self.digest} {version}")

    def to_check(self) -> ParquetRows:
        """Return the rows as a suite is held against them, where they lie."""
        files = tuple(file for each in self.tables.values() for file in each)
        within = f"WITH {TABLE} AS ({self.select})"
        return ParquetRows(files, lambda asked: self.engine.query(f"{within} {asked}", self.tables))

    def with_buckets(self, entity: str) -> str:
        """Return SQL that gives beside entity and features the bucket of the entity, by which the lake is laid out."""
        return select(["*", f"{sql.bucket(entity, 1)} AS {sql.name(BUCKET_COLUMN)}"], f"({self.select}) AS t")

    def refuse_nameless(self, entity: str) -> None:
        """Refuse rows without an entity: nobody could tell whose prediction theirs is."""
        asked = select(["count(*) AS found"], f"({self.select}) AS t", f"{sql.name(entity)} IS NULL")
        if found := int(self.engine.query(asked, self.tables)["found"][0].as_py()):
            remedy = "Give each row its key, or take these rows out; nothing was scored."
            raise Refusal(f"{found} rows have no entity", where=f"{self.description}, column {entity!r}", remedy=remedy)


def open_input(world: Environment, data: DataSpec, source: str, query: str, as_of: str, folder: Path) -> Input:
    """Return the rows that `source` names; see `flows.score` for the arguments.

    Args:
        world: where lake and engine are.
        data: the columns that the model needs.
        source: a file, a folder, a glob, an s3:// address, a database, or `lake:` and a data set.
        query: for a database.
        as_of: for a data set of the lake.
        folder: empty; holds what has to be laid down as long as the rows are read.

    Raises:
        Refusal: rows that cannot be read, columns that are missing, or arguments that do not go together.
    """
    if source.startswith(LAKE):
        if query:
            raise Refusal("a query is for a database", where=source, value=query, remedy="Leave it empty.")
        return of_lake(world.lake(), world.engine(), data, source.removeprefix(LAKE), as_of, folder)
    if as_of:
        remedy = f"Leave it empty, or read the lake: {LAKE}{data.dataset}."
        raise Refusal("a point in time is for a data set of the lake", where=source, value=as_of, remedy=remedy)
    found = of_source(data, source, query, folder)
    return found if found.rows <= SMALL_ROWS else replace(found, engine=world.engine())


def of_source(data: DataSpec, source: str, query: str, folder: Path) -> Input:
    """Read a source of any size into typed files below the folder: every row, or none.

    Raises:
        Rejected, Unavailable: the source cannot be used as a whole.
        Refusal: rows that cannot be read.
    """
    kinds = {name: kind for name, kind in column_kinds(data).items() if name != data.target}
    for name in ("fetched", "rows"):
        (folder / name).mkdir()
    digest = ContentDigest()
    address = address_of(source)
    with closing(open_source(address, query=query, kinds=kinds, scratch=folder / "fetched")) as opened:
        progress = Progress(f"reading {opened.description}", opened.bytes)

        def seen(piece: Piece) -> None:
            progress.add(piece.table.num_rows + len(piece.broken), piece.bytes)
            digest.update(piece.table)

        staged = stage(opened, folder / "rows", seen, copy=True)
        if staged.broken_rows:
            refuse_broken(staged.broken_rows, _first_broken(staged), source)
        if not staged.rows:
            raise no_rows(opened.description)
        described = opened.description
    chosen = select(map(sql.name, kinds), "staged")
    tables = {"staged": tuple(map(str, staged.files))}
    here = DuckDBEngine.model_validate({"spill": folder})
    return Input(here, chosen, tables, staged.rows, digest.hexdigest(), described)


def of_lake(lake: Lake, engine: Engine, data: DataSpec, dataset: str, as_of: str, folder: Path) -> Input:
    """Return the rows of a data set as of a snapshot or time: the model's own, joined, or another with its columns.

    Raises:
        NotFound: no such data set or snapshot, or nothing had landed then.
        Refusal: a column that the model needs is not there, or the tables cannot be joined.
    """
    own = dataset == data.dataset
    read = data if own else data.model_copy(update={"dataset": dataset, "tables": {}, "time": None})
    reads = fix_reads(lake, read, as_of)
    described = f"{dataset} as of {reads.main.id}"
    needed = (*read.unique, *read.features)  # the time, too: the suite may speak of it
    columns = [f"{sql.key(data.entity)} AS {sql.name(data.entity)}", *map(sql.name, needed[1:])]
    if not read.tables:
        refuse_missing(needed, reads)
        chosen, tables = select(columns, "main"), reads.files(lake, read, BUCKETS)
        return Input(engine, chosen, tables, reads.main.rows, _digest(reads, chosen), described)
    check_reads(reads, read)
    files, everything = reads.files(lake, read, BUCKETS), TierRule(BUCKETS)
    check_rows(engine, files, read, everything)
    chosen = select(columns, f"({rows_sql(read)}) AS joined")
    refuse_multiplied(read, count_rows(engine, files, everything), engine.write(chosen, files, folder / "joined"))
    tables = {"joined": tuple(map(str, sorted((folder / "joined").iterdir())))}
    named = select(map(sql.name, needed), "joined")
    return Input(engine, named, tables, reads.main.rows, _digest(reads, chosen), described)


def refuse_missing(needed: Iterable[str], reads: Reads) -> None:
    """Refuse a data set that lacks a column which the model needs."""
    held = reads.columns()[MAIN_TABLE]
    if missing := next((column for column in needed if column not in held), None):
        where = f"data set {reads.main.dataset} as of {reads.main.id}"
        remedy = nearest(missing, held) or "Score another data set, or ingest it with this column."
        raise Refusal("a column that the model needs is not there", where=where, value=missing, remedy=remedy)


def refuse_broken(count: int, first: BrokenRow, source: str) -> None:
    """Refuse a source with rows that cannot be read: every row that was asked for gets an answer or a reason."""
    raise Refusal(
        f"{count} rows cannot be read, the first because {first.reason}",
        where=f"{source}, {first.position}",
        value=first.text,
        remedy="Mend the rows; nothing was scored.",
    )


def _first_broken(staged: Staged) -> BrokenRow:
    with pq.ParquetFile(staged.broken[0]) as file:
        return BrokenRow(**next(file.iter_batches(1)).to_pylist()[0])


def _digest(reads: Reads, chosen: str) -> str:
    return text_digest("\n".join(("lake", reads.digest, chosen)))
