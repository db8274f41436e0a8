"""Rows as this program writes them: what somebody else put into a column is refused, and the row is named."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Double, Integer, RowMapping, Select, String
from sqlalchemy.types import TypeEngine

from blocks.common.errors import Corrupt
from blocks.database.tables import Flag, Json, Unreadable, UtcTimestamp


class UnreadableRow(Corrupt):
    """A column holds what this program would not have written. `before` are the fields of the rows before it."""

    def __init__(self, problem: str, values: Mapping[str, Any]) -> None:
        super().__init__(problem)
        self.values, self.before = values, tuple[dict[str, Any], ...]()


_VALUE_TYPES: tuple[tuple[type[TypeEngine[Any]], tuple[type, ...]], ...] = (
    (UtcTimestamp, (datetime,)), (Json, (tuple, dict)), (Flag, (bool,)), (String, (str,)), (Double, (float,)),
    (Integer, (int,)),
)  # fmt: skip


def record_fields(row: RowMapping, query: Select[Any]) -> dict[str, Any]:
    """Return the values of a row as the fields of its record: without its place in the order of rows.

    Raises:
        UnreadableRow: a value is missing or of another type than its column's.
    """
    check_readable(row, query, complete=True)
    return {name: value for name, value in row.items() if name != "sequence"}


def fields_or_problem(row: RowMapping, query: Select[Any]) -> dict[str, Any] | UnreadableRow:
    """Return the values of a row as fields, or why it cannot be read."""
    try:
        return record_fields(row, query)
    except UnreadableRow as unreadable:
        return unreadable


def check_readable(row: RowMapping, query: Select[Any], *, complete: bool = False) -> None:
    """Raise UnreadableRow if a column holds a value that this program does not write; with `complete` also for NULL."""
    values: Iterable[Any] = row.values()
    for column, value in zip(query.selected_columns, values, strict=True):
        right = next((types for kind, types in _VALUE_TYPES if isinstance(column.type, kind)), (object,))
        if value is None and not complete:
            continue
        if not isinstance(value, right) or (isinstance(value, bool) and bool not in right) or not _is_unicode(value):
            stored = value.stored if isinstance(value, Unreadable) else value
            place, at = next(iter(row.items()))
            raise UnreadableRow(
                f"ledger: table {column.table}, row with {place} {ascii(at)[:80]}: column {column.name} holds "
                f"{ascii(stored)[:80]}, which this program did not write. Restore the database from a backup; see "
                "python -m ratchet audit verify.",
                dict(row),
            )


def _is_unicode(value: object) -> bool:
    """Whether a text can be written again; what was no UTF-8 in the file is read as surrogates."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, tuple) else ()
    texts = [*value.keys(), *value.values()] if isinstance(value, dict) else texts
    try:
        return all(isinstance(each.encode(), bytes) for each in texts)
    except UnicodeEncodeError:
        return False
