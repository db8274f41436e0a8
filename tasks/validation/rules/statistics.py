"""Comparison of a tier with the data it was drawn from: each column's mean, shares and nulls, by SQL.

A tier is a sample of entities. A difference is given in standard errors of a sample of that many entities without
replacement: several rows of one entity count like one row. It is marked as significant when chance alone gives a
difference this large in fewer than one of a hundred tiers, over all the figures that are compared.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from runtime.foreign_text import Markdown, markdown_table, one_line
from tasks.shared.rules import sql
from tasks.validation.rules.parquet_rows import ParquetRows
from tasks.validation.rules.report import MAX_CELL_LENGTH

FALSE_ALARM_RATE = 0.01
"""The share of randomly drawn tiers in which any figure may be marked."""

TOP_CATEGORY_VALUES = 3
"""How many of a category's most frequent values are compared by their shares."""

MAX_FIGURES_SHOWN = 15
"""How many figures are shown besides those of the target and those marked."""


@dataclass(frozen=True)
class ColumnStatistic:
    """One figure of a table: the mean of an SQL expression over its rows.

    `statistic` is `mean`, `null` or `share of X`; `value` and `deviation` (of the rows, not of the mean) are None
    when nothing could be computed.
    """

    column: str
    statistic: str
    expression: str
    value: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class TableStatistics:
    """The figures of a table, and its numbers of rows and entities."""

    rows: int
    entities: int
    figures: tuple[ColumnStatistic, ...]


@dataclass(frozen=True)
class StatisticDifference:
    """A figure in the data and in its tier, and their difference in standard errors (None when unknown)."""

    column: str
    statistic: str
    parent: float | None
    tier: float | None
    standard_errors: float | None
    is_significant: bool


def parent_statistics(rows: ParquetRows, entity: str, kinds: Mapping[str, str]) -> TableStatistics:
    """Compute the figures of the data that tiers are drawn from.

    `kinds` are the columns to compare with their kinds (`number`, `flag` or `category`), the target first. A column
    that the rows do not have, such as a joined one, is left out.
    """
    requested: list[ColumnStatistic] = []
    for column, kind in kinds.items():
        if column in rows.kinds:
            requested += _requested_statistics(rows, column, kind)
    return _compute_statistics(rows, entity, requested)


def tier_statistics(rows: ParquetRows, entity: str, parent: TableStatistics) -> TableStatistics:
    """Compute the same figures of a tier."""
    return _compute_statistics(rows, entity, [each for each in parent.figures if each.column in rows.kinds])


def statistic_differences(parent: TableStatistics, tier: TableStatistics) -> tuple[StatisticDifference, ...]:
    """Compare each figure of the tier with that of its parent; one that cannot be compared is significant."""
    of_tier = {(each.column, each.statistic): each for each in tier.figures}
    limit = _standard_error_limit(len(parent.figures))
    share = min(tier.entities / parent.entities, 1.0) if parent.entities else 0.0
    differences = []
    for each in parent.figures:
        figure = of_tier.get((each.column, each.statistic))
        value = figure.value if figure else None
        errors = _standard_errors(each, value, tier.entities, share)
        differences.append(
            StatisticDifference(
                each.column, each.statistic, each.value, value, errors, errors is None or abs(errors) > limit
            )
        )
    return tuple(differences)


def tier_comparison_markdown(parent: TableStatistics, tier: TableStatistics, target: str) -> Markdown:
    """Return the comparison as Markdown: the target, the significant differences, then the largest others."""
    differences = statistic_differences(parent, tier)
    rest = sorted(
        (d for d in differences if not d.is_significant and d.column != target),
        key=lambda d: -abs(d.standard_errors or 0.0),
    )
    first = [d for d in differences if d.column == target] + [
        d for d in differences if d.is_significant and d.column != target
    ]
    marked = sum(each.is_significant for each in differences)
    verdict = (
        f"⚠️ {marked} of {len(differences)} figures differ" if marked else f"none of {len(differences)} figures differs"
    )
    head = ("", "column", "figure", "all data", "tier", "difference, standard errors")
    lines = [
        Markdown("## The tier against the one that holds it"),
        "",
        f"{tier.rows:,} of {parent.rows:,} rows, {tier.entities:,} of {parent.entities:,} entities: {verdict} "
        f"by more than chance gives ({_standard_error_limit(len(differences)):.1f} standard errors).",
        "",
        markdown_table(head, map(_line, [*first, *rest[:MAX_FIGURES_SHOWN]])),
    ]
    if left := len(rest) - MAX_FIGURES_SHOWN:
        lines += ["", f"{left} smaller differences are not shown."] if left > 0 else []
    return Markdown("\n").join([*lines, ""])


