"""Quarantine re-drive: a corrected quarantine file as a source. Its column `row` has each row as JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from blocks.common.errors import Rejected
from blocks.sources.base import RowBatch, Source, to_typed_batch
from blocks.sources.json_lines import parse_json_rows, split_unreadable

QUARANTINE_COLUMNS: Mapping[str, str] = {"position": "text", "reason": "text", "key": "text", "row": "text"}
"""The columns that identify a quarantine file."""


class RedriveSource(Source):
    """The rows in the JSON of a quarantine file's column `row`."""

    def __init__(self, quarantine: Source, kinds: Mapping[str, str]) -> None:
        self.kinds, self._quarantine = kinds, quarantine
        self.description = f"corrected {quarantine.description}"
        self.position_labels, self.size_bytes = quarantine.position_labels, quarantine.size_bytes
        self._ignored: dict[str, None] = {}

    @property
    def undeclared_columns(self) -> tuple[str, ...]:
        """The names in the JSON that were not declared."""
        return tuple(self._ignored)

    def content_digest(self) -> str:
        """Return the digest of the file."""
        return self._quarantine.content_digest()

    def batches(self) -> Iterator[RowBatch]:
        """Read the file and parse its JSON: see `Source.batches`."""
        for batch in self._quarantine.batches():
            yield self._parse(batch)

    def close(self) -> None:
        """Close the file."""
        self._quarantine.close()

    def check_unchanged(self) -> None:
        """Raise Unavailable if the file was changed: see `Source.check_unchanged`."""
        self._quarantine.check_unchanged()

    def _parse(self, batch: RowBatch) -> RowBatch:
        label = self._quarantine.position_labels[batch.file_index]
        texts = batch.table.column("row").combine_chunks().fill_null("")
        raw, names, reasons = parse_json_rows(texts, self.kinds)
        self._ignored.update(dict.fromkeys(name for name in names if name not in self.kinds))
        readable, unreadable = split_unreadable(reasons, label, batch.row_numbers, lambda i: texts[i].as_py())
        remaining = texts.filter(readable)
        typed = to_typed_batch(
            raw.filter(readable),
            batch.row_numbers.filter(readable),
            label,
            self.kinds,
            lambda i: remaining[i].as_py(),
        )
        return replace(
            typed,
            unreadable_rows=(*batch.unreadable_rows, *unreadable, *typed.unreadable_rows),
            file_index=batch.file_index,
            bytes_read=batch.bytes_read,
        )


def is_quarantine_file(source: Source) -> bool:
    """Return whether a source opened with `QUARANTINE_COLUMNS` has these columns; reads the first batch."""
    try:
        next(source.batches(), None)
    except Rejected:
        return False
    return True
