"""Quarantined rows: the reason of each, and what a person needs to find and correct it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

KNOWN_KEY = "key already in the lake"
"""The reason of a row whose key the lake holds with other values, or the same."""

QUARANTINE_REASONS = (
    "null entity key",
    "null key or time",
    "null group",
    KNOWN_KEY,
    "null target",
    "target outside the classes",
    "not finite",
    "duplicate key",
)
"""The reasons for which a readable row is quarantined. A row gets the first that applies."""

FILE_COLUMN, ROW_COLUMN, REASON_CODE_COLUMN = "_ratchet_file", "_ratchet_row", "_ratchet_code"
"""The position of a row (index of its file, number within it), and the index of its reason in `QUARANTINE_REASONS`."""

FIRST_FILE_COLUMN, FIRST_ROW_COLUMN, SAME_VALUES_COLUMN = "_ratchet_first_file", "_ratchet_first_row", "_ratchet_same"
"""For a duplicate key: the position of the accepted row, and whether its values are the same."""

QUARANTINE_SCHEMA = pa.schema([(name, pa.string()) for name in ("position", "reason", "key", "row")])
"""The columns of a quarantine data set, all text. `row` is JSON; `key` is null when unknown."""


def quarantine_table(
    invalid_rows: pa.Table, columns: Sequence[str], entity: str, target: str | None, places: Sequence[str]
) -> pa.Table:
    """Return invalid rows in the form of the quarantine data set.

    `invalid_rows` holds the declared `columns` and the columns named above. `places` are the texts before a row's
    number, by file.
    """
    rows = invalid_rows.select(columns).to_pylist()
    reason_rows = invalid_rows.drop_columns([*columns]).to_pylist()
    return pa.table(
        [
            [_position(places, where[FILE_COLUMN], where[ROW_COLUMN]) for where in reason_rows],
            [_reason(row, where, target, places) for row, where in zip(rows, reason_rows, strict=True)],
            invalid_rows.column(entity).cast(pa.string()),
            [row_json(row) for row in rows],
        ],
        schema=QUARANTINE_SCHEMA,
    )


def unreadable_table(unreadable: pa.Table) -> pa.Table:
    """Return unreadable rows (position, reason, text) in the form of the quarantine data set."""
    texts = [row_json({"text": text}) for text in unreadable.column("text").to_pylist()]
    keys = pa.nulls(unreadable.num_rows, pa.string())
    return pa.table([unreadable.column("position"), unreadable.column("reason"), keys, texts], schema=QUARANTINE_SCHEMA)


def reason_summary(counts: Mapping[str, int]) -> str:
    """Return how often each reason occurs, the most frequent first: "3 null target, 1 unreadable"."""
    by_frequency: Iterable[tuple[str, int]] = sorted(counts.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{count} {reason}" for reason, count in by_frequency if count)


def ingest_summary(accepted: int, notes: Mapping[str, str]) -> str:
    """Return what became of the rows, by a snapshot's notes: "195 of 200 accepted, 5 set aside: 5 null target."."""
    rows_in, quarantined = int(notes["rows_in"]), int(notes["quarantined"])
    text = f"{accepted:,} of {rows_in:,} accepted"
    if quarantined:
        reasons = f": {notes['reasons']}" if "reasons" in notes else ""
        aside = f" (quarantine snapshot {notes['quarantine_snapshot']})" if "quarantine_snapshot" in notes else ""
        text += f", {quarantined:,} set aside{reasons}{aside}"
    return f"{text}. {notes.get('look here', '')}".strip()


def row_json(row: Mapping[str, object]) -> str:
    """Return a row as JSON text. NaN and infinity, which JSON lacks, become text."""
    plain = {name: str(value) if _is_not_finite(value) else value for name, value in row.items()}
    return json.dumps(plain, default=str, ensure_ascii=False)


def _reason(row: Mapping[str, object], position: Mapping[str, Any], target: str | None, places: Sequence[str]) -> str:
    reason = QUARANTINE_REASONS[position[REASON_CODE_COLUMN]]
    if reason == "not finite":
        columns = [name for name, value in row.items() if _is_not_finite(value)]
        return f"{reason}: {', '.join(f'column {c!r} holds {row[c]}' for c in columns)}"
    if reason == "target outside the classes":
        return f"{reason}: {row[str(target)]!r}"
    if reason == "duplicate key":
        where = _position(places, position[FIRST_FILE_COLUMN], position[FIRST_ROW_COLUMN])
        return f"{reason}: kept is {where}, with {'the same' if position[SAME_VALUES_COLUMN] else 'other'} values"
    return reason


def _position(places: Sequence[str], file: int, row: int) -> str:
    return f"{places[file]} {row}"


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
