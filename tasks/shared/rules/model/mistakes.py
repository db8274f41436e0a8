"""Mistakes in a file that a person writes: each with its line and key, all reported together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.shared.rules.refusal import Refusal

MAX_SHOWN = 20
"""How many mistakes a message lists; `Mistakes.mistakes` holds all."""

KeyPath = tuple[str | int, ...]
"""The path to a value from the root: keys of mappings and positions in lists."""


def key_name(path: Sequence[str | int]) -> str:
    """Return the path as people write it: `evaluation.floors[0].metric`; odd keys are quoted."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        elif re.fullmatch(r"[\w<>*-]+", part):
            name += f".{part}" if name else part
        else:
            name += f"[{part!r}]"
    return name


@dataclass(frozen=True)
class Mistake:
    """One mistake: line (from 1), key as `a.b[0].c`, the problem, the value as written, the remedy."""

    line: int
    key: str
    problem: str
    value: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        place = f"line {self.line}" + (f", {self.key}" if self.key else "")
        value = f" (value: {self.value})" if self.value else ""
        return f"{place}: {self.problem}{value}." + (f" {self.remedy}" if self.remedy else "")


class Mistakes(Refusal):
    """The Refusal of a file with one or more mistakes, in the order of their lines."""

    def __init__(self, where: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.line))
        first, many = self.mistakes[0], len(self.mistakes) > 1
        super().__init__(
            f"{len(self.mistakes)} mistakes" if many else first.problem,
            where=where if many else f"{where}, line {first.line}" + (f", {first.key}" if first.key else ""),
            value=None if many else first.value or None,
            remedy="" if many else first.remedy,
        )
        self._file = where
        listed = [f"  {mistake}" for mistake in self.mistakes[:MAX_SHOWN]]
        more = [f"  and {len(self.mistakes) - MAX_SHOWN} more"] if len(self.mistakes) > MAX_SHOWN else []
        heading = f"{where}: {self.problem}"
        self.args = ("\n".join([heading, *listed, *more]) if many else f"{where}, {first}",)

    def __reduce__(self) -> tuple[Any, ...]:
        return Mistakes, (self._file, self.mistakes)
