"""Whether an expectation meets the kinds of its columns, and whether it is about rows or about their distribution.

A column's kind is that of model.yaml: text (entity, keys), category, number, flag or time. An expectation that cannot
apply to its column either passes whatever the data (`not_be_in_set [1, 2]` on text) or never does.
"""

import math
from collections.abc import Iterator, Mapping

DISTRIBUTION_ROWS = 100
"""A smaller batch of rows to score has no distribution that says anything: three rows have any mean."""

_FAMILIES = {
    "key": "text", "text": "text", "category": "text", "number": "number", "flag": "flag", "time": "time",
}  # fmt: skip
_NUMERIC, _ORDERED = ("number", "flag"), ("number", "flag", "time")
_ANY = ("text", "number", "flag", "time")

_ALLOWED_FAMILIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "expect_column_max_to_be_between",
            "expect_column_min_to_be_between",
            "expect_column_values_to_be_between",
        ),
        _ORDERED,
    ),
    **dict.fromkeys(
        (
            "expect_column_mean_to_be_between",
            "expect_column_median_to_be_between",
            "expect_column_quantile_values_to_be_between",
            "expect_column_stdev_to_be_between",
            "expect_column_sum_to_be_between",
            "expect_column_value_z_scores_to_be_less_than",
            "expect_column_values_to_not_be_outliers",
            "expect_multicolumn_sum_to_equal",
        ),
        _NUMERIC,
    ),
    **dict.fromkeys(
        (
            "expect_column_value_lengths_to_be_between",
            "expect_column_value_lengths_to_equal",
            "expect_column_values_to_be_dateutil_parseable",
            "expect_column_values_to_be_json_parseable",
            "expect_column_values_to_match_json_schema",
            "expect_column_values_to_match_like_pattern",
            "expect_column_values_to_match_like_pattern_list",
            "expect_column_values_to_match_regex",
            "expect_column_values_to_match_regex_list",
            "expect_column_values_to_match_strftime_format",
            "expect_column_values_to_not_match_like_pattern",
            "expect_column_values_to_not_match_like_pattern_list",
            "expect_column_values_to_not_match_regex",
            "expect_column_values_to_not_match_regex_list",
        ),
        ("text",),
    ),
    **dict.fromkeys(
        (
            "expect_column_distinct_values_to_be_in_set",
            "expect_column_distinct_values_to_contain_set",
            "expect_column_distinct_values_to_equal_set",
            "expect_column_most_common_value_to_be_in_set",
            "expect_column_pair_values_to_be_in_set",
            "expect_column_kl_divergence_to_be_less_than",
            "expect_column_values_to_be_in_set",
            "expect_column_values_to_not_be_in_set",
        ),
        ("text", "number", "flag"),
    ),
}
"""The families of kinds on which a type of expectation has a meaning; one that is not here has it on all."""

_SAME_FAMILY = (
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal",
    "expect_multicolumn_values_to_be_equal",
    "expect_select_column_values_to_be_unique_within_record",
)
"""Expectations that compare columns: text never equals a number."""

_DISTRIBUTION_TYPES = (
    "expect_column_distinct_values_to_contain_set",
    "expect_column_distinct_values_to_equal_set",
    "expect_column_kl_divergence_to_be_less_than",
    "expect_column_max_to_be_between",
    "expect_column_mean_to_be_between",
    "expect_column_median_to_be_between",
    "expect_column_min_to_be_between",
    "expect_column_most_common_value_to_be_in_set",
    "expect_column_proportion_of_non_null_values_to_be_between",
    "expect_column_proportion_of_unique_values_to_be_between",
    "expect_column_quantile_values_to_be_between",
    "expect_column_stdev_to_be_between",
    "expect_column_sum_to_be_between",
    "expect_column_unique_value_count_to_be_between",
    "expect_column_value_z_scores_to_be_less_than",
    "expect_column_values_to_not_be_outliers",
    "expect_table_row_count_to_be_between",
    "expect_table_row_count_to_equal",
)

_NATURAL_RANGES = {
    "expect_column_proportion_of_non_null_values_to_be_between": (0.0, 1.0),
    "expect_column_proportion_of_unique_values_to_be_between": (0.0, 1.0),
    "expect_column_stdev_to_be_between": (0.0, math.inf),
    "expect_column_unique_value_count_to_be_between": (0.0, math.inf),
    "expect_column_value_lengths_to_be_between": (0.0, math.inf),
    "expect_table_column_count_to_be_between": (0.0, math.inf),
    "expect_table_row_count_to_be_between": (0.0, math.inf),
}
"""What a type of expectation measures lies in this range, whatever the data."""

Problem = tuple[tuple[str, ...], str, str]
"""The argument (a path below `kwargs`), what is wrong with it, and the remedy."""


def is_about_distribution(kind: str, kwargs: Mapping[str, object]) -> bool:
    """Return whether an expectation is about the distribution of many rows: a mean, a share, a set that must occur."""
    return kind in _DISTRIBUTION_TYPES or kwargs.get("mostly", 1) != 1