def _requested_statistics(rows: ParquetRows, column: str, kind: str) -> Iterable[ColumnStatistic]:
    name = sql.quoted_name(column)
    yield ColumnStatistic(column, "null", f"CASE WHEN {name} IS NULL THEN 1e0 ELSE 0e0 END")
    if kind in ("number", "flag") and rows.family(column) in ("whole", "double"):
        yield ColumnStatistic(column, "mean", f"CAST({name} AS DOUBLE)")
        return
    for value in _frequent(rows, column):
        same = f"CAST({name} AS VARCHAR) = {sql.value_literal(value)}"
        yield ColumnStatistic(column, f"share of {value}", f"CASE WHEN {same} THEN 1e0 ELSE 0e0 END")


def _frequent(rows: ParquetRows, column: str) -> list[str]:
    name = sql.quoted_name(column)
    rest = f"WHERE {name} IS NOT NULL GROUP BY v ORDER BY count(*) DESC, v LIMIT {TOP_CATEGORY_VALUES}"
    found = rows.query(sql.select_sql(f"CAST({name} AS VARCHAR) AS v", rows.source((column,)), rest))
    return [str(each) for each in found.column("v").to_pylist() if "\x00" not in str(each)]


def _compute_statistics(rows: ParquetRows, entity: str, requested: Iterable[ColumnStatistic]) -> TableStatistics:
    statistics = list(requested)
    parts = [f"{function}({each.expression})" for each in statistics for function in ("avg", "stddev_pop")]
    distinct = f"count(DISTINCT {sql.quoted_name(entity)})"
    found = rows.values(["count(*)", distinct, *parts])
    figures = tuple(
        replace(
            each,
            value=_finite(found[f"avg({each.expression})"]),
            deviation=_finite(found[f"stddev_pop({each.expression})"]),
        )
        for each in statistics
    )
    return TableStatistics(int(found["count(*)"]), int(found[distinct]), figures)


def _finite(value: object) -> float | None:
    number = None if value is None else float(str(value))
    return number if number is not None and math.isfinite(number) else None


def _standard_errors(parent: ColumnStatistic, value: float | None, entities: int, share: float) -> float | None:
    if parent.value is None or parent.deviation is None or value is None or entities < 1:
        return None
    difference = value - parent.value
    error = parent.deviation / math.sqrt(entities) * math.sqrt(1 - share)
    if abs(difference) <= 1e-9 * max(abs(parent.value), parent.deviation, 1e-300):
        return 0.0  # rounding: the engine adds in any order
    return difference / error if error else math.copysign(math.inf, difference)


def _standard_error_limit(figures: int) -> float:
    return NormalDist().inv_cdf(1 - FALSE_ALARM_RATE / (2 * max(figures, 1)))


def _line(each: StatisticDifference) -> tuple[str, ...]:
    errors = "not measured" if each.standard_errors is None else f"{each.standard_errors:+.1f}"
    shown = _shown(each, each.parent), _shown(each, each.tier)
    return "⚠️" if each.is_significant else "", each.column, one_line(each.statistic, MAX_CELL_LENGTH), *shown, errors


def _shown(each: StatisticDifference, value: float | None) -> str:
    if value is None:
        return "none"
    return f"{value:.4g}" if each.statistic == "mean" else f"{100 * value:.3g} %"
