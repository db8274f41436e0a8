"""What every engine does with files: refuse none or twice the same, and write a folder whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blocks.common.errors import Conflict, NotFound, Rejected
from runtime.files import flush


def checked_files(name: str, files: Sequence[str]) -> tuple[str, ...]:
    """Return the files that a name in a query stands for.

    Raises:
        NotFound: there are none.
        Rejected: a file is listed twice; engines do not agree on what that means.
    """
    listed = tuple(map(str, files))
    if not listed:
        raise NotFound(f"there are no files for table {name!r}. Ingest first.")
    if len(set(listed)) < len(listed):
        twice = next(file for file in listed if listed.count(file) > 1)
        raise Rejected(f"table {name!r} lists the file {twice} twice. List each file once.")
    return listed


@contextmanager
def atomic_folder(to: Path) -> Iterator[Path]:
    """Give an empty folder beside `to`; it becomes `to` in one rename, or is removed when the body fails.

    A process that is killed leaves a folder `.<name>-…` behind, never a partial `to`.

    Raises:
        Conflict: `to` is there already, before or after the work.
    """
    if to.exists():
        raise Conflict(f"{to} is there already. Remove it, or write to another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{to.name}-", dir=to.parent))
    try:
        folder.chmod(0o755)  # mkdtemp's folders are for their maker alone
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
            raise Conflict(f"{to} is there already: another writer was first.") from cause
        raise
