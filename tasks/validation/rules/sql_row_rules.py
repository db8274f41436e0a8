"""Plans of the expectations of each row: a condition on one value, or on several columns."""

import re
from collections.abc import Callable, Mapping, Sequence

from tasks.shared.rules import sql
from tasks.validation.rules.parquet_rows import Family
from tasks.validation.rules.sql_plan import ROWS, Answers, Maker, Plan, counted, number, whole
from tasks.validation.rules.suites import Expectation

_ONE = r"(?:[\w :/@,;=#%&~<>'\"!-]|\\[-.+*?()\[\]{}|^$\\/]|\[\^?[\w :/@,;=#%&~.+*!-]+\])"
_TIMES = r"(?:[*+?]|\{\d{1,3}(?:,\d{0,3})?\})?"
_PATTERN = re.compile(rf"\^?(?:{_ONE}{_TIMES})*\$?", re.ASCII)


def _on_values(metric: str, condition: Callable[[str, Mapping[str, object]], str], *kinds: Family) -> Maker:
    def make(expectation: Expectation, found: set[Family]) -> Plan | None:
        if kinds and not found <= set(kinds):
            return None
        column = sql.name(str(expectation.kwargs["column"]))
        broken = condition(column, {**expectation.kwargs, "kinds": found})
        unexpected, filled = counted(broken), f"count({column})"
        return Plan(
            (unexpected, filled),
            lambda answers: {
                **_counts(answers, filled),
                f"{metric}.unexpected_count": answers.value(unexpected),
                f"{metric}.unexpected_values": [],
            },
            broken,
        )

    return make


def _nulls(metric: str, *, wanted: bool) -> Maker:
    """Plan a rule about nulls, which follows from how many values there are."""

    def make(expectation: Expectation, found: set[Family]) -> Plan:
        column = sql.name(str(expectation.kwargs["column"]))
        filled = f"count({column})"

        def metrics(answers: Answers) -> dict[str, object]:
            counts = _counts(answers, filled)
            nulls = whole(counts["column_values.nonnull.unexpected_count"])
            unexpected = whole(answers.value(filled)) if wanted else nulls
            return {**counts, f"{metric}.unexpected_count": unexpected, f"{metric}.unexpected_values": []}

        return Plan((filled,), metrics, f"{column} IS NOT NULL" if wanted else f"{column} IS NULL")

    return make


def _counts(answers: Answers, filled: str) -> dict[str, object]:
    rows = whole(answers.value(ROWS))
    return {"table.row_count": rows, "column_values.nonnull.unexpected_count": rows - whole(answers.value(filled))}


def _between(operand: str, arguments: Mapping[str, object]) -> str:
    low, high = arguments.get("min_value"), arguments.get("max_value")
    given = [each for each in (low, high) if each is not None]
    if not given or not all(map(sql.is_number, given)) or (len(given) == 2 and number(low) > number(high)):
        raise ValueError("bounds that the library itself is to refuse")
    strict_low, strict_high = arguments.get("strict_min"), arguments.get("strict_max")
    below = "" if low is None else f"{operand} {'<=' if strict_low else '<'} {sql.literal(low)}"
    above = "" if high is None else f"{operand} {'>=' if strict_high else '>'} {sql.literal(high)}"
    return f"({' OR '.join(filter(None, (below, above)))})"


def in_set(column: str, arguments: Mapping[str, object]) -> str:
    """Return SQL that tells whether a column's value is in the `value_set` of the arguments."""
    return f"{column} IN ({', '.join(map(sql.literal, value_set(arguments)))})"


def value_set(arguments: Mapping[str, object]) -> list[object]:
    """Return the value set, each value once. Raises ValueError when not all its values are of the column's kind."""
    values, kinds = arguments["value_set"], arguments["kinds"]
    if not isinstance(values, tuple) or not values:
        raise ValueError("no set")
    fits = all(isinstance(each, str) for each in values) if kinds == {"text"} else all(map(sql.is_number, values))
    if not fits:
        raise ValueError("values of another kind than the column")
    return list(dict.fromkeys(values))


def _matching(column: str, arguments: Mapping[str, object]) -> str:
    """Return SQL that tells whether the pattern is found; only for patterns that every engine reads alike."""
    pattern = str(arguments["regex"])
    if not _PATTERN.fullmatch(pattern):
        raise ValueError("a pattern that engines may read differently")
    ended = pattern[:-1] + r"\z" if re.fullmatch(r"(?:[^\\$]|\\.)*\$", pattern) else pattern
    return f"regexp_matches({column}, {sql.literal(ended)})"


def _length_is(column: str, arguments: Mapping[str, object]) -> str:
    if not sql.is_number(arguments["value"]):
        raise ValueError("no length")
    return f"length({column}) <> {sql.literal(arguments['value'])}"


