"""The base of all sources: typed rows in batches, each row with its position, and the unreadable rows."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.common.errors import Rejected
from blocks.sources.columns import ARROW_TYPES, Mask, changes_form, convert_column
from runtime.digests import text_digest
from runtime.values import KIND_DESCRIPTIONS, NoCanonicalForm, canonical

MAX_ROW_TEXT = 500
"""Maximum number of characters of an unreadable row's text."""


TABLE_ID_NOTE, TABLE_VERSION_NOTE, _TIME_NOTE = "table", "table version", "table version time"
"""Names of the snapshot notes about the table that was read, and its version."""


@dataclass(frozen=True)
class UnreadableRow:
    """A row that could not be read: its position ("line 12"), the reason, and its text (at most 500 characters)."""

    position: str
    reason: str
    raw_text: str


@dataclass(frozen=True)
class SourceTable:
    """All rows of a source.

    `table` has the declared columns in the order of the declaration, typed by their kinds, with blanks as nulls.
    `positions` has one text per row: "line 12" of a CSV file, "row 7" (counted from 1) of anything else.
    `description` names the source for people; `undeclared_columns` are columns of the source that were not declared.
    """

    table: pa.Table
    positions: pa.ChunkedArray
    unreadable_rows: tuple[UnreadableRow, ...]
    description: str
    undeclared_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowBatch:
    """A batch of rows of a source, in the order of the source.

    `table` is as in `SourceTable`; `row_numbers` (int64) are the line or row numbers; `file_index` is the index of
    their file in `Source.position_labels`; `bytes_read` is the number of bytes read for them, 0 if unknown.
    `changed_columns` have values that earlier releases stored in another form (docs/values.md).
    """

    table: pa.Table
    row_numbers: pa.Array
    unreadable_rows: tuple[UnreadableRow, ...] = ()
    file_index: int = 0
    bytes_read: int = 0
    changed_columns: frozenset[str] = frozenset()


class Source(ABC):
    """A source of typed rows of the declared columns, read in bounded memory.

    No type is guessed and no value moves to another column.

    Attributes:
        kinds: kind of each declared column.
        description: the source, for people.
        position_labels: text before a row's number, one per file: "line" or "row" for a single file, with the file's
            name for several ("b.csv line").
        size_bytes: the size of the source; 0 if unknown.
        may_repeat_rows: whether rows that were read before are read again on purpose.
    """

    kinds: Mapping[str, str]
    description: str
    position_labels: tuple[str, ...] = ("row",)
    size_bytes: int = 0
    may_repeat_rows: bool = False
    _ignored: Iterable[str] = ()

    @abstractmethod
    def batches(self) -> Iterator[RowBatch]:
        """Read the source once, from its beginning.

        Raises:
            Rejected: the source cannot be used; the message gives the place and the remedy.
            Unavailable: the source does not respond, or changed while it was read.
        """

    @property
    def undeclared_columns(self) -> tuple[str, ...]:
        """Columns of the source that were not declared; complete after all batches were read."""
        return tuple(self._ignored)

    def content_digest(self) -> str:
        """Return a digest of the source's content; "" if it is not known without reading the rows."""
        return ""

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return Parquet files that the engine can scan directly, with each declared column as SQL.

        Return None if the rows must be read and checked. The SQL gives exactly the rows of `batches`, and no row of
        these files is unreadable.
        """
        return None

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return notes for the snapshot about the source; valid after all batches were read."""
        return {}

    def has_no_new_rows(self) -> bool:
        """Return whether there are no rows because all were ingested before; valid after all batches were read."""
        return False

    def check_unchanged(self) -> None:  # noqa: B027  (most sources cannot change)
        """Raise Unavailable if the source was changed since it was opened."""

    def close(self) -> None:  # noqa: B027  (most sources have nothing to release)
        """Release connections and downloaded copies."""

    def read_table(self) -> SourceTable:
        """Read everything into memory; for sources that fit.

        Raises:
            Rejected, Unavailable: as `batches`; Rejected also if there are no rows.
        """
        tables, positions, unreadable = [empty_table(self.kinds)], [], list[UnreadableRow]()
        for batch in self.batches():
            tables.append(batch.table)
            positions.extend(label_numbers(self.position_labels[batch.file_index], batch.row_numbers).chunks)
            unreadable.extend(batch.unreadable_rows)
        table = pa.concat_tables(tables)
        if table.num_rows + len(unreadable) == 0:
            raise no_rows_error(self.description)
        labels = pa.chunked_array(positions, type=pa.string())
        return SourceTable(table, labels, tuple(unreadable), self.description, self.undeclared_columns)


class VersionedTable(Source):
    """The rows of a table with versions. Subclasses set `_version`, and `_since` if an earlier one was ingested."""

    _table_id: str
    _version: str
    _version_time: str
    _since: str | None

    def content_digest(self) -> str:
        """Return a digest of the declaration and the versions: a version never changes."""
        return text_digest(f"{list(self.kinds.items())!r} {self._table_id} {self._since} {self._version}")

    def has_no_new_rows(self) -> bool:
        """Return whether an earlier version was ingested."""
        return self._since is not None

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return the table's id, the version that was read, and its time."""
        return {TABLE_ID_NOTE: self._table_id, TABLE_VERSION_NOTE: self._version, _TIME_NOTE: self._version_time}

    def describe(self, kind: str, address: str) -> None:
        """Set the description."""
        since = f" since {self._since}" if self._since is not None else ""
        self.description = f"{kind} table {address} version {self._version}{since}"

    @abstractmethod
    def batches(self) -> Iterator[RowBatch]:
        """Read the rows: see `Source.batches`."""


