"""What is asked of Parquet files for a suite: aggregates together, the rest once each, and nothing twice."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from tasks.logic import sql
from tasks.logic.expect.parquet_rows import ParquetRows
from tasks.logic.expect.sql_plan import LISTED, ROWS, whole

_SIZES = "count(*) AS d, sum(n) FILTER (WHERE n > 1) AS r"


class ParquetAnswers:
    """The answers of one check.

    Args:
        rows: the files.
        aggregates: what will be asked by `value`, so that one pass computes all of it.
    """

    def __init__(self, rows: ParquetRows, aggregates: Iterable[str]) -> None:
        self._rows = rows
        self._wanted = tuple(dict.fromkeys(aggregates))
        self._groups, self._pass = cache(self._counted), cache(self._computed)

    def value(self, aggregate: str) -> object:
        """Return an aggregate."""
        return self._pass()[aggregate]

    def groups(self, columns: tuple[str, ...], domain: str) -> tuple[int, int]:
        """Return how many different values there are in the domain, and how many rows share theirs with another."""
        return self._groups(columns, domain)

    def ranked(self, column: str, ranks: Sequence[int]) -> list[object]:
        """Return the values at these ranks (from 0) among the column's values in ascending order."""
        name = sql.name(column)
        count = whole(self.value(f"count({name})"))
        shares = ", ".join(sql.literal((rank + 0.5) / count) for rank in ranks)
        asked = sql.select(f"quantile_disc({name}, [{shares}]) AS q", self._rows.source((column,)))
        return list(self._rows.query(asked).to_pylist()[0]["q"])

    def columns(self) -> list[str]:
        """Return all columns of the table."""
        return list(self._rows.kinds)

    def seen(self, column: str, value: Any) -> object:
        """Return a value of the column as pandas holds it: a whole number as a float beside a null."""
        if value is None or self._rows.family(column) != "whole":
            return value
        full = self.value(f"count({sql.name(column)})") == self.value(ROWS)
        return whole(value) if full else float(value)

    def listed(self, column: str, condition: str) -> list[object]:
        """Return up to 20 different values for which the condition holds, ascending."""
        name = sql.name(column)
        rest = f"WHERE {condition} ORDER BY {name} LIMIT {LISTED}"
        found = self._rows.query(sql.select(f"DISTINCT {name}", self._rows.source((column,)), rest))
        return [self.seen(column, each) for each in found.column(0).to_pylist()]

    def _computed(self) -> dict[str, Any]:
        """Compute all aggregates in one pass; when one fails, each alone, and that one fails when it is asked."""
        try:
            return self._rows.values(self._wanted)
        except Exception:  # of which of them it is, the engine does not say
            return _Alone(self._rows)

    def _counted(self, columns: tuple[str, ...], domain: str) -> tuple[int, int]:
        rest = f"WHERE {domain} GROUP BY {sql.names(columns)}"
        groups = sql.select("count(*) AS n", self._rows.source(columns), rest)
        (row,) = self._rows.query(sql.select(_SIZES, f"({groups}) AS g")).to_pylist()
        return whole(row["d"]), whole(row["r"] or 0)


class _Alone(dict[str, Any]):
    """Aggregates that are computed one by one, when they are asked."""

    def __init__(self, rows: ParquetRows) -> None:
        super().__init__()
        self._rows = rows

    def __missing__(self, aggregate: str) -> Any:
        self[aggregate] = self._rows.values([aggregate])[aggregate]
        return self[aggregate]
