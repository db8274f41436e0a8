"""What a lake needs of a place that keeps bytes under keys, and the folder that is such a place.

A key is a path with "/" between its parts. Nothing that a log entry names is ever overwritten.
"""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from runtime.digests import file_digest
from runtime.files import flush

STAGING_FOLDER = ".staging"
"""Folder of a folder store for what is being written; hidden from the list of data sets."""

_ABANDONED_AFTER_SECONDS = 3_600.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a store: its key, size in bytes, and when it was last written."""

    key: str
    size_bytes: int
    modified: datetime


class ObjectStore(Protocol):
    """Bytes under keys. Errors of the place itself are raised as they come; the lake turns them into its own."""

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None when there are none."""

    def put(self, key: str, data: bytes | pa.Buffer, sha256: str) -> None:
        """Write under a key, over what is there; durable when this returns. `sha256` is the data's, in hex."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write where nothing is, durable and whole at once; False when there is something: of many, one wins."""

    def put_hint(self, key: str, data: bytes) -> None:
        """Write under a key, whole or not at all, perhaps not durable; a failure is silent: it only helps."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield what lies below a prefix that ends in "/", in no order; nothing when there is no such place."""

    def top_level_names(self) -> list[str]:
        """Return the first parts of all keys."""

    def delete(self, key: str) -> None:
        """Remove a key; nothing happens when it is gone already."""

    def open(self, key: str, sha256: str) -> pa.NativeFile:
        """Open for reading by Arrow; `FileNotFoundError` when it is gone."""

    def url(self, key: str) -> str:
        """Return the path or URL by which another engine opens it."""

    def fingerprint(self, key: str) -> str | None:
        """Return a text that changes whenever the object may have changed, or None when it is gone."""

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of what is there, in hex."""


class FolderObjectStore:
    """A folder on one file system with hard links, for any number of processes at once."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None when there are none."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key: str, data: bytes | pa.Buffer, sha256: str) -> None:
        """Write a file and flush it and its folder to the disk."""
        path = self.root / key
        self._make(path.parent)
        self._write(path, data)
        self._sync(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write beside, flush, and link into place: a link to a name that is there fails."""
        path, staging = self.root / key, self.root / STAGING_FOLDER
        self._make(path.parent)
        self._make(staging)
        beside = staging / f"entry-{uuid.uuid4().hex}"
        try:
            self._write(beside, data)
            os.link(beside, path)
        except FileExistsError:
            return False
        finally:
            beside.unlink(missing_ok=True)
        self._sync(path.parent)
        return True

    def put_hint(self, key: str, data: bytes) -> None:
        """Write beside and rename over what is there."""
        path = self.root / key
        beside = self.root / STAGING_FOLDER / f"entry-{uuid.uuid4().hex}"
        with suppress(OSError):
            beside.write_bytes(data)
            beside.replace(path)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the files below a folder."""
        for folder, _, names in os.walk(self.root / prefix):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    found = path.stat()
                    when = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield ObjectInfo(path.relative_to(self.root).as_posix(), found.st_size, when)

    def top_level_names(self) -> list[str]:
        """Return the names of the folders, those that begin with a dot left out."""
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if not path.name.startswith(".")]

    def delete(self, key: str) -> None:
        """Remove a file, and its folder when that is empty then."""
        path = self.root / key
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def open(self, key: str, sha256: str) -> pa.NativeFile:
        """Open a file for reading."""
        return pa.OSFile(str(self.root / key))

    def url(self, key: str) -> str:
        """Return the file's path."""
        return str(self.root / key)

    def fingerprint(self, key: str) -> str | None:
        """Return inode, size and both times: the kernel sets the last whenever the file's bytes or place change."""
        try:
            found = (self.root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of the file, in hex."""
        return file_digest(self.root / key)

    def remove_abandoned(self) -> None:
        """Remove what dead writers left beside: entries never linked. A slow writer that is met fails as a whole."""
        for path in (self.root / STAGING_FOLDER).glob("entry-*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                    path.unlink()

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        self._sync(folder.parent)

    def _write(self, path: Path, data: bytes | pa.Buffer) -> None:
        with path.open("wb") as stream:
            stream.write(data)
            stream.flush()
            if self._durable:
                os.fsync(stream.fileno())

    def _sync(self, folder: Path) -> None:
        """Flush a folder's entries to the disk: without it a new name may be lost with the power."""
        if self._durable:
            flush(folder)
