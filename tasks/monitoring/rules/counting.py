"""SQL that counts rows by window, column and bin, and the parsing of its result."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.monitoring.rules.columns import MAX_CATEGORY_VALUES, BinCounts, MonitoredColumn, WindowCounts
from tasks.shared.rules import sql

_NULL, _NOT_FINITE = -1, -2
_LARGEST = "1.7976931348623157e308"
_UNSEEN_SHOWN = 5


def counts_sql(columns: Sequence[MonitoredColumn], source: str, window: str = "0") -> str:
    """Return the query of all columns' counts, with the columns feature, win, bin, found, total and squares.

    Args:
        columns: the columns to count; at least one.
        source: the table in SQL, with its conditions: "rows" or "(SELECT …)".
        window: SQL for the index of a row's window.
    """
    return " UNION ALL ".join(_column_counts_sql(column, source, window) for column in columns)


def read_counts(
    columns: Sequence[MonitoredColumn], answer: Iterable[Mapping[str, Any]]
) -> dict[int, dict[str, BinCounts]]:
    """Return the counts by window and column from the result rows of `counts_sql`."""
    windows: dict[int, dict[str, dict[int, tuple[int, float, float]]]] = {}
    for row in answer:
        by_bin = windows.setdefault(int(row["win"]), {}).setdefault(row["feature"], {})
        by_bin[int(row["bin"])] = (int(row["found"]), float(row["total"] or 0), float(row["squares"] or 0))
    return {
        number: {column.name: _counts(column, window.get(column.name, {})) for column in columns}
        for number, window in sorted(windows.items())
    }


def values_sql(name: str, source: str, excluded: Sequence[str] = (), limit: int = MAX_CATEGORY_VALUES + 1) -> str:
    """Return the query of a category's values with their numbers of rows, the most frequent first."""
    value = f"CAST({sql.quoted_name(name)} AS VARCHAR)"
    known = f" AND {value} NOT IN ({', '.join(map(_text, excluded))})" if excluded else ""
    return sql.select_sql(
        f"{value} AS value, count(*) AS found",
        source,
        f"WHERE {sql.quoted_name(name)} IS NOT NULL{known}",
        "GROUP BY 1",
        f"ORDER BY 2 DESC, 1 LIMIT {limit}",
    )


def unseen_sql(column: MonitoredColumn, source: str) -> str:
    """Return the query of examples of unseen values."""
    return values_sql(column.name, source, column.values, _UNSEEN_SHOWN)


def with_unseen(window: WindowCounts, name: str, values: Sequence[tuple[str, int]]) -> dict[str, BinCounts]:
    """Return the window with examples of unseen values added to one column."""
    counts = window[name]
    completed = BinCounts(
        counts.bins, counts.nulls, counts.not_finite, counts.centred_sum, counts.centred_square_sum, tuple(values)
    )
    return {**window, name: completed}


def _column_counts_sql(column: MonitoredColumn, source: str, window: str) -> str:
    known = sql.quoted_name(column.name)
    if column.kind == "number":
        value = f"CAST({known} AS DOUBLE)"
        cut = (
            " + ".join(f"CASE WHEN {value} >= {sql.value_literal(edge)} THEN 1 ELSE 0 END" for edge in column.edges)
            or "0"
        )
        place = (
            f"CASE WHEN {known} IS NULL THEN {_NULL} "
            f"WHEN NOT ({value} BETWEEN -{_LARGEST} AND {_LARGEST}) THEN {_NOT_FINITE} ELSE {cut} END"
        )
        apart = f"({value} - {sql.value_literal(column.centre)})"
        sums = f"sum({apart}) AS total, sum({apart} * {apart}) AS squares"
    else:
        value = f"CAST({known} AS VARCHAR)"
        cases = " ".join(f"WHEN {_text(each)} THEN {at}" for at, each in enumerate(column.values))
        chosen = f"CASE {value} {cases} ELSE {len(column.values)} END" if cases else "0"
        place = f"CASE WHEN {known} IS NULL THEN {_NULL} ELSE {chosen} END"
        sums = "CAST(0 AS DOUBLE) AS total, CAST(0 AS DOUBLE) AS squares"
    columns = f"{_text(column.name)} AS feature, {window} AS win, {place} AS bin, count(*) AS found, {sums}"
    return sql.select_sql(columns, source, "GROUP BY 1, 2, 3")


def _counts(column: MonitoredColumn, by_bin: Mapping[int, tuple[int, float, float]]) -> BinCounts:
    inside = {at: found for at, found in by_bin.items() if at >= 0}
    return BinCounts(
        bins=tuple(inside.get(at, (0, 0.0, 0.0))[0] for at in range(column.bins)),
        nulls=by_bin.get(_NULL, (0,))[0],
        not_finite=by_bin.get(_NOT_FINITE, (0,))[0],
        centred_sum=sum(found[1] for found in inside.values()),
        centred_square_sum=sum(found[2] for found in inside.values()),
    )


def _text(value: str) -> str:
    return sql.text_literal(value.replace("\x00", ""))
