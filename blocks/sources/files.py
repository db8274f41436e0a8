"""Files as sources: one, a folder of them, or a glob; CSV, JSON lines or Parquet."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from blocks.common.errors import Rejected, Unavailable
from blocks.sources.base import RowBatch, Source, check_kinds
from blocks.sources.csv_files import csv_batches
from blocks.sources.file_listing import ROW_UNIT, SourceFile, check_unchanged, list_files
from blocks.sources.json_lines import json_batches
from blocks.sources.parquet_files import columns_as_sql, parquet_batches
from blocks.sources.processed_files import ProcessedFile, new_file_indexes, processed_to_notes

BatchReader = Callable[[SourceFile, Mapping[str, str], dict[str, None]], Iterator[RowBatch]]

READERS: Final[Mapping[str, BatchReader]] = {
    ".csv": csv_batches,
    ".jsonl": json_batches,
    ".ndjson": json_batches,
    ".parquet": parquet_batches,
}
"""How files of each ending are read."""

FORMAT_NAMES: Final = {".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".parquet": "Parquet"}
"""What files of each ending are called."""


class FileSource(Source):
    """The rows of files, in the order of their paths; a file that changes meanwhile is `Unavailable`.

    Of those whose content is among `taken` nothing is read; one of them that has changed is `Rejected`.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        kinds: Mapping[str, str],
        address: str,
        processed: Sequence[ProcessedFile] | None = None,
    ) -> None:
        check_kinds(kinds)
        self.files, self.kinds, self._ignored = tuple(files), kinds, dict[str, None]()
        form, there = FORMAT_NAMES[self.files[0].suffix], len(self.files)
        with file_errors(self.files[0].path):
            self._stamps = [file.change_stamp() for file in self.files]
        if processed is not None:
            chosen = new_file_indexes(self._contents, processed)
            self.files = tuple(self.files[place] for place in chosen)
            self._stamps = [self._stamps[place] for place in chosen]
            self._contents = [self._contents[place] for place in chosen]
        self.position_labels = tuple(file.position_label for file in self.files) or (ROW_UNIT,)
        self.size_bytes = sum(size for size, _ in self._stamps)
        self.description = f"{form} file {self.files[0].path}" if there == 1 else f"{there} {form} files {address}"
        if len(self.files) < there:
            self.description = f"{len(self.files)} new of {there} {form} files {address}"

    @cached_property
    def _contents(self) -> list[ProcessedFile]:
        contents = []
        for file, (size, _) in zip(self.files, self._stamps, strict=True):
            with file_errors(file.path):
                contents.append(ProcessedFile(str(file.path.absolute()), size, f"sha256 {file.sha256()}"))
        self.check_unchanged()
        return contents

    @property
    def undeclared_columns(self) -> tuple[str, ...]:
        """The columns that nobody declared, of all files that were read so far."""
        return tuple(self._ignored)

    def content_digest(self) -> str:
        """Return a digest over the declaration and the SHA-256 of each file; their names do not matter."""
        whole = hashlib.sha256(repr(list(self.kinds.items())).encode())
        for file, content in zip(self.files, self._contents, strict=True):
            whole.update(f"\n{file.suffix} {content.content.removeprefix('sha256 ')}".encode())
        return whole.hexdigest()

    def has_no_new_rows(self) -> bool:
        """Return whether each of the files was taken before."""
        return not self.files

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return the files that were taken."""
        return processed_to_notes(self._contents)

    def batches(self) -> Iterator[RowBatch]:
        """Read the files one after the other: see `Source.pieces`."""
        for place, file in enumerate(self.files):
            with file_errors(file.path):
                for piece in READERS[file.suffix](file, self.kinds, self._ignored):
                    yield replace(piece, file_index=place)
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Refuse files that were written to since the source was opened: `Unavailable`."""
        check_unchanged(self.files, self._stamps)

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return Parquet files that can be scanned as they are: see `Source.scannable`."""
        if not self.files or self.files[0].suffix != ".parquet":
            return None
        with file_errors(self.files[0].path):
            columns = columns_as_sql(self.files, self.kinds, self._ignored)
        return None if columns is None else (tuple(file.path for file in self.files), columns)


def open_file_source(
    source: str, query: str, kinds: Mapping[str, str], processed: Sequence[ProcessedFile] | None = None
) -> FileSource:
    """Return the source that a path, a folder or a glob names; see `blocks.sources.open_source`."""
    check_kinds(kinds)
    if query:
        raise Rejected(f"{source!r} is a file; a query is for a database. Leave the query empty.")
    grows = not Path(source).is_file()  # a file that is named itself is read: its rows are judged one by one
    return FileSource(list_files(source), kinds, source, processed if grows else None)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what the file system says into the port's errors."""
    try:
        yield
    except PermissionError as cause:
        raise Rejected(f"{cause.filename or path}: this user may not read it. Give it the right to.") from cause
    except OSError as cause:
        raise Unavailable(f"{cause.filename or path}: it could not be read: {cause}. Try again.") from cause
