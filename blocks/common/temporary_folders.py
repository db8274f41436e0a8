"""Temporary folders of which dead processes leave none behind.

A process holds a lock on its folder, which the kernel drops when it dies: what nobody locks is removed by the next
that comes. A server that is killed by the kernel's memory killer cannot clean up after itself, and a nightly one fills
the disk.
"""

import fcntl
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_SECONDS = 60.0  # between making a folder and locking it, its owner must not be taken for dead


@contextmanager
def temporary_folder(below: Path | None, prefix: str) -> Iterator[Path]:
    """Lend an empty folder that is gone afterwards, and remove those of the dead.

    Args:
        below: where it is made, and made itself when missing; None is the machine's folder for temporary files.
        prefix: how its name begins. Only folders whose names begin so are looked at.
    """
    parent = below or Path(tempfile.gettempdir())
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: the next cannot take it either, and sweeps nothing
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_abandoned(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # another's, in use, or gone meanwhile
            if time.time() - folder.lstat().st_mtime > _GRACE_SECONDS:
                _remove_unless_locked(folder, prefix)


def _remove_unless_locked(folder: Path, prefix: str) -> None:
    # A link is not followed: everybody may make one in the machine's folder for temporary files.
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed first: an owner that was only slow then fails as a whole, instead of losing some of its files.
        shutil.rmtree(folder.rename(folder.with_name(f"{prefix}dead-{uuid.uuid4().hex}")), ignore_errors=True)
    finally:
        os.close(lock)
