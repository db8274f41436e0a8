"""Suites of expectations (`expectations.yaml`), read strictly. This module needs no library.

```yaml
name: churn
minimum_rows: 50
expectations:
  - type: expect_column_values_to_be_between
    kwargs: {column: tenure, min_value: 0, max_value: 120}
```
Types and arguments are those of Great Expectations. A rule that cannot fail (`mostly: 0`, no bounds) is a mistake.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from tasks.shared.rules.model.mistakes import KeyPath, Mistake, Mistakes, key_name
from tasks.shared.rules.model.strict_yaml import INVALID_VALUE, Document, read_yaml
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectation_kinds import (
    DISTRIBUTION_ROWS,
    is_about_distribution,
    kind_problems,
    never_fails,
)

COLUMN_KWARGS = ("column", "column_A", "column_B", "column_list", "column_set")
"""The arguments by which an expectation names columns."""

_FORBIDDEN_ARGUMENTS = {
    "row_condition": "it may select no row at all, and then passes",
    "condition_parser": "it belongs to row_condition",
    "result_format": "the check chooses it",
    "catch_exceptions": "an exception always fails a check",
    "severity": "every expectation counts",
} | dict.fromkeys(
    ("id", "meta", "notes", "description", "rendered_content", "windows", "batch_id", "library_metadata"),
    "it has no meaning here; write a comment",
)
_ALWAYS_REQUIRED = ("regex", "type_list", "column_set", "column_list", "partition_object", "threshold")
_UNSUPPORTED_TYPES = (
    "expect_query_results_to_match_comparison",
    "expect_table_row_count_to_equal_other_table",
    "unexpected_rows_expectation",
)


@dataclass(frozen=True)
class ExpectationArguments:
    """The arguments of a type of expectation: all of them, and the required ones."""

    all: tuple[str, ...]
    required: tuple[str, ...]


@dataclass(frozen=True)
class Expectation:
    """One expectation: Great Expectations' type and keyword arguments (lists as tuples)."""

    type: str
    kwargs: Mapping[str, object]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it names, each once, in order."""
        named: dict[str, None] = {}
        for word in COLUMN_KWARGS:
            value = self.kwargs.get(word, ())
            named.update(dict.fromkeys([value] if isinstance(value, str) else _texts(value)))
        return tuple(named)

    @property
    def kwargs_text(self) -> str:
        """The other arguments as text: `min_value=0, max_value=120`."""
        rest = {word: value for word, value in self.kwargs.items() if word not in COLUMN_KWARGS}
        return ", ".join(f"{word}={json.dumps(value, ensure_ascii=False)}" for word, value in rest.items())


@dataclass(frozen=True)
class Suite:
    """The expectations of a table, and the least number of rows.

    `left_out` is a sentence about expectations that say nothing about this table, and are not evaluated.
    """

    name: str
    minimum_rows: int
    expectations: tuple[Expectation, ...]
    left_out: str = ""

    def __post_init__(self) -> None:
        if self.minimum_rows < 1:
            raise Refusal("minimum_rows must be 1 or more", where=f"suite {self.name}", value=self.minimum_rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that an expectation names, each once."""
        return tuple(dict.fromkeys(name for each in self.expectations for name in each.columns))

    def without_column(self, column: str) -> "Suite":
        """Return the suite without the expectations that name `column`, such as the target, which scored rows lack."""
        return replace(self, expectations=tuple(e for e in self.expectations if column not in e.columns))

    def for_batch(self, rows: int) -> "Suite":
        """Return the suite for a batch of rows to score: one row is enough.

        Below `minimum_rows`, and below 100 rows, the expectations about distributions are left out, since three rows
        have any mean. When no other expectation is left, they are all evaluated: an empty suite passes nothing.
        """
        least = max(self.minimum_rows, DISTRIBUTION_ROWS)
        about_rows = tuple(e for e in self.expectations if not is_about_distribution(e.type, e.kwargs))
        omitted = len(self.expectations) - len(about_rows)
        if rows >= least or not omitted or not about_rows:
            return replace(self, minimum_rows=1)
        note = f"{omitted} expectations about distributions (means, shares, sets that must occur) were not evaluated: "
        note += f"the batch has {rows:,} rows, and they need {least:,}."
        return replace(self, minimum_rows=1, expectations=about_rows, left_out=note)


def read_suite(
    text: str | bytes,
    where: str,
    known: Mapping[str, ExpectationArguments],
    library_error: Callable[[Expectation], str],
    kinds: Mapping[str, str],
) -> Suite:
    """Read a suite of the `known` types of expectation, for columns of these kinds (by column; none for unknown ones).

    `library_error` returns the library's own error for an expectation, "" for none. All mistakes are raised together.
    """
    document = read_yaml(text, where)
    reader = _SuiteReader(document, known, library_error, kinds)
    reported = {mistake.line for mistake in document.mistakes}
    more = [mistake for mistake in reader.mistakes() if mistake.line not in reported]
    if mistakes := [*document.mistakes, *more]:
        raise Mistakes(where, mistakes)
    value = document.value
    expectations = tuple(map(_expectation, _items(value["expectations"])))
    return Suite(str(value["name"]), int(str(value["minimum_rows"])), expectations)


