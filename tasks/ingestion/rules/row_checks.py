"""The row checks of ingestion as SQL over the files that hold the rows, without a loop over rows.

A row is identified by its file and its number there. The SQL is DuckDB's; of engine-specific functions only `hash`
is used, and only to find rows whose keys *may* be equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from runtime.duckdb_files import scan_sql
from runtime.values import BOOLEAN_TEXTS, WHOLE_FLOAT_PATTERN, label_text
from tasks.ingestion.rules.quarantine import (
    FILE_COLUMN,
    FIRST_FILE_COLUMN,
    FIRST_ROW_COLUMN,
    QUARANTINE_REASONS,
    REASON_CODE_COLUMN,
    ROW_COLUMN,
    SAME_VALUES_COLUMN,
)
from tasks.shared.rules import sql
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN

STAGED_TABLE = "staged"
"""The table of staged rows in the SQL of a relation."""

QUARANTINE_TABLE, REPEATED_TABLE, FRESH_TABLE = "quarantine", "repeated", "fresh"
"""Tables for rows that are read again: the quarantine, positions of the rows that are in it, and the other rows."""

LAKE_TABLE, KNOWN_KEYS_TABLE, INVALID_TABLE, REPEATED_HASHES_TABLE, DUPLICATES_TABLE, UNREADABLE_TABLE = (
    "lake",
    "known_keys",
    "invalid",
    "repeated_hashes",
    "duplicates",
    "unreadable",
)
"""The other tables: the lake's rows, the keys of it that occur again, invalid rows, hashes of more than one row,
rows with a duplicate key, and rows that the source could not read."""


_DUPLICATE_CODE = QUARANTINE_REASONS.index("duplicate key")
_NO_FIRST_ROW = f"CAST(NULL AS INTEGER) AS {FIRST_FILE_COLUMN}, CAST(NULL AS BIGINT) AS {FIRST_ROW_COLUMN}"


class EngineLike(Protocol):
    """An engine that runs SQL over Parquet files (`blocks.engines.base`); `tables` maps names in the SQL to files."""

    def query(self, sql: str, tables: Mapping[str, Sequence[str]]) -> pa.Table:
        """Return a small result."""

    def stream(self, sql: str, tables: Mapping[str, Sequence[str]]) -> pa.RecordBatchReader:
        """Return a large result in bounded memory, in the order of the rows."""

    def write(self, sql: str, tables: Mapping[str, Sequence[str]], to: Path) -> int:
        """Write the result as Parquet files into a new folder; return how many rows."""


@dataclass(frozen=True)
class RowRules:
    """What a valid row looks like.

    Attributes:
        schema: the declared columns with their types, in order, the entity first.
        entity: the key's column.
        target: the column to predict; None for rows to be scored.
        classes: the values that the target may have; None for a target without classes.
        finite: columns without infinity, by their files' statistics: these are not checked.
        unique: the columns that together may occur once and are not null; empty means the entity alone.
        group: the column of the group, which is not null; None without groups.
    """

    schema: pa.Schema
    entity: str
    target: str | None
    classes: Sequence[object] | None = None
    finite: frozenset[str] = field(default_factory=frozenset)
    unique: tuple[str, ...] = ()
    group: str | None = None

    @property
    def columns(self) -> str:
        """The declared columns of the relation `r`, in order, as SQL."""
        return ", ".join(f"r.{sql.quoted_name(column)}" for column in self.schema.names)


def with_declared_classes(relation: str, rules: RowRules) -> str:
    """Return the relation with the target's values as `classes` writes them: a class "true" is the canonical True."""
    texts = [str(each) for each in rules.classes or ()]
    other = {label_text(text, "category"): text for text in texts if label_text(text, "category") != text}
    if not other or rules.target is None:
        return relation
    target = sql.quoted_name(rules.target)
    cases = " ".join(f"WHEN {sql.text_literal(form)} THEN {sql.text_literal(text)}" for form, text in other.items())
    return f"SELECT * REPLACE (CASE {target} {cases} ELSE {target} END AS {target}) FROM ({relation}) c"  # noqa: S608