def no_rows_error(description: str) -> Rejected:
    """Return the error for a source without rows."""
    return Rejected(f"{description}: there are 0 rows. Check the source and its filter.")


def empty_table(kinds: Mapping[str, str]) -> pa.Table:
    """Return an empty table with the declared columns."""
    return pa.table({column: pa.array([], type=ARROW_TYPES[kind]) for column, kind in kinds.items()})


def check_kinds(kinds: Mapping[str, str]) -> None:
    """Raise Rejected if no columns are declared, or a kind does not exist."""
    if not kinds:
        raise Rejected("No columns were declared. Name the entity, the features and the target with their kinds.")
    if unknown := {column: kind for column, kind in kinds.items() if kind not in ARROW_TYPES}:
        raise Rejected(f"These kinds do not exist: {unknown}. Use {', '.join(ARROW_TYPES)}.")


def check_names(names: Sequence[str], kinds: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the columns that were not declared. Raises Rejected for duplicate and missing columns."""
    if not names:
        raise Rejected(f"{where}: there are no columns. Check the program that wrote it.")
    if duplicates := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, duplicates))
        raise Rejected(f"{where}: duplicate column {listed}. Rename or remove one of the two.")
    if missing := [column for column in kinds if column not in names]:
        raise missing_columns_error(where, missing, names)
    return tuple(name for name in names if name not in kinds)


class MissingColumns(Rejected):
    """A source lacks declared columns: `columns`."""

    columns: tuple[str, ...] = ()


def missing_columns_error(where: str, missing: Sequence[str], names: Sequence[str]) -> MissingColumns:
    """Return the error for missing declared columns, with the most similar existing names."""
    hint = ""
    if {"position", "reason", "key", "row"} <= set(names):
        hint = ". This is a quarantine file: to re-drive it, give the quarantine snapshot of its export (redrive)"
    error = MissingColumns(f"{where}: {'; '.join(_missing_hint(column, names) for column in missing)}{hint}.")
    error.columns = tuple(missing)
    return error


def to_typed_batch(
    columns: pa.Table,
    numbers: pa.Array,
    position_label: str,
    kinds: Mapping[str, str],
    text_of: Callable[[int], str],
    earlier_unreadable: Iterable[UnreadableRow] = (),
    converted: Mapping[str, tuple[pa.ChunkedArray, Mask]] | None = None,
) -> RowBatch:
    """Convert columns to their kinds; a row with a value that does not fit becomes an unreadable row.

    `columns` are the declared columns, as text or with the source's types; `numbers` are their line or row numbers
    (int64), and `position_label` is the text before such a number ("line"). `text_of` returns the text of a row by its
    index. `earlier_unreadable` are the rows of the batch that were unreadable before. `converted` has the columns that
    are converted already, with a mask of the values that do not fit.
    """
    values, reasons, changed = {}, dict[int, str](), set[str]()
    for column, kind in kinds.items():
        raw, ready = columns.column(column), (converted or {}).get(column)
        values[column], bad = ready or convert_column(raw, kind, column)
        if ready is None and changes_form(raw, kind):
            changed.add(column)
        for index in np.flatnonzero(bad).tolist():
            reasons.setdefault(index, _unfit_reason(column, kind, raw[index]))
    unreadable = [
        UnreadableRow(f"{position_label} {numbers[index].as_py()}", reasons[index], text_of(index)[:MAX_ROW_TEXT])
        for index in sorted(reasons)
    ]
    in_order = sorted((*earlier_unreadable, *unreadable), key=lambda row: int(row.position.rpartition(" ")[2]))
    table = pa.table(values)
    if reasons:
        keep = np.ones(columns.num_rows, dtype=bool)
        keep[list(reasons)] = False
        table, numbers = table.filter(pa.array(keep)), numbers.filter(pa.array(keep))
    return RowBatch(table, numbers, tuple(in_order), changed_columns=frozenset(changed))


def number_range(first: int, count: int) -> pa.Array:
    """Return `count` consecutive numbers, starting with `first`."""
    return pa.array(np.arange(first, first + count, dtype=np.int64))


def label_numbers(label: str, numbers: pa.Array) -> pa.ChunkedArray:
    """Return the label followed by each number, as a text column."""
    return pa.chunked_array([pc.binary_join_element_wise(label, numbers.cast(pa.string()), " ")])


def row_as_json(raw: pa.Table) -> Callable[[int], str]:
    """Return a function that returns a row of the table as JSON text."""

    def text(index: int) -> str:
        row = {name: _python_value(raw.column(name)[index]) for name in raw.column_names}
        return json.dumps(row, default=str, ensure_ascii=False)

    return text


def declaration_text(kinds: Mapping[str, str]) -> str:
    """Return the declared columns as text, for digests: a key is written as text, its kind before release 0012."""
    return repr([(column, "text" if kind == "key" else kind) for column, kind in kinds.items()])


def _unfit_reason(column: str, kind: str, raw: pa.Scalar) -> str:
    value = _python_value(raw)
    reason = f"not {KIND_DESCRIPTIONS[kind]}: column {column!r} holds {str(value)[:MAX_ROW_TEXT]!r}"
    try:
        canonical(value, kind)
    except NoCanonicalForm as why:
        reason += f" ({why})" if str(why) else ""
    return reason


def _python_value(raw: pa.Scalar) -> object:
    """Return the value; a time that Python cannot hold as text."""
    try:
        return raw.as_py()
    except (ValueError, OverflowError):
        return str(raw.cast(pa.string()))


def _missing_hint(column: str, names: Sequence[str]) -> str:
    near = get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names[:30]))}"
    return f"column {column!r} is missing ({hint})"
