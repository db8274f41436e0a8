"""Reads text files in blocks that end where a record ends, so that memory does not grow with the file."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from blocks.common.errors import Rejected
from blocks.sources.dialects import UTF_8, open_text
from blocks.sources.file_listing import SourceFile

BLOCK_BYTES = 1 << 24
"""Number of bytes that are read at once."""

MAX_RECORD_BYTES = 1 << 26
"""A longer record (64 MB) is an error, such as a quote that never closes."""

_BOM = b"\xef\xbb\xbf"
_WORKERS = 2

T = TypeVar("T")


@dataclass(frozen=True)
class TextBlock:
    """Complete records of a text file: its path, the bytes, and the line that they begin on."""

    path: Path
    data: bytes
    first_line: int

    def location_of(self, at: int) -> str:
        """Return the location of a byte of the block: "<path> line <number>"."""
        return f"{self.path} line {self.data.count(10, 0, at) + self.first_line}"


def read_blocks(
    file: SourceFile,
    find_record_end: Callable[[bytes], int],
    block_bytes: int | None = None,
    encoding: str = UTF_8,
) -> Iterator[TextBlock]:
    """Yield the file in blocks of complete records, at least one, without the byte order mark.

    `find_record_end` returns the end of the last complete record of some bytes, 0 if there is none.

    Raises:
        Rejected: the file is empty, not text in its encoding, or a record is longer than 64 MB.
    """
    block_bytes, line, carried, begun = block_bytes or BLOCK_BYTES, 1, b"", False
    with open_text(file.path, encoding) as stream:
        while data := stream.read(block_bytes):
            if not begun:
                data = _without_bom(file.path, data)
            end = find_record_end(whole := carried + data)
            if end:
                yield TextBlock(file.path, whole[:end], line)
                begun, line = True, line + whole.count(b"\n", 0, end)
            elif len(whole) > MAX_RECORD_BYTES:
                raise Rejected(
                    f"{file.path} line {line}: a record of more than {MAX_RECORD_BYTES >> 20} MB begins here; perhaps "
                    'a quote is not closed. Close it, or write it twice ("") in a quoted field.'
                )
            begun, carried = True, whole[end:]
    if carried:
        yield TextBlock(file.path, carried, line)
    elif not begun:
        raise _empty_file_error(file.path, 0)


def check_text(block: TextBlock) -> None:
    """Raise Rejected, with the line, if the bytes are not UTF-8 text."""
    if (at := block.data.find(b"\0")) >= 0:
        raise Rejected(f"{block.location_of(at)}: a NUL byte. Save it as UTF-8 text; it may be UTF-16.")
    try:
        block.data.isascii() or block.data.decode()
    except UnicodeDecodeError as cause:
        raise Rejected(
            f"{block.location_of(cause.start)}: byte 0x{block.data[cause.start]:02x} is not UTF-8; it may be Latin-1. "
            "Save it as UTF-8, or declare its encoding (data.source.encoding: latin-1 or windows-1252) if it is CSV."
        ) from cause


def map_ordered(function: Callable[[TextBlock], T], blocks: Iterator[TextBlock]) -> Iterator[T]:
    """Yield the function's result for each block, in order; two blocks are processed at once."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[Future[T]] = deque()
        for block in blocks:
            waiting.append(pool.submit(function, block))
            if len(waiting) > _WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _without_bom(path: Path, data: bytes) -> bytes:
    text = data.removeprefix(_BOM)
    if not text.strip() and len(data) < BLOCK_BYTES:
        raise _empty_file_error(path, len(data))
    return text


def _empty_file_error(path: Path, size: int) -> Rejected:
    return Rejected(f"{path}: the file is empty ({size} bytes). Write it again.")
