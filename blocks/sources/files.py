"""Files as sources: one file, a folder, or a glob; CSV, JSON lines or Parquet."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

import pyarrow as pa

from blocks.common.errors import Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.sources.base import RowBatch, Source, declaration_text
from blocks.sources.columns import convert_column
from blocks.sources.csv_files import csv_batches
from blocks.sources.dialects import PLAIN_FORMAT, SourceFormat
from blocks.sources.file_listing import (
    ROW_UNIT,
    ProcessedFile,
    SourceFile,
    check_unchanged,
    constants_text,
    fixed_path,
    list_files,
    new_file_indexes,
    processed_to_notes,
)
from blocks.sources.json_lines import json_batches
from blocks.sources.parquet_files import columns_as_sql, parquet_batches
from runtime.values import KIND_DESCRIPTIONS

BatchReader = Callable[[SourceFile, Mapping[str, str], dict[str, None]], Iterator[RowBatch]]

FORMATS: Final[Mapping[str, tuple[str, BatchReader]]] = {
    ".csv": ("CSV", csv_batches),
    ".tsv": ("TSV", csv_batches),
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
        self._declaration = self.files[0].format.declaration
        with file_errors(self.files[0].path):
            self._stamps = [file.change_stamp() for file in self.files]
        if processed is not None:
            new = new_file_indexes(self._contents, processed)
            self.files = tuple(self.files[index] for index in new)
            self._stamps = [self._stamps[index] for index in new]
            self._contents = [self._contents[index] for index in new]
        self.position_labels = tuple(file.position_label for file in self.files) or (ROW_UNIT,)
        self.size_bytes = sum(stamp[0] for stamp in self._stamps)
        self.description = (
            f"{format_name} file {self.files[0].path}" if total == 1 else f"{total} {format_name} files {address}"
        )
        if len(self.files) < total:
            self.description = f"{len(self.files)} new of {total} {format_name} files {address}"

    @cached_property
    def _contents(self) -> list[ProcessedFile]:
        contents = []
        for file, (size, *_) in zip(self.files, self._stamps, strict=True):
            with file_errors(file.path):
                content = f"sha256 {file.sha256()}{constants_text(file.constants)}"
                contents.append(ProcessedFile(str(file.path.absolute()), size, content))
        self.check_unchanged()
        return contents

    def content_digest(self) -> str:
        """Return a digest over the declaration and the SHA-256 of each file; only declared parts of names count."""
        digest = hashlib.sha256(f"{declaration_text(self.kinds)}{self._declaration}".encode())
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
                for batch in _with_constants(self._read, file, self.kinds, self._ignored):
                    yield replace(batch, file_index=index)
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Raise Unavailable if a file was changed since the source was opened."""
        check_unchanged(self.files, self._stamps)

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return Parquet files that can be scanned directly: see `Source.direct_scan`."""
        if not self.files or self.files[0].suffix != ".parquet" or any(file.constants for file in self.files):
            return None
        with file_errors(self.files[0].path), _partition_hint(self.files[0], self.kinds):
            columns = columns_as_sql(self.files, self.kinds, self._ignored)
        return None if columns is None else (tuple(file.path for file in self.files), columns)


def _with_constants(
    read: BatchReader, file: SourceFile, kinds: Mapping[str, str], ignored: dict[str, None]
) -> Iterator[RowBatch]:
    """Yield the batches of a file, with the columns that have one value for the whole file.

    Raises:
        Rejected: the file has such a column as well, its value does not fit the kind, or no other column is declared.
    """
    if not file.constants:
        with _partition_hint(file, kinds):
            yield from read(file, kinds, ignored)
        return
    own = {column: kind for column, kind in kinds.items() if column not in file.constants}
    if not own:
        raise Rejected(f"{file.path}: all declared columns are partitions. Declare a column that is in the file.")
    values = {column: _constant(file, column, kinds[column]) for column in file.constants if column in kinds}
    others: dict[str, None] = {}
    for batch in read(file, own, others):
        yield replace(batch, table=_constants_added(batch.table, values, kinds))
    if twice := [column for column in others if column in file.constants]:
        raise Rejected(
            f"{file.path}: the column {twice[0]!r} is in the file and in the name of its folder. Take it out of "
            "data.source.partitions, or out of the file."
        )
    ignored.update(others)


@contextmanager
def _partition_hint(file: SourceFile, kinds: Mapping[str, str]) -> Iterator[None]:
    """Add to an error about a missing column that a folder has its name, which counts only if it is declared."""
    try:
        yield
    except Rejected as error:
        named = [
            column for column in kinds if any(part.startswith(f"{column}=") for part in (file.key or file.path).parts)
        ]
        if missing := [column for column in named if f"column {column!r} is missing" in str(error)]:
            remedy = f"If the folder {missing[0]}=… holds its value, declare data.source.partitions: [{missing[0]}]."
            raise Rejected(f"{error} {remedy}") from error
        raise


def _constant(file: SourceFile, column: str, kind: str) -> pa.Array:
    typed, bad = convert_column(pa.chunked_array([pa.array([file.constants[column]], pa.string())]), kind, column)
    if bad.any():
        raise Rejected(
            f"{file.path}: the value {file.constants[column]!r} of the partition {column!r} is not "
            f"{KIND_DESCRIPTIONS[kind]}. Rename the folder."
        )
    return typed.combine_chunks()


def _constants_added(table: pa.Table, values: Mapping[str, pa.Array], kinds: Mapping[str, str]) -> pa.Table:
    columns = {c: pa.repeat(values[c][0], table.num_rows) if c in values else table.column(c) for c in kinds}
    return pa.table(columns)


def open_file_source(
    source: str,
    query: str,
    kinds: Mapping[str, str],
    allowed: SourceSettings,
    processed: Sequence[ProcessedFile] | None = None,
    format_: SourceFormat = PLAIN_FORMAT,
) -> FileSource:
    """Return the source of a path, a folder or a glob; see `blocks.sources.open_source`."""
    if query:
        raise Rejected(f"{source!r} is a file; a query is for a database. Leave the query empty.")
    allowed.check_path(fixed_path(source), source)  # before anything outside is listed
    is_single_file = Path(source).is_file()  # it is always read
    files = list_files(source, format_, lambda paths: allowed.check_paths(paths, source))  # which may be links
    return FileSource(files, kinds, source, None if is_single_file else processed)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Translate errors of the file system into port errors."""
    try:
        yield
    except PermissionError as cause:
        raise Rejected(f"{cause.filename or path}: this user may not read it. Grant the permission.") from cause
    except OSError as cause:
        raise Unavailable(f"{cause.filename or path}: it could not be read: {cause}. Try again.") from cause
