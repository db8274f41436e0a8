"""Watermarks: the highest value of a growing column that was ingested, as text and as an SQL literal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Date, DateTime, Float, Integer, Numeric, String, literal
from sqlalchemy.engine import Dialect

from blocks.common.errors import Rejected

_VALUE_NOTE, _KIND_NOTE, _ID_NOTE = "watermark", "watermark type", "watermark id"
_TYPES: Final[Mapping[str, tuple[Any, Any]]] = {
    "integer": (int, Integer),
    "float": (float, Float),
    "decimal": (Decimal, Numeric),
    "time": (datetime, DateTime),
    "date": (date, Date),
    "text": (str, String),
}


@dataclass(frozen=True)
class Watermark:
    """A value of a database column: its type (integer, float, decimal, time, date, text) and the value as text."""

    kind: str
    value_text: str

    @classmethod
    def from_notes(cls, notes: Mapping[str, str], watermark_id: str) -> "Watermark | None":
        """Return the watermark with this id from a snapshot's notes, or None."""
        if notes.get(_ID_NOTE) != watermark_id or notes.get(_KIND_NOTE) not in _TYPES:
            return None
        return cls(notes[_KIND_NOTE], notes[_VALUE_NOTE])

    @classmethod
    def highest(
        cls, values: Sequence[Any], previous: "Watermark | None", source_description: str, first: int, column: str
    ) -> "Watermark | None":
        """Return the greater of the highest value and the previous watermark.

        Raises:
            Rejected: a value is null (later loads would miss such a row) or of a type without an order.
        """
        for index, value in enumerate(values):
            if value is None or value != value:  # noqa: PLR0124  (NaN)
                raise Rejected(
                    f"{source_description} row {first + index}: the watermark column {column!r} is null, so later "
                    "loads could not tell whether the row is new. Exclude such rows, or give them a value in the query."
                )
        try:
            earlier = [] if previous is None else [previous.value()]
            top = max([*earlier, *values])
            kind = next(name for name, (python, _) in _TYPES.items() if type(top) is python)
        except (TypeError, StopIteration) as cause:
            raise Rejected(
                f"{source_description}: the watermark column {column!r} has no order ({cause or type(top).__name__}). "
                "Use a column of whole numbers, times or text of one type."
            ) from cause
        return cls(kind, top.isoformat() if isinstance(top, date) else str(top))

    def value(self) -> Any:
        """Return the value as a Python object."""
        python = _TYPES[self.kind][0]
        return python.fromisoformat(self.value_text) if self.kind in ("time", "date") else python(self.value_text)

    def as_sql(self, dialect: Dialect) -> str:
        """Return the value as an SQL literal of the database, with escaped quotes."""
        shape = DateTime(timezone=True) if self.kind == "time" and self.value().tzinfo else _TYPES[self.kind][1]()
        compiled = literal(self.value(), shape).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        return str(compiled)

    def notes(self, watermark_id: str) -> dict[str, str]:
        """Return the snapshot notes of this watermark."""
        return {_VALUE_NOTE: self.value_text, _KIND_NOTE: self.kind, _ID_NOTE: watermark_id}
