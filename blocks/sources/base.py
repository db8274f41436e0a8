"""The sources port: typed rows in pieces, each with its position, and the rows that could not be read."""

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
from blocks.sources.columns import ARROW_TYPES, KIND_DESCRIPTIONS, convert_column

MAX_ROW_TEXT = 500
"""Characters of a broken row that are kept."""


@dataclass(frozen=True)
class UnreadableRow:
    """A row that could not be read: where it is ("line 12"), why, and its text (at most 500 characters)."""

    position: str
    reason: str
    raw_text: str


@dataclass(frozen=True)
class SourceTable:
    """The rows of a source, all at once.

    `table` holds the declared columns in the order of the declaration, typed by their kinds, blanks as nulls;
    `positions` one text a row: "line 12" of a CSV file, "row 7" (the first is 1) of anything else;
    `description` says for people what was read; `undeclared_columns` names the columns that nobody declared.
    """

    table: pa.Table
    positions: pa.ChunkedArray
    unreadable_rows: tuple[UnreadableRow, ...]
    description: str
    undeclared_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowBatch:
    """Some rows of a source, in its order: the next piece begins where this one ends.

    `table` is as in `SourceTable`; `row_numbers` (int64) are the line or row of each, `file_index` is the place of their
    file in `Source.files`; `bytes_read` of the source were read for them, 0 where that means nothing.
    """

    table: pa.Table
    row_numbers: pa.Array
    unreadable_rows: tuple[UnreadableRow, ...] = ()
    file_index: int = 0
    bytes_read: int = 0


class Source(ABC):
    """Rows of the declared columns, however many, in bounded memory. Nothing is guessed and nothing moves.

    `kinds` maps each declared column to what it is; `word` is what a position counts: "line" or "row".
    `position_labels` are what stands before a row's number, one for each file that rows come from, in order: "line" or
    "row" alone where there is one, with the file's name where there are several ("b.csv line").
    `size_bytes` is the size of the source, 0 when nobody knows.
    """

    kinds: Mapping[str, str]
    description: str
    position_labels: tuple[str, ...] = ("row",)
    size_bytes: int = 0

    @abstractmethod
    def batches(self) -> Iterator[RowBatch]:
        """Read the source once, from its beginning.

        Raises:
            Rejected: the source cannot be used as a whole; the message says where and what to do.
            Unavailable: it does not answer, or changed while it was read.
        """

    @property
    @abstractmethod
    def undeclared_columns(self) -> tuple[str, ...]:
        """The columns that nobody declared; complete once all pieces were read."""

    def content_digest(self) -> str:
        """Return a digest that says what the source holds, or "" when only reading its rows will tell."""
        return ""

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return Parquet files that need no reading by us, and each declared column as SQL; None for all others.

        The SQL gives exactly what `pieces` would give, and there is no value that could be broken.
        """
        return None

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return what the snapshot should remember of the source, known once all pieces were read."""
        return {}

    def has_no_new_rows(self) -> bool:
        """Return whether there is no row because all there is has landed before; known once all pieces were read."""
        return False

    def check_unchanged(self) -> None:  # noqa: B027  (most sources have nothing to look at)
        """Refuse a source that was written to since it was opened: `Unavailable`."""

    def close(self) -> None:  # noqa: B027  (most sources hold nothing)
        """Release what the source holds: connections, fetched copies."""

    def read_table(self) -> SourceTable:
        """Read everything into memory; for sources that fit.

        Raises:
            Rejected, Unavailable: as `pieces`, and when there is not a single row.
        """
        tables, positions, broken = [empty_table(self.kinds)], [], list[UnreadableRow]()
        for piece in self.batches():
            tables.append(piece.table)
            positions.extend(label_numbers(self.position_labels[piece.file_index], piece.row_numbers).chunks)
            broken.extend(piece.unreadable_rows)
        whole = pa.concat_tables(tables)
        if whole.num_rows + len(broken) == 0:
            raise no_rows_error(self.description)
        where = pa.chunked_array(positions, type=pa.string())
        return SourceTable(whole, where, tuple(broken), self.description, self.undeclared_columns)


def no_rows_error(description: str) -> Rejected:
    """Return the error for a source in which there is not a single row."""
    return Rejected(f"{description}: there are 0 rows. Check the source and its filter.")


