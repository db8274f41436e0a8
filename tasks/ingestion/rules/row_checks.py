"""Which rows may enter the lake, as SQL over the files that hold them; nothing here is done row by row.

A row is known by its file and its number there. The SQL is DuckDB's; of engine-specific functions only `hash`
is used, and only to find rows whose keys *may* be equal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from tasks.ingestion.rules.quarantine import CODE, FILE, FIRST_FILE, FIRST_ROW, REASONS, ROW, SAME
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS

STAGED = "staged"
"""The name of the table of rows, in the SQL of a relation."""

LAKE, KNOWN, WRONG, HASHES, REPEATS = "lake", "known", "wrong", "hashes", "repeats"
"""The other tables: the lake's rows, the keys among them that come again, rows with a reason, hashes that more
than one key has, and rows with a duplicate key."""


_REPEATED = REASONS.index("duplicate key")
_NO_FIRST = f"CAST(NULL AS INTEGER) AS {FIRST_FILE}, CAST(NULL AS BIGINT) AS {FIRST_ROW}"


@dataclass(frozen=True)
class Rules:
    """What makes a row right.

    `schema` are the declared columns with their types, in order, entity first; `target` None when rows are to be
    scored; `unique` are the columns that together may occur once, none null: the entity alone when empty;
    `classes` None unless the target is one of them; `finite` names columns that hold no infinity, by
    their files' statistics.
    """

    schema: pa.Schema
    entity: str
    target: str | None
    classes: Sequence[object] | None = None
    finite: frozenset[str] = field(default_factory=frozenset)
    unique: tuple[str, ...] = ()

    @property
    def columns(self) -> str:
        """The declared columns of the relation `r`, in order, as SQL."""
        return ", ".join(f"r.{name_of(column)}" for column in self.schema.names)


def wrong_rows(relation: str, rules: Rules, *, known: bool) -> str:
    """Return SQL for the rows with a reason against them: place and code. Duplicate keys are found later."""
    code = _code(rules, known=known)
    return (
        f"SELECT {FILE}, {ROW}, {CODE} FROM (SELECT {FILE}, {ROW}, {code} AS {CODE} FROM ({relation}) r) judged "  # noqa: S608
        f"WHERE {CODE} IS NOT NULL"
    )


def known_keys(relation: str, rules: Rules) -> str:
    """Return SQL for the keys of the rows that the lake holds: its files are the table `LAKE`."""
    held = _identity(rules, "l")
    return f"SELECT DISTINCT {held} AS key FROM {LAKE} l SEMI JOIN ({relation}) r ON {held} = {_identity(rules)}"  # noqa: S608


def possible_repeats(relation: str, rules: Rules, *, known: bool) -> str:
    """Return SQL for the hashes that more than one good row's key has."""
    good = f"SELECT hash({_identity(rules)}) AS h FROM ({relation}) r WHERE {_code(rules, known=known)} IS NULL"  # noqa: S608
    return f"SELECT h FROM ({good}) GROUP BY h HAVING count(*) > 1"  # noqa: S608


def repeated_rows(relation: str, rules: Rules, *, known: bool) -> str:
    """Return SQL for the good rows whose key an earlier good row has: place, and place of the first."""
    return f"""
        SELECT {FILE}, {ROW}, {FIRST_FILE}, {FIRST_ROW} FROM (
            SELECT {FILE}, {ROW}, first_value({FILE}) OVER same AS {FIRST_FILE}, first_value({ROW}) OVER same AS {FIRST_ROW}
            FROM (SELECT {FILE}, {ROW}, {_identity(rules)} AS key FROM ({relation}) r
                  WHERE {_code(rules, known=known)} IS NULL AND hash({_identity(rules)}) IN (SELECT h FROM {HASHES})) good
            WINDOW same AS (PARTITION BY key ORDER BY {FILE}, {ROW})
        ) ranked WHERE ({FILE}, {ROW}) <> ({FIRST_FILE}, {FIRST_ROW})"""  # noqa: S608, E501


def reasons_against(tables: Sequence[str]) -> str:
    """Return SQL for all rows with a reason: place, code, and for duplicates the place of the row that is kept."""
    parts = {
        WRONG: f"SELECT {FILE}, {ROW}, {CODE}, {_NO_FIRST} FROM {WRONG}",  # noqa: S608
        REPEATS: f"SELECT {FILE}, {ROW}, {_REPEATED} AS {CODE}, {FIRST_FILE}, {FIRST_ROW} FROM {REPEATS}",  # noqa: S608
    }
    return " UNION ALL ".join(parts[table] for table in parts if table in tables)


def all_rows(relation: str, rules: Rules) -> str:
    """Return SQL for all rows in the source's order: the declared columns, the bucket, and the place.

    Those with a reason against them are left out while they stream: a join would change the order of the rows.
    """
    bucket = f"{_bucket(rules)} AS {BUCKET_COLUMN}"
    return f"SELECT {rules.columns}, {bucket}, r.{FILE}, r.{ROW} FROM ({relation}) r"  # noqa: S608


