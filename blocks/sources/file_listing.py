"""Lists the files of a source (one file, a folder, or a glob), and which of them were processed before.

Processed files are identified by content, and recorded in the snapshot's notes: so a file counts as processed exactly
when its rows are in the lake, and the next load of a growing folder reads only new files.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from os.path import commonprefix
from pathlib import Path, PurePath
from urllib.parse import unquote

from blocks.common.errors import NotFound, Rejected, Unavailable
from blocks.sources.dialects import PLAIN_FORMAT, SourceFormat, data_suffix, is_compressed
from runtime.digests import file_digest

LINE_UNIT, ROW_UNIT = "line", "row"
POSITION_UNITS = {".csv": LINE_UNIT, ".tsv": LINE_UNIT, ".jsonl": LINE_UNIT, ".ndjson": LINE_UNIT, ".parquet": ROW_UNIT}
"""Unit of a position by the suffix of the files that can be read; text may also be compressed (`.csv.gz`)."""

GLOB_CHARACTERS = frozenset("*?[")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_FILES_NOTE, _FOLDER_NOTE = "files", "files folder"


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: where it is.
        position_label: the text before a row's number ("line", or "b.csv line").
        format: how it is written.
        constants: columns with one value for the whole file, as text: those of declared partition folders.
        key: the object that it is a copy of, if it is one.
    """

    path: Path
    position_label: str
    format: SourceFormat = PLAIN_FORMAT
    constants: Mapping[str, str | None] = field(default_factory=dict)
    key: PurePath | None = None

    @property
    def suffix(self) -> str:
        """The suffix that names the format, in lower case, such as ".csv", also of "rows.csv.gz"."""
        return data_suffix(self.path)

    def change_stamp(self) -> tuple[int, int, int, int]:
        """Return size, times and number of the file, which change when it is written to or another takes its place."""
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, 64 hexadecimal digits."""
        return file_digest(self.path)


def list_files(
    source: str, format_: SourceFormat = PLAIN_FORMAT, check: Callable[[list[Path]], None] = lambda _: None
) -> tuple[SourceFile, ...]:
    """Return the files of a path, a folder or a glob, sorted by path; all must have one format.

    A folder includes the files of its sub-folders; only names that begin with `_` or `.` are skipped. `check` gets the
    paths before any message names one: they may be behind a link.

    Raises:
        NotFound: the path does not exist, or nothing matches the glob.
        Rejected: the path is not valid, the folder contains a file of another format, or a file is not in exactly one
            folder of each declared partition.
    """
    return tuple(
        replace(file, format=format_, constants=partition_values(file.path, source, format_.partitions))
        for file in _list_files(source, check)
    )


def partition_values(path: PurePath, source: str, partitions: Sequence[str]) -> dict[str, str | None]:
    """Return the values of the declared partitions from the folders `name=value/`, decoded; null for Hive's null.

    The folders of `path` below those that `source` names come first; those that it names itself come next.

    Raises:
        Rejected: there is not exactly one folder of a partition.
    """
    named = _fixed_parts(PurePath(source))
    folders = path.parts[:-1]
    return {
        column: _partition_value(path, column, folders[len(named) :], folders[: len(named)]) for column in partitions
    }


def _partition_value(path: PurePath, column: str, below: Sequence[str], named: Sequence[str]) -> str | None:
    for folders in (below, named):
        parts = [part.partition("=") for part in folders if "=" in part]
        found = [value for name, _, value in parts if _decoded(name) == column]
        if len(found) == 1:
            return None if found[0] == _HIVE_NULL else _decoded(found[0])
        if found:
            break
    raise Rejected(
        f"{path}: {len(found)} of its folders are named {column}=…, and the table declares the partition {column!r}. "
        "Put it into one such folder, or take it out of data.source.partitions."
    )


def constants_text(constants: Mapping[str, str | None]) -> str:
    """Return a file's constants as part of its content's identity: one content in two partitions is two files."""
    return f" {json.dumps(dict(constants), ensure_ascii=False)}" if constants else ""


def _decoded(text: str) -> str:
    """Return the text of a folder's name without the escapes of URLs."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as cause:
        raise Rejected(f"{text!r} is not UTF-8 behind its escapes. Rename the folder.") from cause


def _list_files(source: str, check: Callable[[list[Path]], None]) -> tuple[SourceFile, ...]:
    path = _valid_path(source)
    if not path.exists() and GLOB_CHARACTERS & set(source):
        return _with_labels(_matching(path), path, source, check)
    # Spark writes a folder called x.parquet
    if path.is_dir() and (data_suffix(path) not in POSITION_UNITS or any(path.iterdir())):
        return _with_labels(_files_in_folder(path), path, source, check)
    check([path])
    return (SourceFile(checked_path(source), _position_unit(path)),)


def check_no_table(paths: Iterable[PurePath], source: str) -> None:
    """Raise Rejected if the files belong to a table with a log: they may hold rows that the table no longer has."""
    for path in paths:
        if "_delta_log" in path.parts:
            raise Rejected(f"{source}: this is a Delta table. Give delta:{source} to read the rows that it has now.")
        if ".hoodie" in path.parts:
            raise Rejected(f"{source}: this is a Hudi table, which cannot be read. Export its rows.")
        if path.name.endswith(".metadata.json") and "metadata" in path.parts:
            raise Rejected(
                f"{source}: this is an Iceberg table. Give iceberg: and the URL of its newest metadata file or of its "
                "catalog: see docs/ingest.md."
            )


def checked_path(source: str) -> Path:
    """Return the path of an existing file. Raises Rejected for `..` and control characters."""
    path = _valid_path(source)
    if not path.exists():
        raise NotFound(f"There is no file {source!r}. Check the path; it is read from the folder of the run.")
    if not path.is_file():
        raise Rejected(f"{source!r} is not a file but an empty folder or a device. Name one file.")
    return path


