"""A first suite of expectations, proposed from the data, for people to edit.

Bounds get a margin, because next month's rows will differ; a comment beside each bound shows the observed value.
The proposal describes the data as it is, which may be wrong: a broken export gives a broken suite.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from tasks.ingestion.rules.placeholders import find_placeholders, sample_sql
from tasks.shared.rules import sql
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectation_kinds import DISTRIBUTION_ROWS, is_about_distribution
from tasks.validation.rules.parquet_rows import TABLE_NAME, ParquetRows

BOUND_MARGIN = 0.1
"""The distance of a bound from the observed extreme, as a share of the range."""

MAX_LISTED_VALUES = 50
"""The largest number of different values for which a column's values are listed."""

_REVIEW_PREFIX = "Look here: "
_DISTRIBUTION = "Distribution:"


@dataclass(frozen=True)
class ColumnProfile:
    """The profile of a column: `kind` as in model.yaml; the numbers are None for a column without numbers."""

    column: str
    kind: str
    rows: int
    non_null: int
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    deviation: float | None = None
    values: tuple[Any, ...] = ()
    distinct: int | None = None


def propose_suite_yaml(
    rows: ParquetRows,
    *,
    name: str,
    source: str,
    entity: str,
    target: str,
    kinds: Mapping[str, str],
    smallest_tier: float = 1.0,
) -> str:
    """Return a suite as YAML that `parse_suite` reads and that these rows of the model `name` pass.

    The head of the file names the `source`. `kinds` are `number`, `flag` or `category` by column, the target among
    them. `smallest_tier` is the share of the rows in the smallest data tier, on which the rules have to hold, too.

    Raises:
        Refusal: there is no row, or a column of the model is missing.
    """
    count, seen = _profile_columns(rows, entity, kinds, source)
    if not count:
        remedy = "Ingest some first; a suite is proposed from what is there."
        raise Refusal("there are no rows to propose a suite from", where=source, remedy=remedy)
    lines = [
        f"# What the data of {name} must be like before a model is trained on it or scores it.",
        f"# Proposed from {count:,} rows ({_comment(source)}); edit it: the bounds are what was",
        "# seen, with a margin, and not yet what is right. Types and arguments are Great Expectations'.",
        "# What it is about: each rule is about each row, so about any number of rows, unless its comment begins with",
        f'# "{_DISTRIBUTION}": it holds for training data, and for batches to score of minimum_rows rows or more,',
        f"# but at least {DISTRIBUTION_ROWS}; a smaller batch has no mean or share that says anything.",
        f"name: {_yaml(name)}",
        f"minimum_rows: {max(1, min(count // 100, 10_000))}  # a hundredth of what was seen",
        "expectations:",
        f"  # The entity: {_comment(entity)}.",
        *_entity_rules(seen[entity]),
    ]
    sample = rows.query(sample_sql({**kinds, entity: "text"}, sql.select_sql("*", TABLE_NAME)))
    for found in find_placeholders({entity: "text", **kinds}, sample):
        hint = f"{found.value!r} in {found.rows:,} rows of {found.column} may mean that the value is missing."
        lines += [f"  # {_REVIEW_PREFIX}{_comment(hint)}"]
    for column in kinds:
        word = "The target" if column == target else seen[column].kind.capitalize()
        rules = _column_rules(seen[column], column == target, round(count * smallest_tier))
        lines += ["", f"  # {word}: {_comment(column)}.", *rules]
    return "\n".join([*lines, ""])


def _profile_columns(
    rows: ParquetRows, entity: str, kinds: Mapping[str, str], source: str
) -> tuple[int, dict[str, ColumnProfile]]:
    column_kinds = {entity: "entity", **kinds}
    for column in column_kinds:
        if column not in rows.kinds:
            remedy = f"There are: {', '.join(rows.kinds)}. Correct model.yaml, or ingest the column."
            raise Refusal("the data has no such column", where=source, value=column, remedy=remedy)
    numbers = [c for c, kind in kinds.items() if kind == "number" and rows.family(c) in ("whole", "double")]
    distinct = f"count(DISTINCT {sql.quoted_name(entity)})"
    asked = ["count(*)", distinct, *(f"count({sql.quoted_name(c)})" for c in column_kinds)]
    found = rows.values([*asked, *(f"{f}({sql.quoted_name(c)})" for c in numbers for f in _NUMBERS)])
    seen = {}
    for column, kind in column_kinds.items():
        figures = [_float(found[f"{f}({sql.quoted_name(column)})"]) for f in _NUMBERS] if column in numbers else []
        listed = tuple(_values(rows, column)) if kind in ("category", "flag") else ()
        different = found[distinct] if column == entity else None
        filled = found[f"count({sql.quoted_name(column)})"]
        low, high, mean, deviation = figures or [None] * 4
        seen[column] = ColumnProfile(
            column, kind, found["count(*)"], filled, low, high, mean, deviation, listed, different
        )
    return found["count(*)"], seen


_NUMBERS = ("min", "max", "avg", "stddev_pop")


