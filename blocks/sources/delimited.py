"""CSV files (RFC 4180, UTF-8, comma), read fast and without a guess.

The bytes are looked at first: where quotes open and close, hence where records end and on which line each
begins. What leaves doubt about that refuses the file; a record with too few or too many fields, or a value
that does not fit its column, is set aside with its line, and no value ever moves to another column.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pcsv

from blocks.errors import Rejected
from blocks.sources.base import SHOWN, BrokenRow, SourceTable, check_names, labelled, typed

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BLOCK_BYTES = 1 << 24
_QUOTE, _COMMA, _NEWLINE, _RETURN = b'",\n\r'

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Records:
    """The records of a file, header first, blank lines left out: byte ranges, and the line each begins on."""

    data: bytes
    starts: Positions
    ends: Positions
    lines: Positions

    def text(self, index: int) -> str:
        return self.data[self.starts[index] : self.ends[index]].decode(errors="replace").rstrip("\r")


def read_csv(path: Path, kinds: Mapping[str, str]) -> SourceTable:
    """Return the declared columns of a CSV file; broken records are set aside with their lines.

    Raises:
        Rejected: not UTF-8 text, quotes that do not close, columns that are missing or there twice.
    """
    data = path.read_bytes().removeprefix(_BOM)
    _check_encoding(data, path)
    records = _records(data, path)
    names = next(csv.reader(io.StringIO(records.text(0), newline=""), strict=True))
    _check_separator(names, path)
    ignored = check_names(names, kinds, f"{path} line {records.lines[0]}")
    raw, broken = _parse(records, kinds, path)
    rows = np.delete(np.arange(1, len(records.starts)), [index - 1 for index in broken])
    source = typed(raw, labelled("line", pa.array(records.lines[rows])), kinds, lambda i: records.text(rows[i]))
    odd = [BrokenRow(f"line {records.lines[i]}", why, records.text(i)[:SHOWN]) for i, why in broken.items()]
    everything = sorted((*odd, *source.broken), key=lambda row: int(row.position.split()[1]))
    return SourceTable(source.table, source.positions, tuple(everything), f"CSV file {path}", ignored)


def _check_encoding(data: bytes, path: Path) -> None:
    if not data.strip():
        raise Rejected(f"{path}: the file is empty ({len(data)} bytes). Write it again.")
    if data.startswith(_UTF16):
        raise Rejected(f"{path}: this is UTF-16. Save it as UTF-8.")
    if (at := data.find(b"\0")) >= 0:
        raise Rejected(f"{path} line {_line(data, at)}: a NUL byte. Save it as UTF-8 text; it may be UTF-16.")
    try:
        data.isascii() or data.decode()
    except UnicodeDecodeError as cause:
        where = f"{path} line {_line(data, cause.start)}"
        raise Rejected(
            f"{where}: byte 0x{data[cause.start]:02x} is not UTF-8; it may be Latin-1. Save it as UTF-8."
        ) from cause


def _check_separator(names: list[str], path: Path) -> None:
    found = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
    if found:
        raise Rejected(f"{path} line 1: the columns are separated by {found!r}. Write them with commas.")


def _records(data: bytes, path: Path) -> _Records:
    """Find the records: a newline ends one unless an odd number of quotes stands before it."""
    content = np.frombuffer(data, dtype=np.uint8)
    newlines = np.flatnonzero(content == _NEWLINE)
    quotes = np.flatnonzero(content == _QUOTE) if _QUOTE in data else np.empty(0, dtype=np.int64)
    _check_quotes(data, content, quotes, path)
    if _RETURN in data:
        _check_returns(data, content, quotes, path)
    breaks = newlines[_outside(quotes, newlines)]
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(data))
    length = ends - starts
    first = content[np.minimum(starts, len(data) - 1)]
    full = (length > 1) | ((length == 1) & (first != _RETURN))
    starts, ends = starts[full], ends[full]
    return _Records(data, starts, ends, np.searchsorted(newlines, starts) + 1)


def _check_quotes(data: bytes, content: npt.NDArray[np.uint8], quotes: Positions, path: Path) -> None:
    """Refuse a quote that opens inside a field, closes before its end, or never closes.

    Quotes open and close in turn. One opens at the beginning of a field, or right after the one before it
    (two quotes stand for one); one closes at the end of a field, or right before the next. Without this check
    two records can become one of the right length.
    """
    if not len(quotes):
        return
    opening, closing = quotes[0::2], quotes[1::2]
    separators = np.zeros(256, dtype=bool)
    separators[[_COMMA, _NEWLINE, _RETURN]] = True
    begins = separators[content[opening - 1]] | (opening == 0)
    begins[1:] |= opening[1:] == closing[: len(opening) - 1] + 1
    ends = separators[content[np.minimum(closing + 1, len(data) - 1)]] | (closing == len(data) - 1)
    following = opening[1 : len(closing) + 1]
    ends[: len(following)] |= closing[: len(following)] + 1 == following
    odd = [*opening[~begins][:1], *opening[: len(closing)][~ends][:1]]
    if len(opening) > len(closing):
        odd.append(opening[-1])
    if odd:
        raise Rejected(
            f"{path} line {_line(data, int(min(odd)))}: a quote that is not closed, or inside a field. "
            'Close it, or write it twice ("") in a quoted field.'
        )


def _check_returns(data: bytes, content: npt.NDArray[np.uint8], quotes: Positions, path: Path) -> None:
    returns = np.flatnonzero(content == _RETURN)
    followed = content[np.minimum(returns + 1, len(data) - 1)] == _NEWLINE
    bare = returns[~followed & (returns < len(data) - 1) & _outside(quotes, returns)]
    if len(bare):
        raise Rejected(f"{path} line {_line(data, int(bare[0]))}: a carriage return alone. Use \\n or \\r\\n.")


def _parse(records: _Records, kinds: Mapping[str, str], path: Path) -> tuple[pa.Table, dict[int, str]]:
    """Return the declared columns as text, and the records that have not as many fields as the header."""
    broken: dict[int, str] = {}

    def set_aside(row: pcsv.InvalidRow) -> str:
        broken[row.number - 1] = f"{row.actual_columns} fields where the header has {row.expected_columns}"
        return "skip"

    longest = int((records.ends - records.starts).max())
    table = pcsv.read_csv(
        pa.BufferReader(records.data),
        pcsv.ReadOptions(use_threads=False, block_size=max(_BLOCK_BYTES, 2 * longest + 2)),
        pcsv.ParseOptions(newlines_in_values=True, invalid_row_handler=set_aside),
        pcsv.ConvertOptions(
            check_utf8=False,  # it was, above
            column_types=dict.fromkeys(kinds, pa.string()),
            include_columns=list(kinds),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if table.num_rows + len(broken) + 1 != len(records.starts):
        found = table.num_rows + len(broken)
        raise Rejected(
            f"{path}: {len(records.starts) - 1} records were counted, but {found} read. "
            "Write the file again with plain quotes and line ends."
        )
    return table, broken


def _outside(quotes: Positions, marks: Positions) -> npt.NDArray[np.bool_]:
    """Return which of the marks stand outside quotes."""
    if not len(quotes):
        return np.ones(len(marks), dtype=bool)
    return np.asarray(np.searchsorted(quotes, marks) % 2 == 0)


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1
