"""Plans of expectations in SQL: the aggregates to compute, their results, and the library's metrics from these."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from tasks.shared.rules import sql
from tasks.validation.rules.parquet_rows import ColumnFamily, ParquetRows
from tasks.validation.rules.suites import Expectation

ROW_COUNT_SQL = "count(*)"
"""The aggregate that counts the rows."""

MAX_VALUES_LISTED = 20
"""The largest number of different values that are listed."""


class QueryResults:
    """The query results of one validation, each computed once. One pass over the rows computes all `aggregates`."""

    def __init__(self, rows: ParquetRows, aggregates: Iterable[str]) -> None:
        self._rows = rows
        self._aggregates = tuple(dict.fromkeys(aggregates))
        self._pass = cache(self._computed)
        self._different, self._shared = cache(self._count_different), cache(self._count_shared)

    def value(self, aggregate: str) -> object:
        """Return the value of an aggregate."""
        return self._pass()[aggregate]

    def count_distinct(self, columns: tuple[str, ...], domain: str) -> int:
        """Return how many different values there are in the rows of the domain."""
        return self._different(columns, domain)

    def count_repeated_rows(self, columns: tuple[str, ...], domain: str, rows: int) -> int:
        """Return how many of the `rows` rows of the domain have the same values as another row.

        0 when there are as many different values as rows: that is cheaper to compute than each value's count.
        """
        return 0 if self._different(columns, domain) == rows else self._shared(columns, domain)

    def values_at_ranks(self, column: str, ranks: Sequence[int]) -> list[object]:
        """Return the values at these ranks (from 0) among the column's values in ascending order."""
        name = sql.quoted_name(column)
        count = as_count(self.value(f"count({name})"))
        shares = ", ".join(sql.value_literal((rank + 0.5) / count) for rank in ranks)
        query = sql.select_sql(f"quantile_disc({name}, [{shares}]) AS q", self._rows.source((column,)))
        return list(self._rows.query(query).to_pylist()[0]["q"])

    def columns(self) -> list[str]:
        """Return all columns of the table."""
        return list(self._rows.kinds)

    def as_pandas_value(self, column: str, value: Any) -> object:
        """Return a value of the column as pandas holds it: a whole number as a float beside a null."""
        if value is None or self._rows.family(column) != "whole":
            return value
        has_no_null = self.value(f"count({sql.quoted_name(column)})") == self.value(ROW_COUNT_SQL)
        return as_count(value) if has_no_null else float(value)

    def distinct_values(self, column: str, condition: str) -> list[object]:
        """Return up to 20 different values for which the condition holds, ascending."""
        name = sql.quoted_name(column)
        rest = f"WHERE {condition} ORDER BY {name} LIMIT {MAX_VALUES_LISTED}"
        found = self._rows.query(sql.select_sql(f"DISTINCT {name}", self._rows.source((column,)), rest))
        return [self.as_pandas_value(column, each) for each in found.column(0).to_pylist()]

    def _computed(self) -> dict[str, Any]:
        """Compute all aggregates in one pass. When that fails, each is computed alone on its first use."""
        try:
            return self._rows.values(self._aggregates)
        except Exception:  # the engine does not say which aggregate failed
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
    """Aggregates that are computed one by one, on first use."""

    def __init__(self, rows: ParquetRows) -> None:
        super().__init__()
        self._rows = rows

    def __missing__(self, aggregate: str) -> Any:
        self[aggregate] = self._rows.values([aggregate])[aggregate]
        return self[aggregate]


@dataclass(frozen=True)
class SqlPlan:
    """How the metrics of one expectation are computed.

    Args:
        aggregates: SQL aggregates that one pass over the rows computes.
        metrics: the library's metrics by name, from the query results.
        violation_condition: SQL condition of a row that breaks the expectation; "" when no single row does.
        distinct: columns of which no two rows may have the same values, within the rows of `violation_condition`.
    """

    aggregates: tuple[str, ...]
    metrics: Callable[[QueryResults], Mapping[str, object]]
    violation_condition: str = ""
    distinct: tuple[str, ...] = ()


PlanFactory = Callable[[Expectation, set[ColumnFamily]], SqlPlan | None]
"""Makes the plan of an expectation on columns of these families; None when SQL may differ from pandas."""


def count_where_sql(condition: str) -> str:
    """Return the aggregate that counts the rows for which the condition holds; faster than a FILTER on DuckDB."""
    return f"count(CASE WHEN {condition} THEN 1 END)"


def as_count(value: object) -> int:
    """Return a count from an engine's result."""
    return int(str(value))


def as_number(value: object) -> float:
    """Return a number from an engine's result; whole numbers stay int."""
    return value if isinstance(value, int | float) else float(str(value))