def _values(rows: ParquetRows, column: str) -> list[Any]:
    """Return the different values of a column, one more than may be listed at most; none for unsupported types."""
    if rows.family(column) == "other" and not pa.types.is_boolean(rows.kinds[column]):
        return []
    name = sql.quoted_name(column)
    rest = f"WHERE {name} IS NOT NULL GROUP BY {name} ORDER BY {name} LIMIT {MAX_LISTED_VALUES + 1}"
    return list(rows.query(sql.select_sql(name, rows.source((column,)), rest)).column(0).to_pylist())


def _entity_rules(seen: ColumnProfile) -> Iterator[str]:
    yield from _null_rules(seen)
    if seen.distinct == seen.non_null:
        yield _rule("values_to_be_unique", seen, f"{seen.distinct:,} different in as many rows")
        return
    yield f"  # {_REVIEW_PREFIX}{seen.distinct:,} different in {seen.non_null:,} rows: not one row an entity."


def _column_rules(seen: ColumnProfile, target: bool, fewest: int) -> Iterator[str]:
    """Yield the rules of a column; `fewest` is the size of the smallest training data on which they have to hold."""
    if not seen.non_null:
        yield f"  # {_REVIEW_PREFIX}null in every row: no value was seen: fix the source, or take it out of model.yaml."
        return
    yield from _null_rules(seen)
    if seen.kind == "number":
        yield from _number_rules(seen, fewest)
    elif seen.values and len(seen.values) <= MAX_LISTED_VALUES and all(map(_is_finite_value, seen.values)):
        word = "distinct_values_to_equal_set" if target else "values_to_be_in_set"
        listed = "[" + ", ".join(map(_yaml, seen.values)) + "]"
        yield _rule(word, seen, f"{len(seen.values)} different values", value_set=listed)
    else:
        many = (
            f"more than {MAX_LISTED_VALUES} different values"
            if len(seen.values) > MAX_LISTED_VALUES
            else "no values to list"
        )
        yield f"  # {_REVIEW_PREFIX}{many}: say what they must be like, as by expect_column_values_to_match_regex."


def _null_rules(seen: ColumnProfile) -> Iterator[str]:
    share = 1 - seen.non_null / seen.rows
    if not share:
        yield _rule("values_to_not_be_null", seen, "no null")
        return
    mostly = math.floor(round(100 * (1 - share - max(2 * share, 0.01)), 6)) / 100
    note = f"{100 * share:.3g} % null"
    if mostly <= 0:
        yield f"  # {_REVIEW_PREFIX}{note}."
        return
    yield _rule("values_to_not_be_null", seen, note, mostly=_yaml(mostly))


def _number_rules(seen: ColumnProfile, fewest: int) -> Iterator[str]:
    low, high = seen.low, seen.high
    if low is None or high is None or not math.isfinite(1.2 * (abs(low) + abs(high))):
        yield f"  # {_REVIEW_PREFIX}not all of it is finite numbers, so that no bounds are proposed."
        return
    margin = BOUND_MARGIN * (high - low) or BOUND_MARGIN * abs(high) or 1.0
    least, most = _rounded_outward(low - margin, margin, down=True), _rounded_outward(high + margin, margin, down=False)
    if low >= 0:
        least = max(least, 0.0)
    bounds = {"min_value": _yaml(least), "max_value": _yaml(most)}
    yield _rule("values_to_be_between", seen, f"{low:.6g} to {high:.6g}", **bounds)
    if fewest < DISTRIBUTION_ROWS:
        yield f"  # {_REVIEW_PREFIX}no rule for the mean: the smallest tier has {fewest:,} rows, too few for one."
        return
    mean, half = seen.mean, (seen.deviation or 0.0) / 2
    if mean is not None and half and math.isfinite(mean) and math.isfinite(half):
        least, most = _rounded_outward(mean - half, half, down=True), _rounded_outward(mean + half, half, down=False)
        note = f"{mean:.6g}; the bounds are half a standard deviation away"
        yield _rule("mean_to_be_between", seen, note, min_value=_yaml(least), max_value=_yaml(most))


def _rounded_outward(value: float, scale: float, *, down: bool) -> float:
    """Return the value rounded outward, to about two digits of the scale."""
    digits = 1 - math.floor(math.log10(scale))
    step = 10.0**-digits
    rounded = (math.floor if down else math.ceil)(value / step) * step if math.isfinite(value / step) else value
    tidy = round(rounded, max(digits, 0))
    beyond = tidy <= value if down else tidy >= value
    return tidy if beyond else value


def _rule(word: str, seen: ColumnProfile, note: str, **arguments: str) -> str:
    given = ", ".join(f"{name}: {text}" for name, text in {"column": _yaml(seen.column), **arguments}.items())
    about = f"{_DISTRIBUTION} " if is_about_distribution(f"expect_column_{word}", arguments) else ""
    return f"  - type: expect_column_{word}  # {about}{_comment(note)}\n    kwargs: {{{given}}}"


def _is_finite_value(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _yaml(value: object) -> str:
    """Return a value in YAML's flow style without ambiguity: text in quotes, and a point in each exponent float."""
    if isinstance(value, str):
        return '"' + "".join(map(_escaped_character, value)) + '"'
    if not isinstance(value, float):
        return json.dumps(value)
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _escaped_character(sign: str) -> str:
    return sign if sign.isprintable() and sign not in '"\\' else f"\\U{ord(sign):08x}"


def _comment(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text)


def _float(value: object) -> float | None:
    return None if value is None else float(str(value))
