"""How the tables of a model become the rows that it reads, as SQL for any engine.

Each row of the main table gives one row: from each further table it takes the one row whose keys are equal
or, where that table has a time, the latest such row that is not after its own time. Keys are compared as
text; null keys and null times match nothing. Of rows with the same keys and time, the one whose columns are
greatest counts, compared in the order of `model.yaml`, any value before null. `join_rules` says what is refused.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.shared.rules import sql
from tasks.shared.rules.model.data import MAIN_TABLE, DataSpec, TableSpec
from tasks.shared.rules.rows.buckets import BUCKET_COLUMN, BUCKETS


def sql_table_names(data: DataSpec) -> dict[str, str]:
    """Return the name in SQL of each table: "main", and "table_0", "table_1" for the further ones."""
    return {MAIN_TABLE: "main", **{table: f"table_{place}" for place, table in enumerate(data.tables)}}


def is_tier_sampled(data: DataSpec, table: str) -> bool:
    """Return whether a tier reads only its own entities of the table: when the entity is among its keys.

    With groups it is never so: the lake's buckets are those of the entity, and tiers are drawn by the group.
    """
    return not data.group and (table == MAIN_TABLE or data.entity in data.tables[table].keys)


def model_rows_sql(data: DataSpec, within: str = "", *, bound: int = BUCKETS) -> str:
    """Return the SELECT of the rows that the model reads, in no order, with the columns `data.row_columns`.

    `within` is a condition on the main table's rows, "" for all of them. Sampled further tables are read below the
    bucket `bound`.
    """
    if not data.tables:
        return select_where(map(sql.quoted_name, data.row_columns), "main", within)
    joins = [_Join(f"table_{place}", table, data, bound) for place, table in enumerate(data.tables.values())]
    mains = data.main_columns
    parts = [f"asked AS ({select_where(map(sql.quoted_name, mains), 'main', within)})"]
    parts += [part for join in joins for part in join.parts()]
    values = {column: f"asked.{sql.quoted_name(column)}" for column in mains}
    values |= {feature: value for join in joins for feature, value in join.values()}
    chosen = [f"{values[column]} AS {sql.quoted_name(column)}" for column in data.row_columns]
    rows = select_where(chosen, " ".join(["asked", *(clause for join in joins for clause in join.clauses())]))
    return f"WITH {', '.join(parts)} {rows}"


def row_order_sql(data: DataSpec, *, stored_bucket: bool = True) -> str:
    """Return the ORDER BY of the rows of `model_rows_sql`: bucket, entity as text, time, then every other column.

    It leaves nothing open, whichever files and engine the rows come from: rows that are equal in all of it are
    equal. The bucket comes first because it is chance: the rows of any stretch are a sample, whatever keys mean.
    `stored_bucket` says whether the rows have the lake's column of it; those of a tier do not.
    """
    computed = data.tables or data.group or not stored_bucket
    bucket = sql.bucket_sql(data.entity, 1) if computed else sql.quoted_name(BUCKET_COLUMN)
    others = (sql.quoted_name(column) for column in data.row_columns if column != data.entity)
    return "ORDER BY " + ", ".join(f"{value} NULLS FIRST" for value in [bucket, sql.key_text_sql(data.entity), *others])


def select_where(values: Iterable[str], source: str, condition: str = "") -> str:
    """Return SELECT values FROM source, WHERE the condition when there is one."""
    return f"SELECT {', '.join(values)} FROM {source}" + (f" WHERE {condition}" if condition else "")  # noqa: S608


@dataclass(frozen=True)
class _Join:
    """The join of one further table. In its parts the keys are named k0, k1, ..., the columns c0, c1, ..."""

    table_name: str
    table: TableSpec
    data: DataSpec
    bound: int

    @property
    def keys(self) -> list[str]:
        """The keys' names within the parts."""
        return [f"k{place}" for place in range(len(self.table.keys))]

    def values(self) -> Iterator[tuple[str, str]]:
        """Yield each feature with the expression that reads it."""
        for place, feature in enumerate(self.table.columns):
            yield feature, f"{self.table_name}_rows.c{place}"

    def parts(self) -> list[str]:
        """Return the named parts: the rows, each key and time once, and the times for which a row is needed."""
        rows = f"{self.table_name}_rows"
        if not self.table.time:
            return [f"{rows} AS ({self._joinable_rows_sql()})"]
        greatest = ", ".join(f"c{place} DESC NULLS LAST" for place in range(len(self.table.columns)))
        place = f"row_number() OVER (PARTITION BY {', '.join([*self.keys, 'since'])} ORDER BY {greatest}) AS place"
        once = select_where(["*"], f"({select_where(['*', place], f'({self._joinable_rows_sql()})')})", "place = 1")
        return [f"{rows} AS ({once})", f"{self.table_name}_times AS ({self._times()})"]

    def clauses(self) -> list[str]:
        """Return the JOIN clauses, from the main table's rows to the row that each takes."""
        rows, times = f"{self.table_name}_rows", f"{self.table_name}_times"
        mains = [sql.key_text_sql(column, "asked") for column in self.table.keys]
        if not self.table.time:
            return [_left_join(rows, zip(self.keys, mains, strict=True))]
        at = f"asked.{sql.quoted_name(self.data.time or '')}"
        seen = [(name, f"{times}.{name}") for name in [*self.keys, "since"]]
        return [_left_join(times, [*zip(self.keys, mains, strict=True), ("happened", at)]), _left_join(rows, seen)]

    def _joinable_rows_sql(self) -> str:
        """Return the table's rows that can match: those with all keys and a time, below the bound."""
        own = [*self.table.keys.values(), *([self.table.time] if self.table.time else [])]
        known = [f"{sql.quoted_name(column)} IS NOT NULL" for column in own]
        if self.data.entity in self.table.keys and self.bound < BUCKETS and not self.data.group:
            known.append(f"{sql.quoted_name(BUCKET_COLUMN)} < {self.bound}")
        keys = zip(map(sql.key_text_sql, self.table.keys.values()), self.keys, strict=True)
        columns = [f"{sql.quoted_name(column)} AS c{place}" for place, column in enumerate(self.table.columns.values())]
        since = [f"{sql.quoted_name(self.table.time)} AS since"] if self.table.time else []
        return select_where(
            [*(f"{key} AS {name}" for key, name in keys), *since, *columns], self.table_name, " AND ".join(known)
        )

    def _times(self) -> str:
        """Return for each key and time asked for, `happened`, the latest time, `since`, that is not after it.

        A running maximum over the times of both tables: one sort, however long the history of a key is.
        """
        at = self.data.time or ""
        keys = [
            f"{sql.key_text_sql(column)} AS {name}" for column, name in zip(self.table.keys, self.keys, strict=True)
        ]
        known = " AND ".join(f"{sql.quoted_name(column)} IS NOT NULL" for column in [*self.table.keys, at])
        asked = select_where([*keys, f"{sql.quoted_name(at)} AS happened", "NULL AS since"], "asked", known)
        both = f"SELECT DISTINCT{asked[6:]} UNION ALL " + select_where(
            [*self.keys, "since AS happened", "since"], f"{self.table_name}_rows"
        )
        window = (
            f"PARTITION BY {', '.join(self.keys)} ORDER BY happened RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW"
        )
        latest = [*self.keys, "happened", "since IS NULL AS is_asked", f"max(since) OVER ({window}) AS since"]
        return select_where([*self.keys, "happened", "since"], f"({select_where(latest, f'({both})')})", "is_asked")


def _left_join(part: str, pairs: Iterable[tuple[str, str]]) -> str:
    return f"LEFT JOIN {part} ON " + " AND ".join(f"{part}.{column} = {other}" for column, other in pairs)
