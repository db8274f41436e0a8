"""The highest value of a column that only grows: what was read up to, written so that it can be asked for again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Date, DateTime, Float, Integer, Numeric, String, literal
from sqlalchemy.engine import Dialect

from blocks.common.errors import Rejected

_VALUE_NOTE, _KIND_NOTE, _ID_NOTE = "watermark", "watermark type", "watermark of"
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
    """A value of a database column: its kind (integer, float, decimal, time, date, text) and the value as text."""

    kind: str
    value_text: str

    @classmethod
    def from_notes(cls, notes: Mapping[str, str], watermark_id: str) -> "Watermark | None":
        """Return the watermark that a snapshot's notes hold for `watermark_id`, or None."""
        if notes.get(_ID_NOTE) != watermark_id or notes.get(_KIND_NOTE) not in _TYPES:
            return None
        return cls(notes[_KIND_NOTE], notes[_VALUE_NOTE])

    @classmethod
    def highest(
        cls, values: Sequence[Any], previous: "Watermark | None", source_description: str, first: int, column: str
    ) -> "Watermark | None":
        """Return the greater of the highest value and the one before.

        Raises:
            Rejected: a value is null (such a row would never be asked for again) or of a type without an order.
        """
        for place, value in enumerate(values):
            if value is None or value != value:  # noqa: PLR0124  (NaN)
                raise Rejected(
                    f"{source_description} row {first + place}: the watermark column {column!r} is null, so the row could never "
                    "be told from new ones. Leave such rows out, or give them a value in the query."
                )
        try:
            known = [] if previous is None else [previous.value()]
            top = max([*known, *values])
            kind = next(name for name, (python, _) in _TYPES.items() if type(top) is python)
        except (TypeError, StopIteration) as cause:
            raise Rejected(
                f"{source_description}: the watermark column {column!r} has no order ({cause or type(top).__name__}). "
                "Use a column of whole numbers, times or text of one type."
            ) from cause
        return cls(kind, top.isoformat() if isinstance(top, date) else str(top))

    def value(self) -> Any:
        """Return the value as Python has it."""
        python = _TYPES[self.kind][0]
        return python.fromisoformat(self.value_text) if self.kind in ("time", "date") else python(self.value_text)

    def as_sql(self, dialect: Dialect) -> str:
        """Return the value as a literal of the database, its quotes escaped."""
        shape = DateTime(timezone=True) if self.kind == "time" and self.value().tzinfo else _TYPES[self.kind][1]()
        compiled = literal(self.value(), shape).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        return str(compiled)

    def notes(self, watermark_id: str) -> dict[str, str]:
        """Return what a snapshot has to remember."""
        return {_VALUE_NOTE: self.value_text, _KIND_NOTE: self.kind, _ID_NOTE: watermark_id}
