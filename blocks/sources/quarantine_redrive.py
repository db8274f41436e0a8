"""A quarantine file as a source: its column `row` holds each row as JSON, mended by a person."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from blocks.common.errors import Rejected
from blocks.sources.base import RowBatch, Source, to_typed_batch
from blocks.sources.json_lines import parse_json_rows, split_unreadable

QUARANTINE_COLUMNS: Mapping[str, str] = {"position": "text", "reason": "text", "key": "text", "row": "text"}
"""The columns of a quarantine, by which its files are known."""


class RedriveSource(Source):
    """The rows that the JSON in a quarantine file's column `row` holds, whatever their number and size."""

    def __init__(self, quarantine: Source, kinds: Mapping[str, str]) -> None:
        self.kinds, self._kept = kinds, quarantine
        self.description, self.position_labels, self.size_bytes = (
            f"mended {quarantine.description}",
            quarantine.position_labels,
            quarantine.size_bytes,
        )
        self._ignored: dict[str, None] = {}

    @property
    def undeclared_columns(self) -> tuple[str, ...]:
        """The names in the JSON that nobody declared."""
        return tuple(self._ignored)

    def content_digest(self) -> str:
        """Return the file's."""
        return self._kept.content_digest()

    def batches(self) -> Iterator[RowBatch]:
        """Read the file and take its JSON apart: see `Source.pieces`."""
        for piece in self._kept.batches():
            yield self._unpacked(piece)

    def close(self) -> None:
        """Release the file."""
        self._kept.close()

    def check_unchanged(self) -> None:
        """Refuse a file that was written to since: see `Source.unchanged`."""
        self._kept.check_unchanged()

    def _unpacked(self, piece: RowBatch) -> RowBatch:
        place = self._kept.position_labels[piece.file_index]
        texts = piece.table.column("row").combine_chunks().fill_null("")
        raw, names, reasons = parse_json_rows(texts, self.kinds)
        self._ignored.update(dict.fromkeys(name for name in names if name not in self.kinds))
        good, odd = split_unreadable(reasons, place, piece.row_numbers, lambda i: texts[i].as_py())
        kept = texts.filter(good)
        found = to_typed_batch(
            raw.filter(good), piece.row_numbers.filter(good), place, self.kinds, lambda i: kept[i].as_py()
        )
        return replace(
            found,
            unreadable_rows=(*piece.unreadable_rows, *odd, *found.unreadable_rows),
            file_index=piece.file_index,
            bytes_read=piece.bytes_read,
        )


def is_quarantine_file(source: Source) -> bool:
    """Return whether a source opened with the kinds `QUARANTINE_COLUMNS` has a quarantine's columns; reads its beginning."""
    try:
        next(source.batches(), None)
    except Rejected:
        return False
    return True
