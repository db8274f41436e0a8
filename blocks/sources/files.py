"""Files as sources: one, a folder of them, or a glob; CSV, JSON lines or Parquet."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from blocks.common.errors import Rejected, Unavailable
from blocks.sources.base import Piece, Source, check_kinds
from blocks.sources.delimited import csv_pieces
from blocks.sources.json_lines import json_pieces
from blocks.sources.parquet import columns_as_sql, parquet_pieces
from blocks.sources.places import ROWS, File, files_of, unchanged
from blocks.sources.taken import Taken, new_places, notes_of

Reader = Callable[[File, Mapping[str, str], dict[str, None]], Iterator[Piece]]

READERS: Final[Mapping[str, Reader]] = {
    ".csv": csv_pieces,
    ".jsonl": json_pieces,
    ".ndjson": json_pieces,
    ".parquet": parquet_pieces,
}
"""How files of each ending are read."""

FORMATS: Final = {".csv": "CSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".parquet": "Parquet"}
"""What files of each ending are called."""


class FileSource(Source):
    """The rows of files, in the order of their paths; a file that changes meanwhile is `Unavailable`.

    Of those whose content is among `taken` nothing is read; one of them that has changed is `Rejected`.
    """

    def __init__(
        self, files: Sequence[File], kinds: Mapping[str, str], named: str, taken: Sequence[Taken] | None = None
    ) -> None:
        check_kinds(kinds)
        self.files, self.kinds, self._ignored = tuple(files), kinds, dict[str, None]()
        form, there = FORMATS[self.files[0].ending], len(self.files)
        with readable(self.files[0].path):
            self._stamps = [file.stamp() for file in self.files]
        if taken is not None:
            chosen = new_places(self._contents, taken)
            self.files = tuple(self.files[place] for place in chosen)
            self._stamps = [self._stamps[place] for place in chosen]
            self._contents = [self._contents[place] for place in chosen]
        self.places = tuple(file.place for file in self.files) or (ROWS,)
        self.bytes = sum(size for size, _ in self._stamps)
        self.description = f"{form} file {self.files[0].path}" if there == 1 else f"{there} {form} files {named}"
        if len(self.files) < there:
            self.description = f"{len(self.files)} new of {there} {form} files {named}"

    @cached_property
    def _contents(self) -> list[Taken]:
        contents = []
        for file, (size, _) in zip(self.files, self._stamps, strict=True):
            with readable(file.path):
                contents.append(Taken(str(file.path.absolute()), size, f"sha256 {file.sha256()}"))
        self.unchanged()
        return contents

    @property
    def ignored(self) -> tuple[str, ...]:
        """The columns that nobody declared, of all files that were read so far."""
        return tuple(self._ignored)

    def identity(self) -> str:
        """Return a digest over the declaration and the SHA-256 of each file; their names do not matter."""
        whole = hashlib.sha256(repr(list(self.kinds.items())).encode())
        for file, content in zip(self.files, self._contents, strict=True):
            whole.update(f"\n{file.ending} {content.content.removeprefix('sha256 ')}".encode())
        return whole.hexdigest()

    def nothing_new(self) -> bool:
        """Return whether each of the files was taken before."""
        return not self.files

    def notes(self) -> Mapping[str, str]:
        """Return the files that were taken."""
        return notes_of(self._contents)

    def pieces(self) -> Iterator[Piece]:
        """Read the files one after the other: see `Source.pieces`."""
        for place, file in enumerate(self.files):
            with readable(file.path):
                for piece in READERS[file.ending](file, self.kinds, self._ignored):
                    yield replace(piece, file=place)
        self.unchanged()

    def unchanged(self) -> None:
        """Refuse files that were written to since the source was opened: `Unavailable`."""
        unchanged(self.files, self._stamps)

    def scannable(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return Parquet files that can be scanned as they are: see `Source.scannable`."""
        if not self.files or self.files[0].ending != ".parquet":
            return None
        with readable(self.files[0].path):
            columns = columns_as_sql(self.files, self.kinds, self._ignored)
        return None if columns is None else (tuple(file.path for file in self.files), columns)


def open_files(source: str, query: str, kinds: Mapping[str, str], taken: Sequence[Taken] | None = None) -> FileSource:
    """Return the source that a path, a folder or a glob names; see `blocks.sources.open_source`."""
    check_kinds(kinds)
    if query:
        raise Rejected(f"{source!r} is a file; a query is for a database. Leave the query empty.")
    grows = not Path(source).is_file()  # a file that is named itself is read: its rows are judged one by one
    return FileSource(files_of(source), kinds, source, taken if grows else None)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the file system says into the port's errors."""
    try:
        yield
    except PermissionError as cause:
        raise Rejected(f"{cause.filename or path}: this user may not read it. Give it the right to.") from cause
    except OSError as cause:
        raise Unavailable(f"{cause.filename or path}: it could not be read: {cause}. Try again.") from cause
