"""What is asked of Parquet files for a suite: aggregates together, the rest once each, and nothing twice."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from tasks.shared.rules import sql
from tasks.validation.rules.parquet_rows import ParquetRows
from tasks.validation.rules.sql_plan import MAX_VALUES_LISTED, ROW_COUNT_SQL, as_count


class ParquetQueryResults:
    """The answers of one check.

    Args:
        rows: the files.
        aggregates: what will be asked by `value`, so that one pass computes all of it.
    """

    def __init__(self, rows: ParquetRows, aggregates: Iterable[str]) -> None:
        self._rows = rows
        self._wanted = tuple(dict.fromkeys(aggregates))
        self._pass = cache(self._computed)
        self._different, self._shared = cache(self._count_different), cache(self._count_shared)

    def value(self, aggregate: str) -> object:
        """Return an aggregate."""
        return self._pass()[aggregate]

    def count_distinct(self, columns: tuple[str, ...], domain: str) -> int:
        """Return how many different values there are in the rows of the domain."""
        return self._different(columns, domain)

    def count_repeated_rows(self, columns: tuple[str, ...], domain: str, rows: int) -> int:
        """Return how many rows of the domain, which has so many, share their value with another.

        None do when there are as many values as rows: that is cheaper to find out than how often each is there.
        """
        return 0 if self._different(columns, domain) == rows else self._shared(columns, domain)

    def values_at_ranks(self, column: str, ranks: Sequence[int]) -> list[object]:
        """Return the values at these ranks (from 0) among the column's values in ascending order."""
        name = sql.quoted_name(column)
        count = as_count(self.value(f"count({name})"))
        shares = ", ".join(sql.value_literal((rank + 0.5) / count) for rank in ranks)
        asked = sql.select_sql(f"quantile_disc({name}, [{shares}]) AS q", self._rows.source((column,)))
        return list(self._rows.query(asked).to_pylist()[0]["q"])

    def columns(self) -> list[str]:
        """Return all columns of the table."""
        return list(self._rows.kinds)

    def as_pandas_value(self, column: str, value: Any) -> object:
        """Return a value of the column as pandas holds it: a whole number as a float beside a null."""
        if value is None or self._rows.family(column) != "whole":
            return value
        full = self.value(f"count({sql.quoted_name(column)})") == self.value(ROW_COUNT_SQL)
        return as_count(value) if full else float(value)

    def distinct_values(self, column: str, condition: str) -> list[object]:
        """Return up to 20 different values for which the condition holds, ascending."""
        name = sql.quoted_name(column)
        rest = f"WHERE {condition} ORDER BY {name} LIMIT {MAX_VALUES_LISTED}"
        found = self._rows.query(sql.select_sql(f"DISTINCT {name}", self._rows.source((column,)), rest))
        return [self.as_pandas_value(column, each) for each in found.column(0).to_pylist()]

    def _computed(self) -> dict[str, Any]:
        """Compute all aggregates in one pass; when one fails, each alone, and that one fails when it is asked."""
        try:
            return self._rows.values(self._wanted)
        except Exception:  # of which of them it is, the engine does not say
            return _SeparateAggregates(self._rows)

    def _count_different(self, columns: tuple[str, ...], domain: str) -> int:
        values = sql.select_sql(f"DISTINCT {sql.quoted_names(columns)}", self._rows.source(columns), f"WHERE {domain}")
        return self._count("count(*)", values)

    def _count_shared(self, columns: tuple[str, ...], domain: str) -> int:
        rest = f"WHERE {domain} GROUP BY {sql.quoted_names(columns)} HAVING count(*) > 1"
        return self._count("sum(n)", sql.select_sql("count(*) AS n", self._rows.source(columns), rest))

    def _count(self, what: str, query: str) -> int:
        (row,) = self._rows.query(sql.select_sql(f"{what} AS c", f"({query}) AS g")).to_pylist()
        return as_count(row["c"] or 0)


class _SeparateAggregates(dict[str, Any]):
    """Aggregates that are computed one by one, when they are asked."""

    def __init__(self, rows: ParquetRows) -> None:
        super().__init__()
        self._rows = rows

    def __missing__(self, aggregate: str) -> Any:
        self[aggregate] = self._rows.values([aggregate])[aggregate]
        return self[aggregate]
