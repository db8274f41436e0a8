"""Checks before tables are joined: missing columns, incomparable keys and times, repeated keys."""

import re
from collections.abc import Iterator, Mapping, Sequence

from tasks.shared.rules import sql
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec
from tasks.shared.rules.model.strict_record import did_you_mean
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN
from tasks.shared.rules.rows.joins import is_tier_sampled, select_where, sql_table_names

ColumnTypes = Mapping[str, str]
"""The columns that a data set holds, each with its Arrow type as text."""

MAX_KEY_EXAMPLES = 3
"""How many examples a message shows."""

BUCKET_SAMPLE = 1_000
"""How many rows are checked to see whether a table's buckets are those of the entity."""

_KEY = re.compile(r"(dictionary<values=)?(string|large_string|string_view|u?int(8|16|32|64))\b.*")
_TIME = re.compile(r"timestamp\[(s|ms|us|ns)(, tz=.+)?\]")


def check_tables(data: DataSpec, columns: Mapping[str, ColumnTypes]) -> None:
    """Refuse tables that cannot be joined as `model.yaml` says; `columns` are those of each data set, by table.

    Raises:
        Refusal: a column is missing, a key is neither integer nor text, a time is none, one time has a zone and
            the other has not, or a table that the tier samples has no buckets. Names data set and column.
    """
    for table in sql_table_names(data):
        _check_present(data, table, columns[table])
    if not data.tables:
        return
    for table in sql_table_names(data):
        _check_keys(data, table, columns[table])
    _check_times(data, columns)


def foreign_buckets_sql(data: DataSpec, table: str) -> str:
    """Return the SELECT of keys whose bucket is not that of the entity, among some rows of a sampled table."""
    key = _entity_column(data, table)
    columns = f"{sql.quoted_name(key)}, {sql.quoted_name(BUCKET_COLUMN)}"
    some = f"SELECT {columns} FROM {sql_table_names(data)[table]} LIMIT {BUCKET_SAMPLE}"  # noqa: S608
    wrong = f"{sql.quoted_name(key)} IS NOT NULL AND {sql.bucket_sql(key, 1)} <> {sql.quoted_name(BUCKET_COLUMN)}"
    foreign = select_where([f"{sql.key_text_sql(key)} AS example"], f"({some})", wrong)
    return f"{foreign} ORDER BY example LIMIT {MAX_KEY_EXAMPLES}"


def refuse_foreign_buckets(data: DataSpec, table: str, examples: Sequence[str]) -> None:
    """Refuse a table whose buckets are those of another key than the entity: a tier would miss its rows."""
    if examples:
        raise Refusal(
            f"the rows are not laid out by {_entity_column(data, table)!r}",
            where=f"data set {_dataset(data, table)}",
            value=list(examples),
            remedy=f"Ingest the table with this column as its entity: its {BUCKET_COLUMN} has to be that of the key.",
        )


def repeated_keys_sql(data: DataSpec, table: str, within: str = "") -> str:
    """Return the SELECT of keys that occur more than once in a further table: example (text), rows (count)."""
    keys = list(data.tables[table].keys.values())
    there = " AND ".join([*(f"{sql.quoted_name(key)} IS NOT NULL" for key in keys), *([within] if within else [])])
    example = f"concat_ws(', ', {', '.join(map(sql.key_text_sql, keys))}) AS example"
    grouped = ", ".join(map(sql.key_text_sql, keys))
    counted = select_where([example, "count(*) AS found"], sql_table_names(data)[table], there)
    return f"{counted} GROUP BY {grouped} HAVING count(*) > 1 ORDER BY found DESC, example LIMIT {MAX_KEY_EXAMPLES}"


def refuse_repeated_keys(data: DataSpec, table: str, examples: Sequence[Mapping[str, object]]) -> None:
    """Refuse a table without a time whose keys repeat: each row of the main table would become many."""
    if examples:
        shown = ", ".join(f"{row['example']} ({row['found']} rows)" for row in examples)
        keys = ", ".join(map(repr, data.tables[table].keys.values()))
        raise Refusal(
            f"key not unique: {shown}",
            where=f"data set {_dataset(data, table)}, column {keys}",
            remedy=f"Keep one row a key, or name the column that tells them apart: data.tables.{table}.time, "
            f"or one more of data.tables.{table}.keys.",
        )


