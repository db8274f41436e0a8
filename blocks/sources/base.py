"""What every source gives: typed rows with their positions, and the rows that could not be read."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from blocks.errors import Rejected
from blocks.sources.columns import ADJECTIVES, TYPES, convert

SHOWN = 500
"""Characters of a broken row that are kept."""


@dataclass(frozen=True)
class BrokenRow:
    """A row that could not be read: where it is ("line 12"), why, and its text (at most 500 characters)."""

    position: str
    reason: str
    text: str


@dataclass(frozen=True)
class SourceTable:
    """The rows of a source.

    `table` holds the declared columns in the order of the declaration, typed by their kinds, blanks as nulls;
    `positions` one text a row: "line 12" of a CSV file, "row 7" (the first is 1) of anything else;
    `description` says for people what was read; `ignored` names the columns that nobody declared.
    """

    table: pa.Table
    positions: pa.ChunkedArray
    broken: tuple[BrokenRow, ...]
    description: str
    ignored: tuple[str, ...] = ()


def check_kinds(kinds: Mapping[str, str]) -> None:
    """Refuse an empty declaration and kinds that do not exist: `Rejected`."""
    if not kinds:
        raise Rejected("No columns were declared. Name the entity, the features and the target with their kinds.")
    if unknown := {column: kind for column, kind in kinds.items() if kind not in TYPES}:
        raise Rejected(f"These kinds do not exist: {unknown}. Use {', '.join(TYPES)}.")


def check_names(names: Sequence[str], kinds: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Return the columns that nobody declared; refuse duplicate and missing columns: `Rejected`."""
    if not names:
        raise Rejected(f"{where}: there are no columns. Check what wrote it.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Rejected(f"{where}: duplicate column {', '.join(map(repr, twice))}. Rename or remove one of the two.")
    missing = [column for column in kinds if column not in names]
    if missing:
        raise Rejected(f"{where}: {'; '.join(_missing(column, names) for column in missing)}.")
    return tuple(name for name in names if name not in kinds)


def typed(
    raw: pa.Table, positions: pa.ChunkedArray, kinds: Mapping[str, str], text_of: Callable[[int], str]
) -> SourceTable:
    """Type the columns of `raw` by their kinds; a row with a value that does not fit becomes a broken row.

    Args:
        raw: the declared columns, as text or as the source typed them.
        positions: one text a row.
        kinds: column to kind.
        text_of: gives the text of a row by its index in `raw`.
    """
    values, reasons = {}, dict[int, str]()
    for column, kind in kinds.items():
        values[column], bad = convert(raw.column(column), kind, column)
        for index in np.flatnonzero(bad).tolist():
            found = str(raw.column(column)[index].as_py())[:SHOWN]
            reasons.setdefault(index, f"not {ADJECTIVES[kind]}: column {column!r} holds {found!r}")
    broken = tuple(
        BrokenRow(positions[index].as_py(), reasons[index], text_of(index)[:SHOWN]) for index in sorted(reasons)
    )
    table = pa.table(values)
    if reasons:
        keep = np.ones(raw.num_rows, dtype=bool)
        keep[list(reasons)] = False
        table, positions = table.filter(pa.array(keep)), positions.filter(pa.array(keep))
    return SourceTable(table, positions, broken, "")


def numbered(word: str, first: int, count: int) -> pa.ChunkedArray:
    """Return "row 1", "row 2"… as a column of text."""
    return labelled(word, pa.array(np.arange(first, first + count)))


def labelled(word: str, numbers: pa.Array) -> pa.ChunkedArray:
    """Return the word before each number, as a column of text."""
    return pa.chunked_array([pc.binary_join_element_wise(word, numbers.cast(pa.string()), " ")])


def row_text(raw: pa.Table) -> Callable[[int], str]:
    """Return a function that gives a row of the table as JSON text."""

    def text(index: int) -> str:
        return json.dumps(raw.slice(index, 1).to_pylist()[0], default=str, ensure_ascii=False)

    return text


def not_empty(source: SourceTable) -> SourceTable:
    """Return the source; refuse one in which there was not a single row: `Rejected`."""
    if source.table.num_rows + len(source.broken) == 0:
        raise Rejected(f"{source.description}: there are 0 rows. Check the source and its filter.")
    return source


def _missing(column: str, names: Sequence[str]) -> str:
    near = get_close_matches(column, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"there is {', '.join(map(repr, names[:30]))}"
    return f"column {column!r} is missing ({hint})"
