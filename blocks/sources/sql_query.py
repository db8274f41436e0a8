"""SQL queries as sources, by SQLAlchemy: read only, in batches, and nothing is committed.

A watermark is the highest value of a growing column that was ingested. With it the query selects only rows above that
value: see `docs/ingest.md`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import Any, Final

import sqlalchemy as sa
from asyncpg.exceptions import PostgresError
from sqlalchemy.exc import DBAPIError

from blocks.common.errors import Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.sources.base import RowBatch, Source, check_names, number_range
from blocks.sources.frames import batch_from_columns, column_from_values
from blocks.sources.read_only_sql import check_query, database_url, read_rows
from blocks.sources.secret_addresses import masked
from runtime.digests import text_digest

_BATCH_ROWS = 20_000
_TRANSIENT_WORDS = ("locked", "timeout", "timed out", "too many connections", "deadlock")
_VALUE_NOTE, _KIND_NOTE, _ID_NOTE = "watermark", "watermark type", "watermark id"
_TYPES: Final[Mapping[str, tuple[Any, Any]]] = {
    "integer": (int, sa.Integer),
    "float": (float, sa.Float),
    "decimal": (Decimal, sa.Numeric),
    "time": (datetime, sa.DateTime),
    "date": (date, sa.Date),
    "text": (str, sa.String),
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
        if kind == "text":
            _check_text_times([*earlier, *values], source_description, column)
        return cls(kind, top.isoformat() if isinstance(top, date) else str(top))

    def minus(self, look_back: str) -> "Watermark":
        """Return the watermark that lies `look_back` before this one: "3 days", "36 hours", or a number for numbers.

        Raises:
            Rejected: it is no such text, or does not fit the watermark's type.
        """
        value, back = self.value(), parse_look_back(look_back)
        if self.kind == "text" and isinstance(back, timedelta):
            return Watermark(self.kind, _text_time_minus(value, back))
        if isinstance(back, timedelta) != (self.kind in ("time", "date", "text")):
            what = "a number" if isinstance(back, timedelta) else "a duration, such as 3 days"
            raise Rejected(f"look_back {look_back!r}: the watermark is {self.kind} ({self.value_text}). Give {what}.")
        # A date's smallest part is a day, and an integer's is one: a part of it counts as a whole.
        if self.kind == "date" and isinstance(back, timedelta):
            back = timedelta(days=ceil(back / timedelta(days=1)))
        elif self.kind == "integer" and not isinstance(back, timedelta):
            back = Decimal(ceil(back))
        earlier = value - (back if isinstance(back, timedelta) else type(value)(back))
        return Watermark(self.kind, earlier.isoformat() if isinstance(earlier, date) else str(earlier))

    def value(self) -> Any:
        """Return the value as a Python object."""
        python = _TYPES[self.kind][0]
        return python.fromisoformat(self.value_text) if self.kind in ("time", "date") else python(self.value_text)

    def as_sql(self, dialect: sa.Dialect) -> str:
        """Return the value as an SQL literal of the database, with escaped quotes."""
        shape = sa.DateTime(timezone=True) if self.kind == "time" and self.value().tzinfo else _TYPES[self.kind][1]()
        compiled = sa.literal(self.value(), shape).compile(dialect=dialect, compile_kwargs={"literal_binds": True})
        return str(compiled)

    def notes(self, watermark_id: str) -> dict[str, str]:
        """Return the snapshot notes of this watermark."""
        return {_VALUE_NOTE: self.value_text, _KIND_NOTE: self.kind, _ID_NOTE: watermark_id}


@dataclass(frozen=True)
class WatermarkFilter:
    """Selects the new rows of a query: those whose `column` is greater than `last_value`; None selects all.

    With `look_back` ("3 days", or a number) it selects rows from so far below `last_value`, of which most were read.
    """

    column: str
    last_value: Watermark | None = None
    look_back: str = ""

    @property
    def start(self) -> Watermark | None:
        """The value above which rows are selected."""
        return self.last_value.minus(self.look_back) if self.last_value and self.look_back else self.last_value


class QuerySource(Source):
    """The rows of a query, in the order of the database."""

    def __init__(
        self,
        source: str,
        query: str,
        kinds: Mapping[str, str],
        since: WatermarkFilter | None,
        allowed: SourceSettings,
    ) -> None:
        self.kinds, self._url, self._since = kinds, database_url(source, allowed), since
        self._shown = masked(source)
        if not query.strip():
            raise Rejected(f"{self._shown}: there is no query. Give one that selects {', '.join(kinds)}.")
        check_query(query, self._url, self._shown)
        self.description = f"query on {self._shown}"
        if since and since.look_back:
            parse_look_back(since.look_back)
        if since and since.last_value and since.last_value.kind == "text":
            _check_text_times([since.last_value.value_text], self.description, since.column)
        self._start = since.start if since else None
        if since and self._start:
            self.description += f" where {since.column} > {self._start.value_text}"
        self.may_repeat_rows = bool(since and since.look_back and since.last_value)
        self._query = query
        self._highest: Watermark | None = since.last_value if since else None

    def batches(self) -> Iterator[RowBatch]:
        """Run the query and read its rows in batches: see `Source.batches`."""
        with _database_errors(self.description):
            yield from read_rows(self._url, self._shown, self._read_batches)

    def has_no_new_rows(self) -> bool:
        """Return whether the query selected only rows above a watermark."""
        return bool(self._highest)

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return the highest value of the watermark column, and the watermark's id."""
        if not self._since or not self._highest:
            return {}
        return self._highest.notes(watermark_id(self._shown, self._query, self._since.column))

    def _read_batches(self, connection: sa.Connection) -> Iterator[RowBatch]:
        result = connection.exec_driver_sql(self._filtered_query(connection))
        if not result.returns_rows:
            raise Rejected(f"{self.description}: it returns no rows, and nothing of it is kept. Give a SELECT.")
        names = list(result.keys())
        watermark_column = {self._since.column: "text"} if self._since else {}
        self._ignored = check_names(names, {**watermark_column, **self.kinds}, self.description)
        first = 1
        for columns, count in _columns(result, names):
            if self._since:
                values = columns[self._since.column]
                self._highest = Watermark.highest(
                    values, self._highest, f"{self.description}", first, self._since.column
                )
            typed = {column: column_from_values(columns[column], kind) for column, kind in self.kinds.items()}
            yield batch_from_columns(typed, number_range(first, count), self.kinds)
            first += count

    def _filtered_query(self, connection: sa.Connection) -> str:
        if not self._since or not self._start:
            return self._query
        column = connection.dialect.identifier_preparer.quote(self._since.column)
        inner = self._query.strip().rstrip(";")
        after = self._start.as_sql(connection.dialect)
        return f"SELECT * FROM (\n{inner}\n) newest WHERE newest.{column} > {after}"  # noqa: S608  (a quoted literal)