def rows_without_sql(data: DataSpec, column: str, within: str = "") -> str:
    """Return the SELECT of entities of the main table that have a row in which the column is null."""
    condition = " AND ".join([f"{sql.quoted_name(column)} IS NULL", *([within] if within else [])])
    rows = select_where([f"{sql.key_text_sql(data.entity)} AS example"], "main", condition)
    return f"{rows} ORDER BY example LIMIT {MAX_KEY_EXAMPLES}"


def refuse_rows_without_time(data: DataSpec, examples: Sequence[str]) -> None:
    """Refuse rows of the main table without a time: they cannot be joined as of their time."""
    if examples:
        where = f"data set {data.dataset}, column {data.time!r}"
        remedy = "Ingest these rows with their time, or take them out of the source."
        raise Refusal("rows without a time cannot be joined", where=where, value=list(examples), remedy=remedy)


def refuse_rows_without_side(data: DataSpec, column: str, examples: Sequence[str]) -> None:
    """Refuse rows of the main table in which the column is null that selects tier or holdout."""
    if examples:
        where = f"data set {data.dataset}, column {column!r}"
        remedy = "Ingest the rows with it into another data set, and name that one as data.dataset."
        raise Refusal("rows without it belong to no tier and no part", where=where, value=list(examples), remedy=remedy)


def refuse_changed_row_count(data: DataSpec, asked: int, found: int) -> None:
    """Refuse joined rows that are more or fewer than those of the main table."""
    if asked != found:
        problem = f"{asked} rows of the main table became {found} by joining"
        raise Refusal(problem, where=f"data set {data.dataset}", remedy="This is a defect of Ratchet: report it.")


def _check_present(data: DataSpec, table: str, held: ColumnTypes) -> None:
    declared = data.main_columns if table == MAIN_TABLE else data.ingest_schema(table).column_kinds
    needed = [*declared, *([BUCKET_COLUMN] if is_tier_sampled(data, table) else [])]
    for column in needed:
        if column not in held:
            remedy = did_you_mean(column, [name for name in held if name != BUCKET_COLUMN])
            if column == BUCKET_COLUMN:
                remedy = f"Ingest the table with {_entity_column(data, table)!r} as its entity."
            where = f"data set {_dataset(data, table)}"
            raise Refusal("a column that model.yaml names is missing", where=where, value=column, remedy=remedy)


def _check_keys(data: DataSpec, table: str, held: ColumnTypes) -> None:
    keys = {key for further in data.tables.values() for key in further.keys} | {data.entity}
    for column in sorted(keys) if table == MAIN_TABLE else data.tables[table].keys.values():
        if not _KEY.fullmatch(held[column]):
            where = f"data set {_dataset(data, table)}, column {column!r}"
            remedy = "Write keys as integers or text: 1 and 1.0 would be two."
            raise Refusal("a key has to be an integer or text", where=where, value=held[column], remedy=remedy)


def _check_times(data: DataSpec, columns: Mapping[str, ColumnTypes]) -> None:
    kinds = {where: _time_kind(kind, where) for where, kind in _times(data, columns)}
    if len(set(kinds.values())) > 1:
        shown = ", ".join(f"{where} is {kind}" for where, kind in kinds.items())
        remedy = "Ingest all of them as times with a zone, such as 2026-11-21T10:00:00Z."
        raise Refusal(f"times that cannot be compared: {shown}", where="data.tables", remedy=remedy)


def _times(data: DataSpec, columns: Mapping[str, ColumnTypes]) -> Iterator[tuple[str, str]]:
    if data.time:
        yield f"{data.dataset}.{data.time}", columns[MAIN_TABLE][data.time]
    for name, table in data.tables.items():
        if table.time:
            yield f"{table.dataset}.{table.time}", columns[name][table.time]


def _time_kind(arrow_type: str, where: str) -> str:
    """Return "a date", "a time with a zone" or "a time without a zone"."""
    found = _TIME.fullmatch(arrow_type)
    if arrow_type.startswith("date"):
        return "a date"
    if not found or found[1] == "ns":
        problem = "nanoseconds are not compared exactly by every engine" if found else "the column holds no times"
        remedy = "Ingest it as a time in microseconds, with a zone: 2026-11-21T10:00:00Z."
        raise Refusal(problem, where=where, value=arrow_type, remedy=remedy)
    return "a time with a zone" if found[2] else "a time without a zone"


def _entity_column(data: DataSpec, table: str) -> str:
    return data.entity if table == MAIN_TABLE else data.tables[table].keys[data.entity]


def _dataset(data: DataSpec, table: str) -> str:
    return data.dataset if table == MAIN_TABLE else data.tables[table].dataset
