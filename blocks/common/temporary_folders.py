"""Temporary folders that are also removed after a crash.

A process holds a lock on its folder; the kernel releases the lock when the process dies. Each new call removes the
folders that are no longer locked. Otherwise a nightly process that is killed for its memory use would fill the disk.
"""

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_SECONDS = 60.0  # a folder exists for a moment before its owner has locked it


@contextmanager
def temporary_folder(below: Path | None, prefix: str, clock: Callable[[], float] = time.time) -> Iterator[Path]:
    """Yield an empty folder and remove it afterwards; also remove unlocked folders with the same prefix.

    Args:
        below: parent folder, created if missing; None is the machine's folder for temporary files.
        prefix: prefix of the folder's name. Only folders with this prefix are removed.
        clock: tells the age of the other folders, in seconds since 1970.
    """
    parent = below or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent, prefix, clock())
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # on a file system without locks no process gets one, so nothing is removed
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(parent: Path, prefix: str, now: float) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # it belongs to another user, is in use, or was removed meanwhile
            if now - folder.lstat().st_mtime > _GRACE_SECONDS:
                _remove_unless_locked(folder, prefix)


def _remove_unless_locked(folder: Path, prefix: str) -> None:
    # Links are not followed: everybody can create one in the machine's folder for temporary files.
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The folder is renamed first: a slow owner then fails at once, instead of losing single files.
        shutil.rmtree(folder.rename(folder.with_name(f"{prefix}dead-{uuid.uuid4().hex}")), ignore_errors=True)
    finally:
        os.close(lock)
