"""Which files a source stands for: one, a folder of them, or a glob; each named plainly, and none overlooked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blocks.common.errors import NotFound, Rejected, Unavailable
from runtime.digests import file_digest

LINE_UNIT, ROW_UNIT = "line", "row"
POSITION_UNITS = {".csv": LINE_UNIT, ".jsonl": LINE_UNIT, ".ndjson": LINE_UNIT, ".parquet": ROW_UNIT}
"""The endings of files that can be read, and what their positions count."""

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: its path, and what stands before a row's number ("line", or "b.csv line")."""

    path: Path
    position_label: str

    @property
    def suffix(self) -> str:
        """The file name's ending in small letters, such as ".csv"."""
        return self.path.suffix.lower()

    def change_stamp(self) -> tuple[int, int]:
        """Return size and time of change, which differ when the file was written to."""
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes, 64 hexadecimal digits."""
        return file_digest(self.path)


def list_files(source: str) -> tuple[SourceFile, ...]:
    """Return the files that a path, a folder or a glob names, sorted by path; all of one format.

    Of a folder every file counts, of its sub-folders too; only names that begin with `_` or `.` are passed over.

    Raises:
        NotFound: there is nothing there, or nothing matches the glob.
        Rejected: the path means no file, or a file of the folder cannot be read.
    """
    if not source.strip() or not source.isprintable():
        raise Rejected(f"{source!r} is not a path. Remove line ends, NUL and other control characters.")
    path = Path(source)
    if ".." in path.parts:
        raise Rejected(f"{source!r} goes upwards with '..'. Name the file directly.")
    if not path.exists() and _GLOB_CHARACTERS & set(source):
        return _with_labels(_matching(path), path, source)
    if path.is_dir() and path.suffix.lower() not in POSITION_UNITS:
        return _with_labels(_files_in_folder(path), path, source)
    if path.is_dir() and any(path.iterdir()):  # Spark writes a folder called x.parquet
        return _with_labels(_files_in_folder(path), path, source)
    return (SourceFile(checked_path(source), _position_unit(path)),)


def checked_path(source: str) -> Path:
    """Return the path of an existing file, named plainly: no `..`, no control characters."""
    if not source.strip() or not source.isprintable():
        raise Rejected(f"{source!r} is not a path. Remove line ends, NUL and other control characters.")
    path = Path(source)
    if ".." in path.parts:
        raise Rejected(f"{source!r} goes upwards with '..'. Name the file directly.")
    if not path.exists():
        raise NotFound(f"There is no file {source!r}. Check the path; it is read from the folder of the run.")
    if not path.is_file():
        raise Rejected(f"{source!r} is not a file but an empty folder or a device. Name one file.")
    return path


def check_unchanged(files: Sequence[SourceFile], stamps: Sequence[tuple[int, int]]) -> None:
    """Refuse files that were written to since their stamps were taken: `Unavailable`."""
    for file, stamp in zip(files, stamps, strict=True):
        if file.change_stamp() != stamp:
            raise Unavailable(f"{file.path}: the file changed while it was read. Nothing landed; try again.")


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor) if pattern.anchor else Path()
    relative = pattern.relative_to(root) if pattern.anchor else pattern
    found = sorted(path for path in root.glob(str(relative)) if path.is_file())
    if not found:
        raise NotFound(f"No file matches {str(pattern)!r}. Check the pattern; it is read from the folder of the run.")
    return found


def _files_in_folder(folder: Path) -> list[Path]:
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    found = sorted(folder / path for path in inside if not any(part[0] in "._" for part in path.parts))
    if not found:
        raise NotFound(f"There is no file in the folder {str(folder)!r}. Check the path.")
    return found


def _with_labels(paths: list[Path], top: Path, source: str) -> tuple[SourceFile, ...]:
    for path in paths:
        _position_unit(path)
    if len(endings := sorted({path.suffix.lower() for path in paths})) > 1:
        raise Rejected(
            f"{source}: there are files of {' and '.join(endings)}. Name those of one format, such as *{endings[0]}."
        )
    if len(paths) == 1:
        return (SourceFile(paths[0], _position_unit(paths[0])),)
    base = top if top.is_dir() else Path(*_fixed_parts(top))
    return tuple(SourceFile(path, f"{path.relative_to(base)} {_position_unit(path)}") for path in paths)


def _fixed_parts(pattern: Path) -> list[str]:
    """Return the leading parts of a pattern in which nothing is left open."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if _GLOB_CHARACTERS & set(part):
            break
        parts.append(part)
    return parts


def _position_unit(path: Path) -> str:
    word = POSITION_UNITS.get(path.suffix.lower())
    if word is None:
        *others, last = POSITION_UNITS
        raise Rejected(
            f"{path}: files that end in {path.suffix!r} cannot be read. Bring {', '.join(others)} or {last}; of a "
            "folder that holds others name the right ones by a pattern, such as folder/*.parquet."
        )
    return word
