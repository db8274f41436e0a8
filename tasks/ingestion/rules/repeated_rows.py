"""Rows that the lookback reads again: those that the lake holds, or set aside before, are left out and counted.

A row is the same if all declared columns are. A row with a known key and other values is a correction, and not left
out: the row checks quarantine it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.ingestion.rules import row_checks
from tasks.ingestion.rules.acceptance import StagedRows
from tasks.ingestion.rules.quarantine import FILE_COLUMN, ROW_COLUMN, row_json
from tasks.ingestion.rules.row_checks import EngineLike, RowRules


def without_repeated_rows(
    engine: EngineLike,
    staged: StagedRows,
    rules: RowRules,
    folder: Path,
    *,
    lake_columns: Sequence[str],
    lake_files: Sequence[str],
    quarantine_files: Sequence[str],
) -> StagedRows:
    """Return the rows that were not read before; `folder` is empty and receives them.

    Args:
        engine: reads the files.
        staged: the rows.
        rules: the declared columns and the entity.
        folder: an empty folder for the result.
        lake_columns: the columns of the data set; a column that was declared later is not compared.
        lake_files: Parquet files of the data set.
        quarantine_files: Parquet files of its quarantine.
    """
    folder.mkdir(parents=True)
    if lake_files:
        compared = [column for column in rules.schema.names if column in lake_columns]
        sql = row_checks.fresh_rows_sql(staged.relation, compared)
        staged = _write_rows(engine, staged, sql, folder / "new", {row_checks.LAKE_TABLE: lake_files})
    if not quarantine_files:
        return staged
    known = _quarantined_texts(engine, quarantine_files)
    tables = {**staged.tables, row_checks.QUARANTINE_TABLE: quarantine_files}
    sql = row_checks.perhaps_quarantined_sql(staged.relation, rules)
    positions = list(_repeated_positions(engine.stream(sql, tables), rules, known))
    if positions:
        path = folder / "repeated.parquet"
        columns = [pa.array(column) for column in zip(*positions, strict=True)]
        pq.write_table(pa.table(columns, names=[FILE_COLUMN, ROW_COLUMN]), path)
        with_repeated = {row_checks.REPEATED_TABLE: [str(path)]}
        sql = row_checks.rows_without_sql(staged.relation)
        staged = _write_rows(engine, staged, sql, folder / "set-aside", with_repeated)
    return _without_known_texts(staged, known, folder)


def _write_rows(
    engine: EngineLike, staged: StagedRows, sql: str, to: Path, further: Mapping[str, Sequence[str]]
) -> StagedRows:
    """Write a part of the rows, in the order of the source, and return it."""
    ordered = f"{sql} ORDER BY r.{FILE_COLUMN}, r.{ROW_COLUMN}"
    rows = engine.write(ordered, {**staged.tables, **further}, to)
    files = sorted(map(str, to.glob("*.parquet")))
    relation = f"SELECT * FROM {row_checks.FRESH_TABLE}"  # noqa: S608
    left_out = staged.repeated + staged.rows - rows
    return replace(staged, relation=relation, tables={row_checks.FRESH_TABLE: files}, rows=rows, repeated=left_out)


def _quarantined_texts(engine: EngineLike, files: Sequence[str]) -> frozenset[str]:
    sql = f'SELECT "row" FROM {row_checks.QUARANTINE_TABLE}'  # noqa: S608
    batches = engine.stream(sql, {row_checks.QUARANTINE_TABLE: files})
    return frozenset(text for batch in batches for text in batch.column(0).to_pylist())


def _repeated_positions(
    batches: pa.RecordBatchReader, rules: RowRules, known: frozenset[str]
) -> Iterator[tuple[int, int]]:
    for batch in batches:
        rows = batch.select(rules.schema.names).to_pylist()
        places = zip(batch.column(FILE_COLUMN).to_pylist(), batch.column(ROW_COLUMN).to_pylist(), strict=True)
        yield from (place for row, place in zip(rows, places, strict=True) if row_json(row) in known)


def _without_known_texts(staged: StagedRows, known: frozenset[str], folder: Path) -> StagedRows:
    """Leave out the unreadable rows that stand in the quarantine."""
    if not staged.unreadable_rows:
        return staged
    table = pa.concat_tables([pq.read_table(file) for file in staged.unreadable_files])
    new = table.filter(pa.array([row_json({"text": text}) not in known for text in table["text"].to_pylist()]))
    path = folder / "unreadable.parquet"
    pq.write_table(new, path)
    left_out = staged.repeated + table.num_rows - new.num_rows
    return replace(staged, unreadable_files=[str(path)], unreadable_rows=new.num_rows, repeated=left_out)