def never_fails(kind: str, kwargs: Mapping[str, object]) -> Iterator[Problem]:
    """Yield the problem of bounds that no data can violate."""
    low, high = _NATURAL_RANGES.get(kind, (math.nan, math.nan))
    least, most = kwargs.get("min_value"), kwargs.get("max_value")
    if not all(each is None or _is_number(each) for each in (least, most)) or math.isnan(low):
        return
    free_below = least is None or float(str(least)) < low or (float(str(least)) == low and not kwargs.get("strict_min"))
    free_above = most is None or float(str(most)) > high or (float(str(most)) == high and not kwargs.get("strict_max"))
    if free_below and free_above:
        word = "min_value" if least is not None else "max_value"
        yield (word,), f"can never be violated: it lies between {low:g} and {high:g} in all data", "Narrow the bounds."


def kind_problems(kind: str, kwargs: Mapping[str, object], kinds: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the problems of an expectation on columns of these kinds (by column). Other columns are not compared.

    Args:
        kind: Great Expectations' type.
        kwargs: its arguments.
    """
    named = dict(_named_columns(kwargs))
    families = {word: _FAMILIES[kinds[column]] for word, column in named.items() if column in kinds}
    allowed = _ALLOWED_FAMILIES.get(kind, _ANY)
    wrong = [word for word, family in families.items() if family not in allowed]
    for word in wrong:
        fits = ", ".join(sorted(name for name, family in _FAMILIES.items() if family in allowed))
        problem = f"names a column of the kind {kinds[named[word]]}, and {kind} takes {fits}"
        yield _path(word), problem, "Choose an expectation for this kind, or correct the kind in model.yaml."
    if wrong:
        return
    if kind in _SAME_FAMILY and len({"number" if each in _NUMERIC else each for each in families.values()}) > 1:
        shown = ", ".join(f"{named[word]} is a {kinds[named[word]]}" for word in families)
        yield (
            _path(next(iter(families))),
            f"compares columns of different kinds: {shown}",
            "They never have equal values.",
        )
    yield from _argument_problems(kind, kwargs, families)


def _argument_problems(kind: str, kwargs: Mapping[str, object], families: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the arguments whose values are not of the column's kind."""
    family = families.get("column", "")
    if family:
        for word in ("value_set", "min_value", "max_value"):
            if word == "value_set" or kind in _ALLOWED_FAMILIES:
                yield from _value_problems((word,), kwargs.get(word), _bound_family(kind, word, family))
        yield from _partition_problems(kwargs.get("partition_object"), family)
    pairs = kwargs.get("value_pairs_set")
    for pair in pairs if isinstance(pairs, tuple) else ():
        for word, value in zip(("column_A", "column_B"), pair if isinstance(pair, tuple) else (), strict=False):
            yield from _value_problems(("value_pairs_set",), (value,), families.get(word, ""))


def _bound_family(kind: str, word: str, family: str) -> str:
    """Return the family of an argument's values: bounds of a length, mean or sum are numbers, whatever the column's."""
    if word == "value_set" or kind.endswith(("_values_to_be_between", "_max_to_be_between", "_min_to_be_between")):
        return family if word == "value_set" or family == "time" else "number"
    return "number"


def _value_problems(path: tuple[str, ...], values: object, family: str) -> Iterator[Problem]:
    listed = values if isinstance(values, tuple) else () if values is None else (values,)
    for value in listed:
        if problem := _value_problem(value, family):
            yield path, f"holds {value!r}, {problem[0]}", problem[1]
            return  # one is enough: the others have the same remedy


def _value_problem(value: object, family: str) -> tuple[str, str] | None:
    """Return problem and remedy of a value for a column of the family, or None."""
    wrong = {
        "text": (
            not isinstance(value, str),
            "and the column holds text, which never equals it",
            f'Quote it: "{value}".',
        ),
        "number": (
            isinstance(value, bool) or not _is_number(value),
            "and the column holds numbers, which never equal it",
            "Write a number, without quotes.",
        ),
        "flag": (
            isinstance(value, str) or value not in (0, 1),
            "and a flag is 0 or 1",
            "Write 0 or 1, without quotes.",
        ),
        "time": (
            not isinstance(value, str),
            "and the column holds times",
            'Write a time as text: "2026-01-31T00:00:00Z".',
        ),
    }
    is_wrong, problem, remedy = wrong.get(family, (False, "", ""))
    return (problem, remedy) if is_wrong else None


def _partition_problems(partition: object, family: str) -> Iterator[Problem]:
    if not isinstance(partition, Mapping):
        return
    if "values" in partition:
        yield from _value_problems(("partition_object",), partition["values"], family)
    elif "bins" in partition and family == "text":
        yield ("partition_object",), "has bins, and the column holds text", "Give values with their weights."


def _named_columns(kwargs: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the arguments that name columns of rows, those of a list with their position: `column_list 0`."""
    for word in ("column", "column_A", "column_B"):
        if isinstance(value := kwargs.get(word), str):
            yield word, value
    listed = kwargs.get("column_list")
    for number, value in enumerate(listed if isinstance(listed, tuple) else ()):
        yield f"column_list {number}", str(value)


def _path(word: str) -> tuple[str, ...]:
    return (word.split(maxsplit=1)[0],)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
