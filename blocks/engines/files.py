"""Checks of file lists and atomic output folders, shared by the engines."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blocks.common.errors import Conflict, NotFound, Rejected
from runtime.files import flush


def checked_files(name: str, files: Sequence[str]) -> tuple[str, ...]:
    """Return the files of a table in a query.

    Raises:
        NotFound: there are none.
        Rejected: a file is listed twice, which engines handle differently.
    """
    listed = tuple(map(str, files))
    if not listed:
        raise NotFound(f"there are no files for table {name!r}. Ingest first.")
    if len(set(listed)) < len(listed):
        duplicate = next(file for file in listed if listed.count(file) > 1)
        raise Rejected(f"table {name!r} lists the file {duplicate} twice. List each file once.")
    return listed


@contextmanager
def atomic_folder(to: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; it is renamed to `to`, or removed if the body fails.

    A killed process leaves a folder `.<name>-…`, never a partial `to`.

    Raises:
        Conflict: `to` exists before or after the work.
    """
    if to.exists():
        raise Conflict(f"{to} exists already. Remove it, or write to another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        folder.chmod(0o755)  # mkdtemp gives access to the owner only
        yield folder
        for path in (*folder.iterdir(), folder):
            flush(path)
        _rename(folder, to)
        flush(to.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shorten(message: object, max_length: int = 600) -> str:
    """Return a message in one line of at most `max_length` characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= max_length else f"{text[:max_length]}…"


def _rename(folder: Path, to: Path) -> None:
    try:
        folder.rename(to)
    except OSError as cause:
        if to.exists():
            raise Conflict(f"{to} exists already: another writer was first.") from cause
        raise