def places_of(tables: Sequence[str]) -> str:
    """Return SQL for where the rows with a reason against them are."""
    return f"SELECT {FILE}, {ROW} FROM ({reasons_against(tables)}) w"  # noqa: S608


def set_aside_rows(relation: str, rules: Rules, tables: Sequence[str], limit: int | None = None) -> str:
    """Return SQL for the rows with a reason, in the source's order: place, code, declared columns."""
    same, join = "CAST(NULL AS BOOLEAN)", ""
    if REPEATS in tables:
        pairs = (f"r.{name_of(c)} IS NOT DISTINCT FROM f.{name_of(c)}" for c in rules.schema.names)
        same = " AND ".join(pairs)
        join = f"LEFT JOIN ({relation}) f ON f.{FILE} = w.{FIRST_FILE} AND f.{ROW} = w.{FIRST_ROW}"
    return (
        f"SELECT r.{FILE}, r.{ROW}, w.{CODE}, w.{FIRST_FILE}, w.{FIRST_ROW}, {same} AS {SAME}, {rules.columns} "  # noqa: S608
        f"FROM ({relation}) r JOIN ({reasons_against(tables)}) w ON r.{FILE} = w.{FILE} AND r.{ROW} = w.{ROW} {join} "
        f"ORDER BY r.{FILE}, r.{ROW}" + limited(limit)
    )


def broken_rows(limit: int | None = None) -> str:
    """Return SQL for the rows that the source could not read: its files are the table `broken`."""
    return f"SELECT position, reason, text FROM broken{limited(limit)}"  # noqa: S608


def limited(rows: int | None) -> str:
    """Return SQL that ends an answer after so many rows; nothing when None."""
    return "" if rows is None else f" LIMIT {rows}"


def name_of(column: str) -> str:
    """Return a column's name as SQL."""
    return '"' + column.replace('"', '""') + '"'


def _key(rules: Rules) -> str:
    return f"CAST(r.{name_of(rules.entity)} AS VARCHAR)"


def _identity(rules: Rules, rows: str = "r") -> str:
    """What may occur once, of the table `rows`: the entity's key, or a struct of several columns."""
    columns = [f"{rows}.{name_of(column)}" for column in rules.unique or (rules.entity,)]
    moments = [pa.types.is_timestamp(rules.schema.field(column).type) for column in rules.unique or (rules.entity,)]
    keys = [c if moment else f"CAST({c} AS VARCHAR)" for c, moment in zip(columns, moments, strict=True)]
    return keys[0] if len(keys) == 1 else f"struct_pack({', '.join(f'k{i} := {key}' for i, key in enumerate(keys))})"


def _bucket(rules: Rules) -> str:
    return f"CAST(CAST('0x' || substr(md5({_key(rules)}), 1, 8) AS BIGINT) % {BUCKETS} AS INTEGER)"


def _code(rules: Rules, *, known: bool) -> str:
    """The first reason that applies, in the order of `REASONS`."""
    key = _key(rules)
    tests = {"null entity key": f"{key} IS NULL OR {key} = ''"}
    if others := [column for column in rules.unique if column != rules.entity]:
        tests["null key or time"] = " OR ".join(f"r.{name_of(column)} IS NULL" for column in others)
    if known:
        tests["key already in the lake"] = f"{_identity(rules)} IN (SELECT key FROM {KNOWN})"  # noqa: S608
    if rules.target:
        target = f"r.{name_of(rules.target)}"
        tests["null target"] = f"{target} IS NULL"
        if rules.classes is not None:
            tests["target outside the classes"] = f"{target} NOT IN ({', '.join(_classes(rules))})"
    odd = [f for f in rules.schema if pa.types.is_floating(f.type) and f.name not in rules.finite]
    if odd:
        tests["not finite"] = " OR ".join(f"NOT isfinite(r.{name_of(f.name)})" for f in odd)
    ordered = (reason for reason in REASONS if reason in tests)
    return f"CASE {' '.join(f'WHEN {tests[r]} THEN {REASONS.index(r)}' for r in ordered)} END"


def _classes(rules: Rules) -> list[str]:
    """The classes as SQL literals of the target's type."""
    found = rules.schema.field(str(rules.target)).type
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    classes = rules.classes or ()
    try:
        values = pa.array([str(c) for c in classes] if text else list(classes)).cast(found).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as cause:
        raise Refusal(f"the classes cannot be values of type {found}", value=list(classes)) from cause
    return [literal(value) if text else repr(value) for value in values] or ["NULL"]


def literal(text: str) -> str:
    """Return a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def relation_of(columns: Mapping[str, str] | None, files: Sequence[str]) -> str:
    """Return SQL for the rows: of our own staged files, or of Parquet files as they are with `columns` as SQL."""
    if columns is None:
        return f"SELECT * FROM {STAGED}"  # noqa: S608
    chosen = ", ".join(f"{sql} AS {name_of(column)}" for column, sql in columns.items())
    paths = ", ".join(map(literal, files))
    return (
        f"SELECT {chosen}, CAST(file_index AS INTEGER) AS {FILE}, file_row_number + 1 AS {ROW} "  # noqa: S608
        f"FROM read_parquet([{paths}])"
    )
