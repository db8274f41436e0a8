"""A quarantine file as a source: its column `row` holds each row as JSON, mended by a person."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from blocks.common.errors import Rejected
from blocks.sources.base import Piece, Source, typed
from blocks.sources.json_lines import broken_by, unpack

AS_KEPT: Mapping[str, str] = {"position": "text", "reason": "text", "key": "text", "row": "text"}
"""The columns of a quarantine, by which its files are known."""


class MendedSource(Source):
    """The rows that the JSON in a quarantine file's column `row` holds, whatever their number and size."""

    def __init__(self, kept: Source, kinds: Mapping[str, str]) -> None:
        self.kinds, self._kept = kinds, kept
        self.description, self.places, self.bytes = f"mended {kept.description}", kept.places, kept.bytes
        self._ignored: dict[str, None] = {}

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names in the JSON that nobody declared."""
        return tuple(self._ignored)

    def identity(self) -> str:
        """Return the file's."""
        return self._kept.identity()

    def pieces(self) -> Iterator[Piece]:
        """Read the file and take its JSON apart: see `Source.pieces`."""
        for piece in self._kept.pieces():
            yield self._unpacked(piece)

    def close(self) -> None:
        """Release the file."""
        self._kept.close()

    def unchanged(self) -> None:
        """Refuse a file that was written to since: see `Source.unchanged`."""
        self._kept.unchanged()

    def _unpacked(self, piece: Piece) -> Piece:
        place = self._kept.places[piece.file]
        texts = piece.table.column("row").combine_chunks().fill_null("")
        raw, names, reasons = unpack(texts, self.kinds)
        self._ignored.update(dict.fromkeys(name for name in names if name not in self.kinds))
        good, odd = broken_by(reasons, place, piece.numbers, lambda i: texts[i].as_py())
        kept = texts.filter(good)
        found = typed(raw.filter(good), piece.numbers.filter(good), place, self.kinds, lambda i: kept[i].as_py())
        return replace(found, broken=(*piece.broken, *odd, *found.broken), file=piece.file, bytes=piece.bytes)


def is_quarantine(kept: Source) -> bool:
    """Return whether a source opened with the kinds `AS_KEPT` has a quarantine's columns; reads its beginning."""
    try:
        next(kept.pieces(), None)
    except Rejected:
        return False
    return True
