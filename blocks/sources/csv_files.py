"""Reads CSV files (RFC 4180, in the declared dialect) in blocks of complete records, without guessing.

The bytes are scanned first for quotes, which determine where records end and on which line each begins. A file with
ambiguous quotes is rejected. A record with too few or too many fields, or with a value that does not fit its column,
becomes an unreadable row with its line number. No value ever moves to another column.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pcsv

from blocks.common.errors import Rejected
from blocks.sources.base import MAX_ROW_TEXT, RowBatch, UnreadableRow, check_names, to_typed_batch
from blocks.sources.dialects import DELIMITERS, SourceFormat, declared_delimiter, plain_numbers
from blocks.sources.file_listing import SourceFile
from blocks.sources.text_blocks import TextBlock, check_text, map_ordered, read_blocks
from runtime.values import KIND_DESCRIPTIONS

_BLOCK_BYTES = 1 << 24
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
_DECIMAL_COMMA = re.compile(r"holds '\s*[+-]?[0-9]*,[0-9]+\s*'$")
_EXCEL_LINE = re.compile(rb'"?sep=(.)"?;*,*\r?\n', re.IGNORECASE)
_NOT_EMPTY = re.compile(rb"[^\r\n]|\r[^\n]")

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Records:
    """The records of a block, without blank lines: byte ranges, and the line that each begins on."""

    block: TextBlock
    starts: Positions
    ends: Positions
    lines: Positions

    def text(self, index: int) -> str:
        return self.block.data[self.starts[index] : self.ends[index]].decode(errors="replace").rstrip("\r")

    def without_first(self) -> "_Records":
        return replace(self, starts=self.starts[1:], ends=self.ends[1:], lines=self.lines[1:])


@dataclass(frozen=True)
class _Dialect:
    """The declared format of a file, and its delimiter."""

    format: SourceFormat
    delimiter: str


def csv_batches(file: SourceFile, kinds: Mapping[str, str], ignored: dict[str, None]) -> Iterator[RowBatch]:
    """Yield the declared columns of a CSV file in batches, with the unreadable records.

    Adds undeclared columns to `ignored`.

    Raises:
        Rejected: not text in the declared dialect, unclosed quotes, missing or duplicate columns.
    """
    dialect = _Dialect(file.format, declared_delimiter(file.format, file.path))
    find_record_end = _last_record_end if file.format.quoted else _last_line_end
    blocks = (block for block in read_blocks(file, find_record_end, encoding=file.format.encoding) if _has_line(block))
    if (block := next(blocks, None)) is None:
        raise Rejected(f"{file.path}: the file holds line ends only. Write it again.")
    first = _without_excel_line(block, dialect)
    _check_header_delimiter(first, dialect)
    top = _find_records(first, dialect)
    names = _header(top, dialect)
    ignored.update(dict.fromkeys(check_names(names, kinds, f"{file.path} line {top.lines[0]}")))
    read = partial(_read_block, names=names, kinds=kinds, place=file.position_label, dialect=dialect)
    yield read(first, header=True)
    yield from map_ordered(read, blocks)


def _has_line(block: TextBlock) -> bool:
    """Whether the block has a line that is not empty; what follows the first block may be the only one."""
    return _NOT_EMPTY.search(block.data) is not None


def _without_excel_line(block: TextBlock, dialect: _Dialect) -> TextBlock:
    """Return the block without Excel's line `sep=;`, which must name the declared delimiter."""
    line = _EXCEL_LINE.match(block.data)
    if line is None:
        return block
    if (named := line[1].decode(errors="replace")) != dialect.delimiter:
        raise _delimiter_error(block, named, dialect, "Excel's line sep= names")
    if len(rest := block.data[line.end() :]) == 0:
        raise Rejected(f"{block.path}: there is nothing after Excel's line sep=. Write it again.")
    return TextBlock(block.path, rest, block.first_line + 1)