def empty_table(kinds: Mapping[str, str]) -> pa.Table:
    """Return the table of the declared columns without a row."""
    return pa.table({column: pa.array([], type=ARROW_TYPES[kind]) for column, kind in kinds.items()})


def check_kinds(kinds: Mapping[str, str]) -> None:
    """Refuse an empty declaration and kinds that do not exist: `Rejected`."""
    if not kinds:
        raise Rejected("No columns were declared. Name the entity, the features and the target with their kinds.")
    if unknown := {column: kind for column, kind in kinds.items() if kind not in ARROW_TYPES}:
        raise Rejected(f"These kinds do not exist: {unknown}. Use {', '.join(ARROW_TYPES)}.")


def check_names(names: Sequence[str], kinds: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the columns that nobody declared; refuse duplicate and missing columns: `Rejected`."""
    if not names:
        raise Rejected(f"{where}: there are no columns. Check what wrote it.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Rejected(f"{where}: duplicate column {', '.join(map(repr, twice))}. Rename or remove one of the two.")
    if missing := [column for column in kinds if column not in names]:
        raise missing_columns_error(where, missing, names)
    return tuple(name for name in names if name not in kinds)


def missing_columns_error(where: str, missing: Sequence[str], names: Sequence[str]) -> Rejected:
    """Return the error for declared columns that are not there, with the nearest names that are."""
    hint = ""
    if {"position", "reason", "key", "row"} <= set(names):
        hint = ". This is a quarantine file: name the snapshot that it is a mended copy of (redrive)"
    return Rejected(f"{where}: {'; '.join(_missing_hint(column, names) for column in missing)}{hint}.")


def to_typed_batch(
    columns: pa.Table,
    numbers: pa.Array,
    position_label: str,
    kinds: Mapping[str, str],
    text_of: Callable[[int], str],
    earlier_unreadable: Iterable[UnreadableRow] = (),
) -> RowBatch:
    """Type the columns of `columns` by their kinds; a row with a value that does not fit becomes a broken row.

    Args:
        columns: the declared columns, as text or as the source typed them.
        numbers: the line or row of each, int64.
        position_label: what stands before the number in a broken row's position, such as "line".
        kinds: column to kind.
        text_of: gives the text of a row by its index in `columns`.
        earlier_unreadable: rows that were found to be broken before; they come first.
    """
    values, reasons = {}, dict[int, str]()
    for column, kind in kinds.items():
        values[column], bad = convert_column(columns.column(column), kind, column)
        for index in np.flatnonzero(bad).tolist():
            found = str(columns.column(column)[index].as_py())[:MAX_ROW_TEXT]
            reasons.setdefault(index, f"not {KIND_DESCRIPTIONS[kind]}: column {column!r} holds {found!r}")
    broken = tuple(
        UnreadableRow(f"{position_label} {numbers[index].as_py()}", reasons[index], text_of(index)[:MAX_ROW_TEXT])
        for index in sorted(reasons)
    )
    table = pa.table(values)
    if reasons:
        keep = np.ones(columns.num_rows, dtype=bool)
        keep[list(reasons)] = False
        table, numbers = table.filter(pa.array(keep)), numbers.filter(pa.array(keep))
    return RowBatch(table, numbers, (*earlier_unreadable, *broken))


def number_range(first: int, count: int) -> pa.Array:
    """Return the numbers of so many rows, from `first` on."""
    return pa.array(np.arange(first, first + count, dtype=np.int64))


def label_numbers(word: str, numbers: pa.Array) -> pa.ChunkedArray:
    """Return the word before each number, as a column of text."""
    return pa.chunked_array([pc.binary_join_element_wise(word, numbers.cast(pa.string()), " ")])


def row_as_json(raw: pa.Table) -> Callable[[int], str]:
    """Return a function that gives a row of the table as JSON text."""

    def text(index: int) -> str:
        return json.dumps(raw.slice(index, 1).to_pylist()[0], default=str, ensure_ascii=False)

    return text


def _missing_hint(column: str, names: Sequence[str]) -> str:
    near = get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names[:30]))}"
    return f"column {column!r} is missing ({hint})"