def old_forms_sql(relation: str, column: str, *, same: bool) -> str:
    """Return SQL for some values of the lake that an earlier release stored in another form: see docs/values.md.

    With `same` only values whose canonical form the source holds, too.
    """
    name = sql.quoted_name(column)
    old, new = f"CAST(l.{name} AS VARCHAR)", f"regexp_replace(CAST(l.{name} AS VARCHAR), '\\.0+$', '')"
    join = f"SEMI JOIN ({relation}) r ON {new} = CAST(r.{name} AS VARCHAR)" if same else ""
    words = ", ".join(sql.text_literal(text) for text, form in BOOLEAN_TEXTS.items() if text != form)
    booleans = "" if same else f" OR {old} IN ({words})"
    where = f"(contains({old}, '.') AND regexp_full_match({old}, '{WHOLE_FLOAT_PATTERN}')){booleans}"
    return f"SELECT DISTINCT {old} AS old FROM {LAKE_TABLE} l {join} WHERE {where} ORDER BY old LIMIT 3"  # noqa: S608


def letters_sql(relation: str, column: str, *, capitals: bool) -> str:
    """Return SQL that tells whether values have small letters (or capitals), and blanks or letters beyond ASCII.

    A column without these, or with letters of one case alone, has no values that look alike.
    """
    name = sql.quoted_name(column)
    odd = f"contains({name}, ' ') OR strlen({name}) <> length({name})"
    other = f"{'lower' if capitals else 'upper'}({name})"
    return f"SELECT bool_or({name} <> {other}) AS letters, bool_or({odd}) AS odd FROM ({relation}) r"  # noqa: S608


def lookalikes_sql(relation: str, column: str) -> str:
    """Return SQL for values that differ from another one in blanks, capitals or Unicode form alone.

    It gives their number `n` (of groups) and an example as `one` and `other`.
    """
    name = sql.quoted_name(column)
    values = f"SELECT DISTINCT {name} AS v FROM ({relation}) r WHERE {name} IS NOT NULL"  # noqa: S608
    groups = (
        f"SELECT min(v) AS one, max(v) AS other FROM ({values}) d "  # noqa: S608
        f"GROUP BY lower(nfc_normalize(trim(v))) HAVING count(*) > 1"
    )
    return f"SELECT count(*) AS n, min(one) AS one, min_by(other, one) AS other FROM ({groups}) g"  # noqa: S608


def invalid_rows_sql(relation: str, rules: RowRules, *, known: bool) -> str:
    """Return SQL for the invalid rows: position and reason code. Duplicate keys are found later."""
    code = _reason_code_sql(rules, known=known)
    return (
        f"SELECT {FILE_COLUMN}, {ROW_COLUMN}, {REASON_CODE_COLUMN} "  # noqa: S608
        f"FROM (SELECT {FILE_COLUMN}, {ROW_COLUMN}, {code} AS {REASON_CODE_COLUMN} FROM ({relation}) r) checked "
        f"WHERE {REASON_CODE_COLUMN} IS NOT NULL"
    )


def known_keys_sql(relation: str, rules: RowRules) -> str:
    """Return SQL for the keys of the rows that the lake holds already; the lake's files are `LAKE_TABLE`."""
    lake_key, key = _unique_key_sql(rules, "l"), _unique_key_sql(rules)
    return f"SELECT DISTINCT {lake_key} AS key FROM {LAKE_TABLE} l SEMI JOIN ({relation}) r ON {lake_key} = {key}"  # noqa: S608


def fresh_rows_sql(relation: str, columns: Sequence[str]) -> str:
    """Return SQL for the rows that the lake does not hold with the same values in these columns."""
    same = (f"l.{sql.quoted_name(c)} IS NOT DISTINCT FROM r.{sql.quoted_name(c)}" for c in columns)
    return f"SELECT r.* FROM ({relation}) r ANTI JOIN {LAKE_TABLE} l ON {' AND '.join(same)}"  # noqa: S608


def perhaps_quarantined_sql(relation: str, rules: RowRules) -> str:
    """Return SQL for the rows whose key stands in the quarantine, or who have none."""
    key = f"CAST(r.{sql.quoted_name(rules.entity)} AS VARCHAR)"
    known = f"SELECT key FROM {QUARANTINE_TABLE} WHERE key IS NOT NULL"  # noqa: S608
    return f"SELECT * FROM ({relation}) r WHERE {key} IN ({known}) OR {key} IS NULL"  # noqa: S608


def rows_without_sql(relation: str) -> str:
    """Return SQL for the rows whose positions are not in the table `REPEATED_TABLE`."""
    same = f"r.{FILE_COLUMN} = s.{FILE_COLUMN} AND r.{ROW_COLUMN} = s.{ROW_COLUMN}"
    return f"SELECT r.* FROM ({relation}) r ANTI JOIN {REPEATED_TABLE} s ON {same}"  # noqa: S608


