"""The rows that do not enter the lake: which, why, and what a person needs to find and mend them."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

REASONS = (
    "null entity key",
    "key already in the lake",
    "null target",
    "target outside the classes",
    "not finite",
    "duplicate key",
)
"""Why a row that could be read is quarantined."""

Indices = npt.NDArray[np.int64]


class Broken(Protocol):
    """A row that the source itself could not read."""

    @property
    def position(self) -> str:
        """Where it is, such as "line 12"."""

    @property
    def reason(self) -> str:
        """Why it could not be read."""

    @property
    def text(self) -> str:
        """What stands there."""


@dataclass(frozen=True)
class JudgedRows:
    """The declared columns of a source, and for each row the number of its reason in `REASONS`, or -1.

    `first_of` holds, for a row with a good key, the row that is kept for that key; -1 otherwise.
    """

    table: pa.Table
    positions: pa.ChunkedArray
    entity: str
    reasons: npt.NDArray[np.int8]
    first_of: Indices

    def detail(self, index: int) -> str:
        """Return the row's reason with what a person needs to find it."""
        reason = REASONS[self.reasons[index]]
        row = self.table.slice(index, 1).to_pylist()[0]
        if reason == "not finite":
            columns = [name for name, value in row.items() if _is_odd(value)]
            return f"{reason}: {', '.join(f'column {c!r} holds {row[c]}' for c in columns)}"
        if reason == "target outside the classes":
            return f"{reason}: {list(row.values())[-1]!r}"
        if reason == "duplicate key":
            first = int(self.first_of[index])
            same = row == self.table.slice(first, 1).to_pylist()[0]
            where = self.positions[first].as_py()
            return f"{reason}: kept is {where}, with {'the same' if same else 'other'} values"
        return reason


def quarantine_table(rows: JudgedRows, out: Indices, broken: Sequence[Broken]) -> pa.Table:
    """Return position, reason, key and row (JSON) of the broken rows and of those at `out`, all text."""
    taken = rows.table.take(pa.array(out))
    keys = taken.column(rows.entity).cast(pa.string()).to_pylist()
    columns = {
        "position": [*(row.position for row in broken), *rows.positions.take(pa.array(out)).to_pylist()],
        "reason": [*(row.reason for row in broken), *(rows.detail(i) for i in out.tolist())],
        "key": [*(None for _ in broken), *keys],
        "row": [*(_json({"text": row.text}) for row in broken), *map(_json, taken.to_pylist())],
    }
    return pa.table({name: pa.array(values, type=pa.string()) for name, values in columns.items()})


def tally(rows: JudgedRows, out: Indices, broken: Sequence[Broken]) -> str:
    """Return how often each reason occurs, most frequent first: "3 null target, 1 broken"."""
    counts = Counter(REASONS[code] for code in rows.reasons[out].tolist())
    if broken:
        counts["broken"] = len(broken)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _json(row: Mapping[str, object]) -> str:
    plain = {name: str(value) if _is_odd(value) else value for name, value in row.items()}
    return json.dumps(plain, default=str, ensure_ascii=False)