_LOOK_BACK = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(minutes?|hours?|days?|weeks?)?")
_TEXT_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:([T ])([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)(Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


def parse_look_back(text: str) -> timedelta | Decimal:
    """Return a duration or a number. Raises Rejected if the text is neither."""
    match = _LOOK_BACK.fullmatch(text.strip())
    if not match:
        raise Rejected(f"look_back {text!r}: it is neither a duration nor a number. Give 3 days, 36 hours or 1000.")
    if match[2] is None:
        return Decimal(match[1])
    return timedelta(**{match[2].rstrip("s") + "s": float(match[1])})


def _check_text_times(values: Sequence[str], source_description: str, column: str) -> None:
    """Raise Rejected unless all texts are times of one form and zone: only then their order as text is that of time."""
    forms: dict[object, str] = {}
    for value in values:
        match = _TEXT_TIME.fullmatch(value)
        form = (len(value), match[2], match[4]) if match and _is_time(value) else None
        forms.setdefault(form, value)
        if form is None or len(forms) > 1:
            other = f", and {next(iter(forms.values()))!r}" if len(forms) > 1 else ""
            raise Rejected(
                f"{source_description}: the watermark column {column!r} is text, and holds {value!r}{other}. The order "
                "of text is that of time only for ISO times of one form and zone (2026-01-31T08:00:00Z). Convert it in "
                "the query: CAST it to a time or a number."
            )


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _text_time_minus(text: str, back: timedelta) -> str:
    """Return the time in the same form, `back` before."""
    match = _TEXT_TIME.fullmatch(text)
    assert match  # noqa: S101  (checked when the source was opened)
    earlier = datetime.fromisoformat(text) - back
    if match[2] is None:
        return earlier.date().isoformat()
    clock = earlier.time().replace(tzinfo=None).isoformat("microseconds")[: len(match[3])]
    return f"{earlier.date().isoformat()}{match[2]}{clock}{match[4] or ''}"


def watermark_id(source: str, query: str, column: str) -> str:
    """Return the id of a watermark: the same for the same database, query and column; it contains no password."""
    digest = text_digest("\n".join((masked(source), query.strip().rstrip(";"), column)))
    return f"{column} of query {digest[:16]}"


def _columns(
    result: sa.CursorResult[tuple[object, ...]], names: list[str]
) -> Iterator[tuple[dict[str, tuple[object, ...]], int]]:
    for rows in result.partitions(_BATCH_ROWS):
        yield dict(zip(names, zip(*rows, strict=True), strict=True)), len(rows)


@contextmanager
def _database_errors(description: str) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PostgresError, OSError) as cause:  # asyncpg's own where rows are fetched
        reason = str(getattr(cause, "orig", None) or cause)
        lost = isinstance(cause, OSError) or getattr(cause, "connection_invalidated", False)
        busy = lost or any(word in reason.lower() for word in _TRANSIENT_WORDS)
        error = Unavailable if busy else Rejected
        remedy = "Try again" if busy else "Correct the query, which may only read"
        raise error(f"{description}: {masked(reason)}. {remedy}.") from cause
