"""Declared dialects of text files: delimiter, decimal mark, encoding, compression; nothing is guessed.

`model.yaml` declares how the files of a table are written (`source`). A file that looks as if it were written
otherwise is rejected, and the message names the key to declare.
"""

import codecs
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from blocks.common.errors import Rejected

UTF_8 = "utf-8"

DELIMITERS: Final = {"\t": "tab", ";": "semicolon", "|": "bar", ",": "comma"}
"""The delimiters that are recognised in a header, with the words that declare them."""

MAX_EXPANSION = 200
"""A compressed file that expands more than this is an error, after `FREE_EXPANSION_BYTES`."""

FREE_EXPANSION_BYTES = 1 << 28
"""Bytes that a compressed file may expand to whatever its size."""

_GZIP_SUFFIX = ".gz"
_ARCHIVES: Final = {
    b"PK\x03\x04": "a ZIP archive, perhaps an Excel workbook",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ\x00": "compressed by xz",
    b"PAR1": "a Parquet file",
}
_GZIP_MAGIC = b"\x1f\x8b"
_UTF_16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CONTROLS = re.compile(rb"[\x80-\x9f]")
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class SourceFormat:
    """How the files of a source are written, as `model.yaml` declares it (`data.source`, `data.tables.<name>.source`).

    Attributes:
        delimiter: the character between the fields of a CSV file; "" for a tab in `.tsv` files and a comma in others.
        decimal: the decimal mark of numbers in CSV files.
        thousands: the characters that may be between groups of three digits; "" if there are none.
        encoding: the encoding of CSV files, a name that Python knows.
        quoted: whether a field of a CSV file may be in double quotes.
        partitions: columns whose values are in the names of folders, `name=value/`.
    """

    delimiter: str = ""
    decimal: str = "."
    thousands: str = ""
    encoding: str = UTF_8
    quoted: bool = True
    partitions: tuple[str, ...] = ()

    @property
    def plain_numbers(self) -> bool:
        """Whether numbers are written with a decimal point and without groups."""
        return (self.decimal, self.thousands) == (".", "")

    @property
    def declaration(self) -> str:
        """What was declared, as text; "" for the defaults. Part of a source's digest."""
        return "" if self == PLAIN_FORMAT else repr(self)


PLAIN_FORMAT: Final = SourceFormat()
"""What is read where nothing is declared: CSV as RFC 4180 has it, in UTF-8; tabs in `.tsv` files; no partitions."""


def data_suffix(path: Path) -> str:
    """Return the suffix that names the format, in lower case: ".csv" of "rows.CSV.gz"."""
    return Path(path.stem).suffix.lower() if is_compressed(path) else path.suffix.lower()


def is_compressed(path: Path) -> bool:
    """Return whether the file's name declares gzip."""
    return path.suffix.lower() == _GZIP_SUFFIX


def declared_delimiter(format_: SourceFormat, path: Path) -> str:
    """Return the delimiter of a file."""
    return format_.delimiter or ("\t" if data_suffix(path) == ".tsv" else ",")


