"""How SQL computes an expectation: the aggregates it asks for, and what the library is told of the answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.validation.rules.parquet_rows import ColumnFamily
from tasks.validation.rules.suites import Expectation

ROW_COUNT_SQL = "count(*)"
"""The aggregate that counts the rows."""

MAX_VALUES_LISTED = 20
"""How many different values are listed at most."""


class QueryResults(Protocol):
    """What was computed over the rows; asked once, each answer is kept."""

    def value(self, aggregate: str) -> object:
        """Return an aggregate of the one pass."""

    def count_distinct(self, columns: tuple[str, ...], domain: str) -> int:
        """Return how many different values there are in the rows of the domain."""

    def count_repeated_rows(self, columns: tuple[str, ...], domain: str, rows: int) -> int:
        """Return in how many rows of the domain, which has so many, is a value that another row has as well."""

    def values_at_ranks(self, column: str, ranks: Sequence[int]) -> list[object]:
        """Return the values at these ranks (from 0) among the column's values in ascending order."""

    def distinct_values(self, column: str, condition: str) -> list[object]:
        """Return up to 20 different values for which the condition holds, ascending."""

    def as_pandas_value(self, column: str, value: object) -> object:
        """Return a value of the column as pandas holds it: a whole number as a float beside a null."""

    def columns(self) -> list[str]:
        """Return all columns of the table."""


@dataclass(frozen=True)
class SqlPlan:
    """How the metrics of one expectation are computed.

    Args:
        aggregates: SQL aggregates that one pass over the rows computes.
        metrics: the library's metrics by name, from the answers.
        violation_condition: SQL condition of a row that breaks the expectation; "" where rows do not.
        distinct: columns of which no two rows may have the same values, within the rows of `violation_condition`.
    """

    aggregates: tuple[str, ...]
    metrics: Callable[[QueryResults], Mapping[str, object]]
    violation_condition: str = ""
    distinct: tuple[str, ...] = ()


PlanFactory = Callable[[Expectation, set[ColumnFamily]], SqlPlan | None]
"""Makes the plan of an expectation on columns of these kinds, or None where SQL may mean something else."""


def count_where_sql(condition: str) -> str:
    """Return the aggregate that counts the rows for which the condition holds; faster than a FILTER on DuckDB."""
    return f"count(CASE WHEN {condition} THEN 1 END)"


def as_count(value: object) -> int:
    """Return a count that an engine answered."""
    return int(str(value))


def as_number(value: object) -> float:
    """Return a number that an engine answered, whole ones as int."""
    return value if isinstance(value, int | float) else float(str(value))
