"""Object stores: the operations that a lake needs, and the implementation in a local folder.

A key is a path with "/" between its parts. Objects that a log entry references are never overwritten.
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
"""Folder for files that are being written; hidden from the list of data sets."""

_ABANDONED_AFTER_SECONDS = 3_600.0
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a store: its key, size, and when it was last written."""

    key: str
    size_bytes: int
    modified: datetime


class ObjectStore(Protocol):
    """Stores bytes by key. Raises the errors of the storage itself; the lake translates them into port errors."""

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None if the object does not exist."""

    def put(self, key: str, data: bytes | pa.Buffer, sha256: str) -> None:
        """Write an object, replacing an existing one; durable on return. `sha256` is the data's, in hex."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object atomically and durably; return False if it exists. Of several writers one succeeds."""

    def put_hint(self, key: str, data: bytes) -> None:
        """Write an object atomically, perhaps not durably. Failures are ignored: readers work without the object."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the objects below a prefix that ends in "/", in no order; nothing if there are none."""

    def top_level_names(self) -> list[str]:
        """Return the first parts of all keys."""

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""

    def purge(self, key: str) -> None:
        """Delete an object with all its former versions, where the store keeps such; a missing one is no error."""

    def open(self, key: str, sha256: str) -> pa.NativeFile:
        """Open an object for reading by Arrow. Raises FileNotFoundError if it does not exist."""

    def url(self, key: str) -> str:
        """Return the path or URL by which an engine opens the object."""

    def fingerprint(self, key: str) -> str | None:
        """Return a text that changes whenever the object may have changed; None if it does not exist."""

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of the object, in hex."""


class FolderObjectStore:
    """Objects in a local folder with hard links, which any number of processes may use at the same time."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self.root = root
        self._durable = durable

    def get(self, key: str) -> bytes | None:
        """Return the bytes, or None if the file does not exist."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put(self, key: str, data: bytes | pa.Buffer, sha256: str) -> None:
        """Write and flush a temporary file, then rename it to its name: a reader sees the old content or the new."""
        path, staging = self.root / key, self.root / STAGING_FOLDER
        self._make(staging)
        temporary = staging / f"entry-{uuid.uuid4().hex}"
        try:
            self._write(temporary, data)
            self._make(path.parent)
            try:
                temporary.replace(path)
            except FileNotFoundError:  # a collection has just removed the folder, because it was empty
                self._make(path.parent)
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._sync(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write and flush a temporary file, then link it to its name: the link fails if the name exists."""
        path, staging = self.root / key, self.root / STAGING_FOLDER
        self._make(path.parent)
        self._make(staging)
        temporary = staging / f"entry-{uuid.uuid4().hex}"
        try:
            self._write(temporary, data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        self._sync(path.parent)
        return True

    def put_hint(self, key: str, data: bytes) -> None:
        """Write a temporary file and rename it to its name."""
        path = self.root / key
        temporary = self.root / STAGING_FOLDER / f"entry-{uuid.uuid4().hex}"
        with suppress(OSError):
            temporary.write_bytes(data)
            temporary.replace(path)

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield the files below a folder."""
        for folder, _, names in os.walk(self.root / prefix):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                    yield ObjectInfo(path.relative_to(self.root).as_posix(), stat.st_size, modified)

    def top_level_names(self) -> list[str]:
        """Return the names of the folders, without those that begin with a dot."""
        if not self.root.is_dir():
            return []
        return [path.name for path in self.root.iterdir() if not path.name.startswith(".")]

    def delete(self, key: str) -> None:
        """Delete a file, and its folder if that is empty then."""
        path = self.root / key
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()

    def purge(self, key: str) -> None:
        """Delete a file: a folder keeps no former versions."""
        self.delete(key)

    def open(self, key: str, sha256: str) -> pa.NativeFile:
        """Open a file for reading."""
        return pa.OSFile(str(self.root / key))

    def url(self, key: str) -> str:
        """Return the file's path."""
        return str(self.root / key)

    def fingerprint(self, key: str) -> str | None:
        """Return inode, size, mtime and ctime; the kernel sets ctime whenever the bytes or the name change."""
        try:
            stat = (self.root / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return f"{stat.st_ino}-{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}"

    def sha256(self, key: str) -> str:
        """Return the SHA-256 of the file, in hex."""
        return file_digest(self.root / key)

    def remove_abandoned(self) -> None:
        """Delete temporary files of dead writers. If a slow writer loses its file, its append fails completely."""
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
        """Flush a folder's entries to disk; otherwise a power failure may lose a new name."""
        if self._durable:
            flush(folder)