def _repeated(expectation: Expectation, found: set[Family]) -> Plan | None:
    if "other" in found:
        return None
    column = str(expectation.kwargs["column"])
    filled = f"count({sql.name(column)})"
    domain = f"{sql.name(column)} IS NOT NULL"
    return Plan(
        (filled,),
        lambda answers: {
            **_counts(answers, filled),
            "column_values.unique.unexpected_count": answers.shared((column,), domain, whole(answers.value(filled))),
            "column_values.unique.unexpected_values": [],
        },
        domain,
        (column,),
    )


# a condition on several columns of a row

_DOMAINS = {"both_values_are_missing": " OR ", "all_values_are_missing": " OR "} | {
    "either_value_is_missing": " AND ",
    "any_value_is_missing": " AND ",
}


def _domain(columns: Sequence[str], arguments: Mapping[str, object], default: str) -> str:
    word = str(arguments.get("ignore_row_if", default))
    if word in ("neither", "never"):
        return "TRUE"
    return "(" + _DOMAINS[word].join(f"{sql.name(each)} IS NOT NULL" for each in columns) + ")"


def _pair(metric: str, sign: Callable[[Mapping[str, object]], str], *texts: Family) -> Maker:
    def make(expectation: Expectation, found: set[Family]) -> Plan | None:
        if not (found <= {"whole", "double"} or (texts and found <= set(texts))):
            return None
        pair = (str(expectation.kwargs["column_A"]), str(expectation.kwargs["column_B"]))
        domain = _domain(pair, expectation.kwargs, "both_values_are_missing")
        holds = f"{sql.name(pair[0])} {sign(expectation.kwargs)} {sql.name(pair[1])}"
        return _on_rows(metric, domain, f"{domain} AND NOT coalesce({holds}, FALSE)")

    return make


def _on_rows(metric: str, domain: str, broken: str) -> Plan:
    unexpected, looked_at = counted(broken), counted(domain)
    return Plan(
        (unexpected, looked_at),
        lambda answers: {
            "table.row_count": answers.value(ROWS),
            f"{metric}.filtered_row_count": answers.value(looked_at),
            f"{metric}.unexpected_count": answers.value(unexpected),
            f"{metric}.unexpected_values": [],
        },
        broken,
    )


def _compound(expectation: Expectation, found: set[Family]) -> Plan | None:
    columns = expectation.columns
    if "other" in found or expectation.kwargs["column_list"] != columns:
        return None
    domain = _domain(columns, expectation.kwargs, "all_values_are_missing")
    looked_at, metric = counted(domain), "compound_columns.unique"
    return Plan(
        (looked_at,),
        lambda answers: {
            "table.row_count": answers.value(ROWS),
            f"{metric}.filtered_row_count": answers.value(looked_at),
            f"{metric}.unexpected_count": answers.shared(columns, domain, whole(answers.value(looked_at))),
            f"{metric}.unexpected_values": [],
        },
        domain,
        columns,
    )


ROW_PLANS: Mapping[str, Maker] = {
    "expect_column_values_to_not_be_null": _nulls("column_values.nonnull", wanted=False),
    "expect_column_values_to_be_null": _nulls("column_values.null", wanted=True),
    "expect_column_values_to_be_between": _on_values("column_values.between", _between, "whole", "double"),
    "expect_column_values_to_be_in_set": _on_values(
        "column_values.in_set", lambda c, given: f"NOT {in_set(c, given)}", "whole", "double", "text"
    ),
    "expect_column_values_to_not_be_in_set": _on_values("column_values.not_in_set", in_set, "whole", "double", "text"),
    "expect_column_values_to_match_regex": _on_values(
        "column_values.match_regex", lambda c, given: f"NOT {_matching(c, given)}", "text"
    ),
    "expect_column_values_to_not_match_regex": _on_values("column_values.not_match_regex", _matching, "text"),
    "expect_column_value_lengths_to_be_between": _on_values(
        "column_values.value_length.between", lambda c, given: _between(f"length({c})", given), "text"
    ),
    "expect_column_value_lengths_to_equal": _on_values("column_values.value_length.equals", _length_is, "text"),
    "expect_column_values_to_be_unique": _repeated,
    "expect_column_pair_values_a_to_be_greater_than_b": _pair(
        "column_pair_values.a_greater_than_b", lambda given: ">=" if given.get("or_equal") else ">"
    ),
    "expect_column_pair_values_to_be_equal": _pair("column_pair_values.equal", lambda _: "=", "text"),
    "expect_compound_columns_to_be_unique": _compound,
}
"""Plans by type of expectation."""
