"""Files as sources: one file, a folder, or a glob; CSV, JSON lines or Parquet."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from blocks.common.errors import Rejected, Unavailable
from blocks.sources.base import RowBatch, Source, declaration_text
from blocks.sources.csv_files import csv_batches
from blocks.sources.file_listing import (
    ROW_UNIT,
    ProcessedFile,
    SourceFile,
    check_unchanged,
    list_files,
    new_file_indexes,
    processed_to_notes,
)
from blocks.sources.json_lines import json_batches
from blocks.sources.parquet_files import columns_as_sql, parquet_batches

BatchReader = Callable[[SourceFile, Mapping[str, str], dict[str, None]], Iterator[RowBatch]]

FORMATS: Final[Mapping[str, tuple[str, BatchReader]]] = {
    ".csv": ("CSV", csv_batches),
    ".jsonl": ("JSON lines", json_batches),
    ".ndjson": ("JSON lines", json_batches),
    ".parquet": ("Parquet", parquet_batches),
}
"""The format's name and its reader, by file suffix."""


class FileSource(Source):
    """The rows of files, in the order of their paths. Raises Unavailable if a file changes meanwhile.

    Files whose content is among `processed` are skipped; a processed file that was changed raises Rejected.
    """

    def __init__(
        self,
        files: Sequence[SourceFile],
        kinds: Mapping[str, str],
        address: str,
        processed: Sequence[ProcessedFile] | None = None,
    ) -> None:
        self.files, self.kinds = tuple(files), kinds
        self._ignored: dict[str, None] = {}
        (format_name, self._read), total = FORMATS[self.files[0].suffix], len(self.files)
        with file_errors(self.files[0].path):
            self._stamps = [file.change_stamp() for file in self.files]
        if processed is not None:
            new = new_file_indexes(self._contents, processed)
            self.files = tuple(self.files[index] for index in new)
            self._stamps = [self._stamps[index] for index in new]
            self._contents = [self._contents[index] for index in new]
        self.position_labels = tuple(file.position_label for file in self.files) or (ROW_UNIT,)
        self.size_bytes = sum(size for size, _ in self._stamps)
        self.description = (
            f"{format_name} file {self.files[0].path}" if total == 1 else f"{total} {format_name} files {address}"
        )
        if len(self.files) < total:
            self.description = f"{len(self.files)} new of {total} {format_name} files {address}"

    @cached_property
    def _contents(self) -> list[ProcessedFile]:
        contents = []
        for file, (size, _) in zip(self.files, self._stamps, strict=True):
            with file_errors(file.path):
                contents.append(ProcessedFile(str(file.path.absolute()), size, f"sha256 {file.sha256()}"))
        self.check_unchanged()
        return contents

    def content_digest(self) -> str:
        """Return a digest over the declaration and the SHA-256 of each file; file names do not count."""
        digest = hashlib.sha256(declaration_text(self.kinds).encode())
        for file, content in zip(self.files, self._contents, strict=True):
            digest.update(f"\n{file.suffix} {content.content.removeprefix('sha256 ')}".encode())
        return digest.hexdigest()

    def has_no_new_rows(self) -> bool:
        """Return whether all files were processed before."""
        return not self.files

    def snapshot_notes(self) -> Mapping[str, str]:
        """Return the processed files."""
        return processed_to_notes(self._contents)

    def batches(self) -> Iterator[RowBatch]:
        """Read the files one after the other: see `Source.batches`."""
        for index, file in enumerate(self.files):
            with file_errors(file.path):
                for batch in self._read(file, self.kinds, self._ignored):
                    yield replace(batch, file_index=index)
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise Unavailable if a file was changed since the source was opened."""
        check_unchanged(self.files, self._stamps)

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return Parquet files that can be scanned directly: see `Source.direct_scan`."""
        if not self.files or self.files[0].suffix != ".parquet":
            return None
        with file_errors(self.files[0].path):
            columns = columns_as_sql(self.files, self.kinds, self._ignored)
        return None if columns is None else (tuple(file.path for file in self.files), columns)


def open_file_source(
    source: str, query: str, kinds: Mapping[str, str], processed: Sequence[ProcessedFile] | None = None
) -> FileSource:
    """Return the source of a path, a folder or a glob; see `blocks.sources.open_source`."""
    if query:
        raise Rejected(f"{source!r} is a file; a query is for a database. Leave the query empty.")
    is_single_file = Path(source).is_file()  # it is always read
    return FileSource(list_files(source), kinds, source, None if is_single_file else processed)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Translate errors of the file system into port errors."""
    try:
        yield
    except PermissionError as cause:
        raise Rejected(f"{cause.filename or path}: this user may not read it. Grant the permission.") from cause
    except OSError as cause:
        raise Unavailable(f"{cause.filename or path}: it could not be read: {cause}. Try again.") from cause
