"""Atomic replacement of files: a reader sees the old or the new content, also after a crash."""

import os
from pathlib import Path
from uuid import uuid4


def write_text_atomically(path: Path, content: str, mode: int = 0o666) -> None:
    """Write and flush a temporary file, rename it to `path`, and flush the folder, so that the name is durable.

    Args:
        path: the file; its folder exists.
        content: the new content, written as UTF-8.
        mode: the file's mode, restricted by the process's umask.

    Raises:
        OSError: the file could not be written; it is unchanged, and no temporary file remains.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to disk, so that a power failure cannot lose them.

    Raises:
        OSError: it could not be flushed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
