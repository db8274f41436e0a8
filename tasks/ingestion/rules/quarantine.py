"""The rows that do not enter the lake: which, why, and what a person needs to find and mend them."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

REASONS = (
    "null entity key",
    "null key or time",
    "key already in the lake",
    "null target",
    "target outside the classes",
    "not finite",
    "duplicate key",
)
"""Why a row that could be read is quarantined."""

FILE, ROW, CODE = "_ratchet_file", "_ratchet_row", "_ratchet_code"
"""Where a row is (the place of its file, its number there), and the number of its reason in `REASONS`."""

FIRST_FILE, FIRST_ROW, SAME = "_ratchet_first_file", "_ratchet_first_row", "_ratchet_same"
"""For a duplicate key: the row that is kept, and whether its values are the same."""

SCHEMA = pa.schema([(name, pa.string()) for name in ("position", "reason", "key", "row")])
"""The columns of a quarantine, all text; `row` is JSON, `key` null when unknown."""


def quarantined(
    judged: pa.Table, columns: Sequence[str], entity: str, target: str | None, places: Sequence[str]
) -> pa.Table:
    """Return rows with a reason against them as they are kept.

    Args:
        judged: the declared columns, and the columns named above.
        columns: the declared columns, in order.
        entity: the key's column.
        target: the column to be predicted, or None.
        places: what stands before a row's number, by file.
    """
    rows = judged.select(columns).to_pylist()
    told = judged.drop_columns([*columns]).to_pylist()
    return pa.table(
        [
            [_position(places, where[FILE], where[ROW]) for where in told],
            [_reason(row, where, target, places) for row, where in zip(rows, told, strict=True)],
            judged.column(entity).cast(pa.string()),
            [as_json(row) for row in rows],
        ],
        schema=SCHEMA,
    )


def unreadable(broken: pa.Table) -> pa.Table:
    """Return rows that the source could not read (position, reason, text) as they are kept."""
    texts = [as_json({"text": text}) for text in broken.column("text").to_pylist()]
    keys = pa.nulls(broken.num_rows, pa.string())
    return pa.table([broken.column("position"), broken.column("reason"), keys, texts], schema=SCHEMA)


def tally(counts: Mapping[str, int]) -> str:
    """Return how often each reason occurs, most frequent first: "3 null target, 1 broken"."""
    often: Iterable[tuple[str, int]] = sorted(counts.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{count} {reason}" for reason, count in often if count)


def as_json(row: Mapping[str, object]) -> str:
    """Return a row as JSON text; what JSON has no word for (infinity, NaN) as text."""
    plain = {name: str(value) if _is_odd(value) else value for name, value in row.items()}
    return json.dumps(plain, default=str, ensure_ascii=False)


def _reason(row: Mapping[str, object], told: Mapping[str, Any], target: str | None, places: Sequence[str]) -> str:
    reason = REASONS[told[CODE]]
    if reason == "not finite":
        columns = [name for name, value in row.items() if _is_odd(value)]
        return f"{reason}: {', '.join(f'column {c!r} holds {row[c]}' for c in columns)}"
    if reason == "target outside the classes":
        return f"{reason}: {row[str(target)]!r}"
    if reason == "duplicate key":
        where = _position(places, told[FIRST_FILE], told[FIRST_ROW])
        return f"{reason}: kept is {where}, with {'the same' if told[SAME] else 'other'} values"
    return reason


def _position(places: Sequence[str], file: int, row: int) -> str:
    return f"{places[file]} {row}"


def _is_odd(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
