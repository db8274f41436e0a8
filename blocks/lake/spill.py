"""Folders for what does not fit into memory, of which dead processes leave none behind.

A process holds a lock on its folder, which the kernel drops when it dies: what nobody locks is swept up by the
next one that comes.
"""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_GRACE_SECONDS = 60.0  # between making a folder and locking it, its owner must not be taken for dead


@contextmanager
def spill_folder(parent: Path) -> Iterator[Path]:
    """Lend an empty, locked folder below `parent`; it is gone afterwards."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = parent / f"spill-{uuid.uuid4().hex}"
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    for folder in parent.iterdir():
        with suppress(OSError):
            if folder.is_dir() and time.time() - folder.stat().st_mtime > _GRACE_SECONDS:
                _remove_unless_locked(folder)


def _remove_unless_locked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed first: an owner that was only slow then fails as a whole, instead of losing some of its files.
        dead = folder.rename(folder.with_name(f"dead-{uuid.uuid4().hex}"))
        shutil.rmtree(dead, ignore_errors=True)
    finally:
        os.close(descriptor)