def repeated_hashes_sql(relation: str, rules: RowRules, *, known: bool) -> str:
    """Return SQL for the key hashes that more than one valid row has."""
    valid = f"{_reason_code_sql(rules, known=known)} IS NULL"
    hashes = f"SELECT hash({_unique_key_sql(rules)}) AS h FROM ({relation}) r WHERE {valid}"  # noqa: S608
    return f"SELECT h FROM ({hashes}) GROUP BY h HAVING count(*) > 1"  # noqa: S608


def duplicate_rows_sql(relation: str, rules: RowRules, *, known: bool) -> str:
    """Return SQL for the valid rows whose key an earlier valid row has: their position, and that of the first."""
    return f"""
        SELECT {FILE_COLUMN}, {ROW_COLUMN}, {FIRST_FILE_COLUMN}, {FIRST_ROW_COLUMN} FROM (
            SELECT {FILE_COLUMN}, {ROW_COLUMN}, first_value({FILE_COLUMN}) OVER same AS {FIRST_FILE_COLUMN}, first_value({ROW_COLUMN}) OVER same AS {FIRST_ROW_COLUMN}
            FROM (SELECT {FILE_COLUMN}, {ROW_COLUMN}, {_unique_key_sql(rules)} AS key FROM ({relation}) r
                  WHERE {_reason_code_sql(rules, known=known)} IS NULL AND hash({_unique_key_sql(rules)}) IN (SELECT h FROM {REPEATED_HASHES_TABLE})) good
            WINDOW same AS (PARTITION BY key ORDER BY {FILE_COLUMN}, {ROW_COLUMN})
        ) ranked WHERE ({FILE_COLUMN}, {ROW_COLUMN}) <> ({FIRST_FILE_COLUMN}, {FIRST_ROW_COLUMN})"""  # noqa: S608, E501


def quarantine_reasons_sql(tables: Sequence[str]) -> str:
    """Return SQL for all invalid rows: position, reason code, and for duplicates the position of the accepted row."""
    position = f"{FILE_COLUMN}, {ROW_COLUMN}"
    first = f"{FIRST_FILE_COLUMN}, {FIRST_ROW_COLUMN}"
    parts = {
        INVALID_TABLE: f"SELECT {position}, {REASON_CODE_COLUMN}, {_NO_FIRST_ROW} FROM {INVALID_TABLE}",  # noqa: S608
        DUPLICATES_TABLE: f"SELECT {position}, {_DUPLICATE_CODE} AS {REASON_CODE_COLUMN}, {first} "  # noqa: S608
        f"FROM {DUPLICATES_TABLE}",
    }
    return " UNION ALL ".join(parts[table] for table in parts if table in tables)


def all_rows_sql(relation: str, rules: RowRules) -> str:
    """Return SQL for all rows in the source's order: the declared columns, the bucket, and the place.

    Those with a reason against them are left out while they stream: a join would change the order of the rows.
    """
    bucket = f"bucket_of({sql.key_text_sql(rules.entity, 'r')}, 1) AS {BUCKET_COLUMN}"
    return f"SELECT {rules.columns}, {bucket}, r.{FILE_COLUMN}, r.{ROW_COLUMN} FROM ({relation}) r"  # noqa: S608


def quarantined_positions_sql(tables: Sequence[str]) -> str:
    """Return SQL for the positions of all invalid rows."""
    return f"SELECT {FILE_COLUMN}, {ROW_COLUMN} FROM ({quarantine_reasons_sql(tables)}) w"  # noqa: S608


def quarantined_rows_sql(relation: str, rules: RowRules, tables: Sequence[str], limit: int | None = None) -> str:
    """Return SQL for the invalid rows in the source's order: position, reason code, declared columns."""
    same, join = "CAST(NULL AS BOOLEAN)", ""
    if DUPLICATES_TABLE in tables:
        pairs = (f"r.{sql.quoted_name(c)} IS NOT DISTINCT FROM f.{sql.quoted_name(c)}" for c in rules.schema.names)
        same = " AND ".join(pairs)
        on_first = f"f.{FILE_COLUMN} = w.{FIRST_FILE_COLUMN} AND f.{ROW_COLUMN} = w.{FIRST_ROW_COLUMN}"
        join = f"LEFT JOIN ({relation}) f ON {on_first}"
    return (
        f"SELECT r.{FILE_COLUMN}, r.{ROW_COLUMN}, w.{REASON_CODE_COLUMN}, "  # noqa: S608
        f"w.{FIRST_FILE_COLUMN}, w.{FIRST_ROW_COLUMN}, {same} AS {SAME_VALUES_COLUMN}, {rules.columns} "
        f"FROM ({relation}) r JOIN ({quarantine_reasons_sql(tables)}) w "
        f"ON r.{FILE_COLUMN} = w.{FILE_COLUMN} AND r.{ROW_COLUMN} = w.{ROW_COLUMN} {join} "
        f"ORDER BY r.{FILE_COLUMN}, r.{ROW_COLUMN}" + _limit_sql(limit)
    )


