"""Files that are replaced as a whole, so that a reader sees the old or the new one, and a crash leaves one of them."""

import os
from pathlib import Path
from uuid import uuid4


def write_text_atomically(path: Path, content: str, mode: int = 0o666) -> None:
    """Write beside the file, flush to the disk, rename, and flush the folder, without which the name may be lost.

    Args:
        path: the file; its folder is there.
        content: what it shall hold, as UTF-8.
        mode: who may read and write it, less the process's umask.

    Raises:
        OSError: it could not be written; what was there is there still, and nothing lies beside it.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with os.fdopen(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "w", encoding="utf-8") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    flush(path.parent)


def flush(path: Path) -> None:
    """Flush a file's content, or the names in a folder, to the disk: what was not flushed may be lost with the power.

    Raises:
        OSError: it could not be flushed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
