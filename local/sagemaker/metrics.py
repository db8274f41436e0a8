"""Metrics that a training program prints, found by the regular expressions of its job."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress


def parse_metrics(lines: Sequence[str], definitions: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return the last value of each metric. What is no number is no metric."""
    values: dict[str, float] = {}
    for definition in definitions:
        expression = re.compile(definition["Regex"])
        for line in lines:
            for match in expression.finditer(line):
                with suppress(ValueError, IndexError):
                    values[definition["Name"]] = float(match.group(1))
    return values