def unreadable_reasons_sql() -> str:
    """Return SQL for the 50 most frequent reasons of unreadable rows: `reason`, and its number of rows `n`."""
    rest = "GROUP BY reason ORDER BY n DESC, reason LIMIT 50"
    return sql.select_sql("reason, count(*) AS n", UNREADABLE_TABLE, rest)


def unreadable_rows_sql(limit: int | None = None) -> str:
    """Return SQL for the rows that the source could not read: its files are the table `UNREADABLE_TABLE`."""
    return f"SELECT position, reason, text FROM {UNREADABLE_TABLE}{_limit_sql(limit)}"  # noqa: S608


def _limit_sql(rows: int | None) -> str:
    return "" if rows is None else f" LIMIT {rows}"


def _unique_key_sql(rules: RowRules, rows: str = "r") -> str:
    """Return SQL for the unique key of the table `rows`: the entity's key, or a struct of several columns."""
    columns = [f"{rows}.{sql.quoted_name(column)}" for column in rules.unique or (rules.entity,)]
    moments = [pa.types.is_timestamp(rules.schema.field(column).type) for column in rules.unique or (rules.entity,)]
    keys = [c if moment else f"CAST({c} AS VARCHAR)" for c, moment in zip(columns, moments, strict=True)]
    return keys[0] if len(keys) == 1 else f"struct_pack({', '.join(f'k{i} := {key}' for i, key in enumerate(keys))})"


def _reason_code_sql(rules: RowRules, *, known: bool) -> str:
    """Return SQL for the index of the first reason that applies, in the order of `QUARANTINE_REASONS`."""
    key = sql.key_text_sql(rules.entity, "r")
    tests = {"null entity key": f"{key} IS NULL OR {key} = ''"}
    if others := [column for column in rules.unique if column != rules.entity]:
        tests["null key or time"] = " OR ".join(f"r.{sql.quoted_name(column)} IS NULL" for column in others)
    if rules.group:
        group = sql.key_text_sql(rules.group, "r")
        tests["null group"] = f"{group} IS NULL OR {group} = ''"
    if known:
        tests["key already in the lake"] = f"{_unique_key_sql(rules)} IN (SELECT key FROM {KNOWN_KEYS_TABLE})"  # noqa: S608
    if rules.target:
        target = f"r.{sql.quoted_name(rules.target)}"
        tests["null target"] = f"{target} IS NULL"
        if rules.classes is not None:
            tests["target outside the classes"] = f"{target} NOT IN ({', '.join(_class_literals(rules))})"
    floats = [f for f in rules.schema if pa.types.is_floating(f.type) and f.name not in rules.finite]
    if floats:
        tests["not finite"] = " OR ".join(f"NOT isfinite(r.{sql.quoted_name(f.name)})" for f in floats)
    ordered = (reason for reason in QUARANTINE_REASONS if reason in tests)
    return f"CASE {' '.join(f'WHEN {tests[r]} THEN {QUARANTINE_REASONS.index(r)}' for r in ordered)} END"


def _class_literals(rules: RowRules) -> list[str]:
    """Return the classes as SQL literals of the target's type."""
    found = rules.schema.field(str(rules.target)).type
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    classes = rules.classes or ()
    try:
        values = pa.array([str(c) for c in classes] if text else list(classes)).cast(found).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as cause:
        raise Refusal(f"the classes cannot be values of type {found}", value=list(classes)) from cause
    return [sql.text_literal(value) if text else repr(value) for value in values] or ["NULL"]


def staged_relation_sql(columns: Mapping[str, str] | None, files: Sequence[str]) -> str:
    """Return SQL for the rows: of our own staged files, or of Parquet files as they are with `columns` as SQL."""
    if columns is None:
        return f"SELECT * FROM {STAGED_TABLE}"  # noqa: S608
    chosen = ", ".join(f"{value} AS {sql.quoted_name(column)}" for column, value in columns.items())
    return (
        f"SELECT {chosen}, CAST(file_index AS INTEGER) AS {FILE_COLUMN}, file_row_number + 1 AS {ROW_COLUMN} "  # noqa: S608
        f"FROM {scan_sql(files)}"
    )