def _valid_path(source: str) -> Path:
    if not source.strip() or not source.isprintable():
        raise Rejected(f"{source!r} is not a path. Remove line ends, NUL and other control characters.")
    if ".." in Path(source).parts:
        raise Rejected(f"{source!r} goes upwards with '..'. Name the file directly.")
    return Path(source)


def fixed_path(source: str) -> Path:
    """Return the path of a file or folder, or the folder that a glob begins with. Raises Rejected as `checked_path`."""
    path = _valid_path(source)
    return path if path.exists() else Path(*_fixed_parts(path))


def check_unchanged(files: Sequence[SourceFile], stamps: Sequence[tuple[int, ...]]) -> None:
    """Raise Unavailable if a file was changed since its stamp was taken."""
    for file, stamp in zip(files, stamps, strict=True):
        if file.change_stamp() != stamp:
            raise Unavailable(f"{file.path}: the file changed while it was read. Nothing was ingested; try again.")


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor) if pattern.anchor else Path()
    relative = pattern.relative_to(root) if pattern.anchor else pattern
    base = Path(*_fixed_parts(pattern.parent))
    for folder in (base, *base.parents):
        check_no_table([log for log in (Path("_delta_log"), Path(".hoodie")) if (folder / log).is_dir()], str(folder))
    found = sorted(path for path in root.glob(str(relative)) if path.is_file())
    if not found:
        raise NotFound(f"No file matches {str(pattern)!r}. Check the pattern; it is read from the folder of the run.")
    return found


def _files_in_folder(folder: Path) -> list[Path]:
    inside = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    check_no_table(inside, str(folder))
    found = sorted(folder / path for path in inside if not any(part[0] in "._" for part in path.parts))
    if not found:
        raise NotFound(f"There is no file in the folder {str(folder)!r}. Check the path.")
    return found


def _with_labels(
    paths: list[Path], top: Path, source: str, check: Callable[[list[Path]], None]
) -> tuple[SourceFile, ...]:
    check(paths)
    for path in paths:
        _position_unit(path)
    if len(endings := sorted({data_suffix(path) for path in paths})) > 1:
        raise Rejected(
            f"{source}: there are files of {' and '.join(endings)}. Select one format, such as *{endings[0]}."
        )
    if len(paths) == 1:
        return (SourceFile(paths[0], _position_unit(paths[0])),)
    base = top if top.is_dir() else Path(*_fixed_parts(top.parent))
    return tuple(SourceFile(path, f"{path.relative_to(base)} {_position_unit(path)}") for path in paths)


def _fixed_parts(pattern: PurePath) -> list[str]:
    """Return the leading parts of a path or pattern without wildcards."""
    return list(takewhile(lambda part: not GLOB_CHARACTERS & set(part), pattern.parts))


def _position_unit(path: Path) -> str:
    word = POSITION_UNITS.get(suffix := data_suffix(path))
    if word and suffix == ".parquet" and is_compressed(path):
        raise Rejected(f"{path}: Parquet is compressed inside. Decompress the file.")
    if word is None:
        *others, last = POSITION_UNITS
        raise Rejected(
            f"{path}: files that end in {path.suffix!r} cannot be read. Use {', '.join(others)} or {last}; if a folder "
            "contains other files, select the right ones by a pattern, such as folder/*.parquet."
        )
    return word


@dataclass(frozen=True)
class ProcessedFile:
    """One file: its full path or s3:// URL, its size, and its content as "sha256 …" or "etag …"."""

    name: str
    size_bytes: int
    content: str


def processed_to_notes(files: Sequence[ProcessedFile]) -> dict[str, str]:
    """Return the snapshot notes about the files that its rows came from."""
    folder = commonprefix([file.name for file in files])  # noqa: RUF071  (by letters: it is cut at a slash below)
    folder = folder[: folder.rfind("/") + 1]
    listed = [[file.name.removeprefix(folder), file.size_bytes, file.content] for file in files]
    return {_FOLDER_NOTE: folder, _FILES_NOTE: json.dumps(listed, separators=(",", ":"), ensure_ascii=False)}


def processed_from_notes(notes: Mapping[str, str]) -> tuple[ProcessedFile, ...]:
    """Return the files in a snapshot's notes; none if its rows came from another kind of source."""
    listed = json.loads(notes.get(_FILES_NOTE, "[]"))
    return tuple(ProcessedFile(f"{notes[_FOLDER_NOTE]}{name}", size, content) for name, size, content in listed)


def new_file_indexes(files: Sequence[ProcessedFile], processed: Sequence[ProcessedFile]) -> list[int]:
    """Return the indexes of the files whose content was not processed; of several with one content, the first.

    Files are identified by content, so a moved or renamed file is the same file.

    Raises:
        Rejected: a processed file was changed, so its old rows are in the lake, and no file has its old content (it
            was not just renamed).
    """
    done, contents = {file.content for file in processed}, {file.content for file in files}
    by_name = {file.name: file for file in processed}
    indexes: list[int] = []
    for index, file in enumerate(files):
        if file.content in done:
            continue
        if (earlier := by_name.get(file.name)) and earlier.content not in contents:
            raise Rejected(
                f"{file.name}: the file changed after it was ingested: it has {file.size_bytes} bytes "
                f"({_short_content(file)}), and had {earlier.size_bytes} ({_short_content(earlier)}). Restore the old "
                "content, and put new rows into a new file. Nothing was ingested."
            )
        done.add(file.content)
        indexes.append(index)
    return indexes


def _short_content(file: ProcessedFile) -> str:
    return file.content[:19] + "…"
