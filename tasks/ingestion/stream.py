"""Rows on their way from a source into the lake: counted, digested, and refused when the source changes meanwhile."""

from collections.abc import Callable, Iterator

import pyarrow as pa

from blocks.sources import RowBatch, Source
from tasks.shared.progress import Progress
from tasks.shared.rules.rows.content import ContentDigest


class CountedSourceRows:
    """Rows on their way into the lake: counted, and refused at their end when the source changed meanwhile.

    `error` is what went wrong while they were read: who reads them through C knows only its words.
    """

    def __init__(self, rows: pa.RecordBatchReader, source: Source, bytes_a_row: float, progress: Progress) -> None:
        self._rows, self._source, self._progress = rows, source, progress
        self._bytes_a_row = bytes_a_row
        self.error: Exception | None = None

    def reader(self) -> pa.RecordBatchReader:
        """Return the rows as a stream, to be read once."""
        return pa.RecordBatchReader.from_batches(self._rows.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._rows:
                self._progress.add(batch.num_rows, int(batch.num_rows * self._bytes_a_row))
                yield batch
            self._source.check_unchanged()
        except Exception as error:
            self.error = error
            raise


def piece_observer(progress: Progress, digest: ContentDigest | None) -> Callable[[RowBatch], None]:
    """Return what is to be shown each piece of a source: it counts, and adds to the digest where there is one."""

    def seen(piece: RowBatch) -> None:
        progress.add(piece.table.num_rows + len(piece.unreadable_rows), piece.bytes_read)
        if digest:
            digest.update(piece.table)
            for row in piece.unreadable_rows:
                digest.update_unread(row.position, row.reason, row.raw_text)

    return seen