def _check_header_delimiter(block: TextBlock, dialect: _Dialect) -> None:
    """Raise Rejected if the header has another delimiter outside quotes, and not the declared one."""
    line = block.data.split(b"\n", maxsplit=1)[0].decode(errors="replace")
    outside = "".join(line.split('"')[::2]) if dialect.format.quoted else line
    if dialect.delimiter not in outside and (other := next((mark for mark in DELIMITERS if mark in outside), None)):
        raise _delimiter_error(block, other, dialect, "the columns are separated by")


def _delimiter_error(block: TextBlock, found: str, dialect: _Dialect, what: str) -> Rejected:
    known = found in DELIMITERS
    remedy = f"Declare data.source.delimiter: {DELIMITERS[found]}" if known else "Take the line out"
    expected = DELIMITERS[dialect.delimiter]
    return Rejected(
        f"{block.path} line {block.first_line}: {what} {found!r}, and the table is declared with a {expected}. "
        f"{remedy}, or write the file again."
    )


def _header(records: _Records, dialect: _Dialect) -> list[str]:
    text = io.StringIO(records.text(0), newline="")
    if dialect.format.quoted:
        return next(csv.reader(text, delimiter=dialect.delimiter, strict=True))
    return next(csv.reader(text, delimiter=dialect.delimiter, quoting=csv.QUOTE_NONE))


def _read_block(
    block: TextBlock, *, names: list[str], kinds: Mapping[str, str], place: str, dialect: _Dialect, header: bool = False
) -> RowBatch:
    records = _find_records(block, dialect)
    if header:
        records = records.without_first()
    raw, broken = _parse(records, names, kinds, dialect)
    rows = np.delete(np.arange(len(records.starts)), list(broken))
    raw, odd_numbers = plain_numbers(raw, kinds, dialect.format)
    if odd_numbers:
        for row, (column, text) in odd_numbers.items():
            what = f"not {KIND_DESCRIPTIONS[kinds[column]]} as declared (data.source.decimal, data.source.thousands)"
            broken[int(rows[row])] = f"{what}: column {column!r} holds {text!r}"
        kept = np.delete(np.arange(len(rows)), list(odd_numbers))
        raw, rows = raw.take(pa.array(kept)), rows[kept]
    odd = [
        UnreadableRow(f"{place} {records.lines[i]}", why, records.text(i)[:MAX_ROW_TEXT]) for i, why in broken.items()
    ]
    piece = to_typed_batch(raw, pa.array(records.lines[rows]), place, kinds, lambda i: records.text(rows[i]), odd)
    unreadable = tuple(map(_with_decimal_hint, piece.unreadable_rows))
    return replace(piece, unreadable_rows=unreadable, bytes_read=len(block.data))


def _with_decimal_hint(row: UnreadableRow) -> UnreadableRow:
    """Return the row; if its number seems to have a decimal comma, with the key that declares one."""
    hint = (
        ". If the comma is a mark, declare data.source.decimal or thousands"
        if _DECIMAL_COMMA.search(row.reason)
        else ""
    )
    return replace(row, reason=row.reason + hint)


def _last_line_end(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _last_record_end(data: bytes) -> int:
    """Return the end of the last complete record: after a newline with an even number of quotes before it."""
    end = data.rfind(b"\n") + 1
    if data.count(b'"', 0, end) % 2 == 0:
        return end
    content = np.frombuffer(data, dtype=np.uint8)
    newlines = np.flatnonzero(content == _NEWLINE)
    outside = newlines[_outside_quotes(np.flatnonzero(content == _QUOTE), newlines)]
    return int(outside[-1]) + 1 if len(outside) else 0


def _find_records(block: TextBlock, dialect: _Dialect) -> _Records:
    """Find the records: a newline ends one unless an odd number of quotes is before it."""
    check_text(block)
    data = block.data
    content = np.frombuffer(data, dtype=np.uint8)
    newlines = np.flatnonzero(content == _NEWLINE)
    with_quotes = dialect.format.quoted and _QUOTE in data
    quotes = np.flatnonzero(content == _QUOTE) if with_quotes else np.empty(0, dtype=np.int64)
    _check_quotes(block, content, quotes, ord(dialect.delimiter))
    if _RETURN in data:
        _check_returns(block, content, quotes)
    breaks = newlines[_outside_quotes(quotes, newlines)]
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(data))
    length = ends - starts
    first = content[np.minimum(starts, len(data) - 1)]
    full = (length > 1) | ((length == 1) & (first != _RETURN))
    starts, ends = starts[full], ends[full]
    return _Records(block, starts, ends, np.searchsorted(newlines, starts) + block.first_line)