class _Expanded:
    """Reads a gzip file as a stream, and fails when it expands beyond all reason."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path, self._bytes = cast(BinaryIO, gzip.GzipFile(fileobj=stream)), path, 0
        self._limit = max(FREE_EXPANSION_BYTES, MAX_EXPANSION * path.stat().st_size)

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile) as cause:
            raise Rejected(f"{self._path}: this is not a whole gzip file ({cause}). Write it again.") from cause
        self._bytes += len(data)
        if self._bytes > self._limit:
            raise Rejected(
                f"{self._path}: it expands to more than {self._limit >> 20} MB, {MAX_EXPANSION} times its size. "
                "If that is right, decompress it and ingest the result."
            )
        return data


class _Transcoded:
    """Reads a stream in another encoding as UTF-8 bytes."""

    def __init__(self, stream: "BinaryIO | _Expanded", path: Path, encoding: str) -> None:
        self._stream, self._path, self._encoding = stream, path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._utf8: codecs.IncrementalDecoder | None = codecs.getincrementaldecoder(UTF_8)()
        self._single_byte = _is_single_byte(encoding)
        self._bytes, self._foreign = 0, False

    def read(self, size: int) -> bytes:
        text = ""
        while not text:  # a block may end within a character
            data = self._stream.read(size)
            if self._single_byte:
                self._check_single_byte(data)
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError as cause:
                raise Rejected(
                    f"{self._path}: after byte {self._bytes} it is not {self._encoding} ({cause}). Declare its "
                    "encoding (data.source.encoding), or write it again."
                ) from cause
            self._bytes += len(data)
            if not data:
                break
        return text.encode()

    def _check_single_byte(self, data: bytes) -> None:
        """Raise Rejected for bytes that show another encoding: any byte is a character in these encodings."""
        self._foreign = self._foreign or not data.isascii()
        if self._encoding.startswith(("iso8859", "latin")) and (control := _CONTROLS.search(data)):
            raise Rejected(
                f"{self._path}: byte {self._bytes + control.start()} is 0x{control[0][0]:02x}, a control character in "
                f"{self._encoding}. It may be windows-1252: declare data.source.encoding: windows-1252."
            )
        if self._utf8:
            try:
                self._utf8.decode(data, final=not data)
            except UnicodeDecodeError:
                self._utf8 = None
            else:
                if not data and self._foreign:
                    raise Rejected(
                        f"{self._path}: {self._encoding} is declared, but all of it is valid UTF-8. Take "
                        "data.source.encoding out of model.yaml, or write the file as declared."
                    )


@contextmanager
def open_text(path: Path, encoding: str = UTF_8) -> "Iterator[BinaryIO | _Expanded | _Transcoded]":
    """Open a text file, gzip by its name, as a stream of bytes that should be UTF-8: see `SourceFormat.encoding`.

    Raises:
        Rejected: the file is compressed otherwise than its name says, or (while it is read) not in its encoding.
    """
    with path.open("rb") as raw:
        _check_magic(path, raw.read(6), encoding)
        raw.seek(0)
        stream: BinaryIO | _Expanded = _Expanded(raw, path) if is_compressed(path) else raw
        name = codecs.lookup(encoding).name
        yield stream if name == UTF_8 else _Transcoded(stream, path, name)


def _check_magic(path: Path, first: bytes, encoding: str) -> None:
    compressed = first.startswith(_GZIP_MAGIC)
    if compressed and not is_compressed(path):
        raise Rejected(f"{path}: this is compressed by gzip. Name it {path.name}{_GZIP_SUFFIX}, or decompress it.")
    if is_compressed(path) and not compressed and first:
        raise Rejected(f"{path}: this is not gzip, as its name says. Compress it, or take {_GZIP_SUFFIX} off its name.")
    if archive := next((what for magic, what in _ARCHIVES.items() if first.startswith(magic)), None):
        raise Rejected(f"{path}: this is {archive}, not text. Export it as text, or decompress it.")
    if first.startswith(_UTF_16_MARKS) and not codecs.lookup(encoding).name.startswith("utf-16"):
        raise Rejected(f"{path}: this is UTF-16. Save it as UTF-8, or declare data.source.encoding: utf-16.")


def _is_single_byte(encoding: str) -> bool:
    """Return whether every byte is a character, so that decoding cannot fail and proves nothing."""
    try:
        return len(bytes(range(0xA0, 0x100)).decode(encoding, errors="replace")) == 0x60
    except UnicodeError:
        return False


_NUMERIC_KINDS = ("number", "integer", "flag")
_POINT_NUMBER = r"^[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?$"


def plain_numbers(
    columns: pa.Table, kinds: Mapping[str, str], format_: SourceFormat
) -> tuple[pa.Table, dict[int, tuple[str, str]]]:
    """Return the columns with numbers as `1234.5`, and by row the column and text of a number of another form.

    Such a number is not as declared: "1.234" with a decimal comma and no declared groups may mean two values.
    """
    bad: dict[int, tuple[str, str]] = {}
    if format_.plain_numbers:
        return columns, bad
    point, group = re.escape(format_.decimal), f"[{re.escape(format_.thousands)}]"
    whole = f"([0-9]{{1,3}}({group}[0-9]{{3}})+|[0-9]+)" if format_.thousands else "[0-9]+"
    declared = f"^[+-]?({whole}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?$"
    for index, name in enumerate(columns.column_names):
        if kinds[name] not in _NUMERIC_KINDS:
            continue
        text = pc.utf8_trim_whitespace(columns.column(name))
        fits = pc.fill_null(pc.match_substring_regex(text, declared), False)
        plain = pc.replace_substring_regex(text, group, "") if format_.thousands else text
        plain = pc.replace_substring(plain, format_.decimal, ".")
        if pc.all(pc.or_(fits, pc.is_null(text))).as_py():
            columns = columns.set_column(index, name, plain)
            continue
        other = pc.fill_null(pc.match_substring_regex(text, _POINT_NUMBER), False)
        for row in np.flatnonzero(_mask(pc.and_(other, pc.invert(fits)))).tolist():
            bad.setdefault(row, (name, text[row].as_py()))
        columns = columns.set_column(index, name, pc.if_else(fits, plain, columns.column(name)))
    return columns, bad


def _mask(values: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    return np.asarray(values.to_numpy(), dtype=bool)