@dataclass(frozen=True)
class _SuiteReader:
    document: Document
    known: Mapping[str, ExpectationArguments]
    library_error: Callable[[Expectation], str]
    kinds: Mapping[str, str]

    def mistakes(self) -> Iterator[Mistake]:
        value = self.document.value
        yield from self._keys(value, (), ("name", "minimum_rows", "expectations"))
        if "name" in value and not (isinstance(value["name"], str) and value["name"].strip()):
            yield self._at(("name",), "must be text")
        if "minimum_rows" in value and not _is_count(value["minimum_rows"]):
            yield self._at(("minimum_rows",), "must be a whole number, 1 or more", "An empty table never passes.")
        if "expectations" in value:
            yield from self._list(value["expectations"])

    def _list(self, found: object) -> Iterator[Mistake]:
        if not isinstance(found, tuple) or not found:
            problem = "must be a list of at least one expectation"
            yield self._at(("expectations",), problem, "A suite that checks nothing is no check.")
        seen: dict[str, int] = {}
        for number, item in enumerate(_items(found)):
            if _has_unread(item):
                continue  # reported already
            path: KeyPath = ("expectations", number)
            own = list(self._one(item, path))
            yield from own
            first = seen.setdefault(json.dumps(item, sort_keys=True), number)
            if not own and first != number:
                yield self._at(path, f"the same expectation is there already, as expectations[{first}]")

    def _one(self, item: object, path: KeyPath) -> Iterator[Mistake]:
        if not isinstance(item, Mapping):
            yield self._at(path, "must be a mapping with `type` and `kwargs`")
            return
        own = [*self._keys(item, path, ("type", "kwargs")), *self._type(item, path)]
        if not own:
            own += self._arguments(_expectation(item), path)
        if not own:
            own += self._kinds(_expectation(item), path)
        if not own and (problem := self.library_error(_expectation(item))):
            own.append(self._at((*path, "kwargs"), f"is refused by Great Expectations: {problem}"))
        yield from own

    def _type(self, item: Mapping[str, object], path: KeyPath) -> Iterator[Mistake]:
        kind, arguments = item.get("type"), item.get("kwargs")
        if "kwargs" in item and not isinstance(arguments, Mapping):
            yield self._at((*path, "kwargs"), "must be a mapping of arguments")
        if kind in _UNSUPPORTED_TYPES:
            yield self._at((*path, "type"), "needs a database, and the check sees one table of rows")
        elif "type" in item and kind not in self.known:
            problem = "is no type of Great Expectations"
            yield self._at((*path, "type"), problem, _nearest(str(kind), self.known))

    def _arguments(self, expectation: Expectation, path: KeyPath) -> Iterator[Mistake]:
        takes = self.known[expectation.type]
        allowed = tuple(word for word in takes.all if word not in _FORBIDDEN_ARGUMENTS)
        for word, value in expectation.kwargs.items():
            place = (*path, "kwargs", word)
            if word in _FORBIDDEN_ARGUMENTS:
                yield self._at(place, f"may not be set: {_FORBIDDEN_ARGUMENTS[word]}", "Take it out.")
            elif word not in allowed:
                yield self._at(place, f"is no argument of {expectation.type}", _nearest(word, allowed))
            elif problem := _value_problem(word, value):
                yield self._at(place, problem)
        for word in allowed:
            needed = word in takes.required or word in _ALWAYS_REQUIRED
            if needed and word not in expectation.kwargs:
                yield self._at((*path, "kwargs"), f"{word} is missing", "Without it nothing is expected.")
        bounds = {"min_value", "max_value"}
        ranged = bounds <= set(allowed) and expectation.type.endswith("_between")
        if ranged and not bounds & set(expectation.kwargs):
            yield self._at((*path, "kwargs"), "has neither min_value nor max_value", "Give one or both.")

    def _kinds(self, expectation: Expectation, path: KeyPath) -> Iterator[Mistake]:
        problems = (
            *kind_problems(expectation.type, expectation.kwargs, self.kinds),
            *never_fails(expectation.type, expectation.kwargs),
        )
        for word, problem, remedy in problems:
            yield self._at((*path, "kwargs", *word), problem, remedy)

    def _keys(self, item: Mapping[str, object], path: KeyPath, expected: tuple[str, ...]) -> Iterator[Mistake]:
        for word in item:
            if word not in expected:
                yield self._at((*path, word), "is an unknown key", _nearest(word, expected))
        for word in expected:
            if word not in item:
                yield self._at(path, f"the key {word} is missing")

    def _at(self, path: KeyPath, problem: str, remedy: str = "") -> Mistake:
        place = self.document.places[path]
        return Mistake(place.line, key_name(path), problem, place.written, remedy)


def _value_problem(word: str, value: object) -> str:
    if isinstance(value, str | tuple | Mapping) and not value:
        return "is empty, so that nothing is expected"
    if isinstance(value, Mapping) and any(name.startswith("$") for name in value):
        return "parameters ($) are not read"
    if word in COLUMN_KWARGS and not isinstance(value, str) and _texts(value) != value:
        return "must name columns, as text"
    if word == "mostly" and (not isinstance(value, int | float) or value is True or not 0 < value <= 1):
        return "must be above 0, since at 0 everything passes, and at most 1"
    return ""


def _nearest(word: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"There are: {', '.join(sorted(known))}."


def _expectation(item: Any) -> Expectation:
    return Expectation(str(item["type"]), dict(item["kwargs"]))


def _has_unread(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_unread, value.values()))
    return value is INVALID_VALUE or any(map(_has_unread, _items(value)))


def _items(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else ()


def _texts(value: object) -> tuple[str, ...]:
    return tuple(each for each in _items(value) if isinstance(each, str) and each)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