def _check_quotes(block: TextBlock, content: npt.NDArray[np.uint8], quotes: Positions, delimiter: int) -> None:
    """Raise Rejected for a quote that opens inside a field, closes before its end, or never closes.

    Quotes alternately open and close. A quote opens at the beginning of a field, or directly after the previous one
    (two quotes mean one); a quote closes at the end of a field, or directly before the next one. Without this check
    two records could become one of the right length.
    """
    if not len(quotes):
        return
    opening, closing = quotes[0::2], quotes[1::2]
    separators = np.zeros(256, dtype=bool)
    separators[[delimiter, _NEWLINE, _RETURN]] = True
    begins = separators[content[opening - 1]] | (opening == 0)
    begins[1:] |= opening[1:] == closing[: len(opening) - 1] + 1
    ends = separators[content[np.minimum(closing + 1, len(content) - 1)]] | (closing == len(content) - 1)
    following = opening[1 : len(closing) + 1]
    ends[: len(following)] |= closing[: len(following)] + 1 == following
    odd = [*opening[~begins][:1], *opening[: len(closing)][~ends][:1]]
    if len(opening) > len(closing):
        odd.append(opening[-1])
    if odd:
        raise Rejected(
            f"{block.location_of(int(min(odd)))}: a quote that is not closed, or inside a field. "
            'Close it, or write it twice ("") in a quoted field.'
        )


def _check_returns(block: TextBlock, content: npt.NDArray[np.uint8], quotes: Positions) -> None:
    returns = np.flatnonzero(content == _RETURN)
    followed = content[np.minimum(returns + 1, len(content) - 1)] == _NEWLINE
    bare = returns[~followed & (returns < len(content) - 1) & _outside_quotes(quotes, returns)]
    if len(bare):
        raise Rejected(f"{block.location_of(int(bare[0]))}: a single carriage return. Use \\n or \\r\\n.")


def _parse(
    records: _Records, names: list[str], kinds: Mapping[str, str], dialect: _Dialect
) -> tuple[pa.Table, dict[int, str]]:
    """Return the declared columns as text, and the records with another number of fields than the header."""
    broken: dict[int, str] = {}
    if not len(records.starts):
        return pa.table({column: pa.array([], type=pa.string()) for column in kinds}), broken

    def set_aside(row: pcsv.InvalidRow) -> str:
        broken[row.number - 1] = f"{row.actual_columns} fields where the header has {row.expected_columns}"
        return "skip"

    longest = int((records.ends - records.starts).max())
    table = pcsv.read_csv(
        pa.BufferReader(pa.py_buffer(records.block.data)[int(records.starts[0]) :]),
        pcsv.ReadOptions(use_threads=False, block_size=max(_BLOCK_BYTES, 2 * longest + 2), column_names=names),
        pcsv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char='"' if dialect.format.quoted else False,
            newlines_in_values=dialect.format.quoted,
            invalid_row_handler=set_aside,
        ),
        pcsv.ConvertOptions(
            check_utf8=False,  # it was checked before
            column_types=dict.fromkeys(kinds, pa.string()),
            include_columns=list(kinds),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if table.num_rows + len(broken) != len(records.starts):
        parsed = table.num_rows + len(broken)
        raise Rejected(
            f"{records.block.location_of(0)}: {len(records.starts)} records were counted from here, but {parsed} read. "
            "Write the file again with plain quotes and line ends."
        )
    return table, broken


def _outside_quotes(quotes: Positions, marks: Positions) -> npt.NDArray[np.bool_]:
    """Return which of the positions are outside quotes."""
    if not len(quotes):
        return np.ones(len(marks), dtype=bool)
    return np.asarray(np.searchsorted(quotes, marks) % 2 == 0)
