"""A lake in a folder of one file system: `<root>/<data set>/<sequence>/` holds Parquet files and a manifest.

A snapshot is written in `<root>/.staging`, flushed, and renamed to the next free sequence number. A rename
onto a folder that is there fails, so of two writers one is first and the other goes on top of it. A writer
holds a lock on its staging folder, which the kernel drops when it dies: what nobody locks is swept up by the
next append.
"""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from errno import EEXIST, ENOTEMPTY
from pathlib import Path

import pyarrow as pa
from pydantic import Field

from blocks.errors import Corrupt, LostRace, Rejected, Unavailable
from blocks.lake.base import AsOf, DataFile, Lake, Snapshot
from blocks.lake.parquet import Part, decode, encode, parts_of, reaches_below
from blocks.lake.snapshots import (
    check_append,
    check_dataset,
    check_read,
    in_order_of,
    next_snapshot,
    parse,
    render,
    resolve,
    with_key,
)

MANIFEST = "manifest.json"
"""The file that is written last; what has it is whole."""

_STAGING = ".staging"
_GRACE_SECONDS = 60.0  # between making a staging folder and locking it, its writer must not be taken for dead
_ATTEMPTS = 1_000
_THREADS = 2


class LocalLake(Lake):
    """Append-only data sets in a local folder, for any number of processes on it at once."""

    _block_type_name = "Ratchet lake (local folder)"
    _block_type_slug = "ratchet-lake-local"

    root: Path = Field(description="Folder of the lake, on one file system; made when it is missing.")

    def append(
        self,
        dataset: str,
        table: pa.Table,
        *,
        source: str,
        key: str,
        at: datetime,
        notes: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """Add the rows of `table` as one snapshot, whole or not at all: see `Lake.append`."""
        check_append(dataset, table, key, at)
        with _port_errors(f"{dataset}: the lake in {self.root} could not be written"):
            existing = self._snapshots(dataset)
            if there := with_key(existing, key):
                return there
            ordered = in_order_of(existing[-1] if existing else None, table)
            with self._stage(dataset) as stage:
                files = _write_parts(ordered, stage)
                for _ in range(_ATTEMPTS):
                    snapshot = next_snapshot(
                        existing, dataset, ordered, files, source=source, key=key, at=at, notes=notes
                    )
                    if self._commit(stage, snapshot):
                        return snapshot
                    existing = self._snapshots(dataset)
                    if there := with_key(existing, key):
                        return there
                    _still_fits(existing[-1], ordered)
        raise LostRace(f"{dataset}: {_ATTEMPTS} other writers were first. Try again.")

    def datasets(self) -> tuple[str, ...]:
        """Return the names of all data sets, sorted."""
        if not self.root.is_dir():
            return ()
        folders = (path for path in self.root.iterdir() if not path.name.startswith("."))
        return tuple(sorted(path.name for path in folders if _newest(path)))

    def as_of(self, dataset: str, when: str | None = None) -> AsOf:
        """Fix a read: see `Lake.as_of`."""
        check_dataset(dataset)
        with _port_errors(f"{dataset}: the lake in {self.root} could not be read"):
            return resolve(dataset, self._snapshots(dataset), when)

    def read(self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a fixed read: see `Lake.read`. Each file is read and hashed once."""
        wanted = check_read(as_of, below_bucket, columns)

        def load(entry: tuple[Path, DataFile]) -> pa.Table:
            path, file = entry
            return decode(_bytes_of(path), file, below_bucket=below_bucket, columns=wanted, where=str(path))

        files = [(self._folder(s) / f.name, f) for s in as_of.snapshots for f in s.files]
        needed = [entry for entry in files if reaches_below(entry[1], below_bucket)] or files[:1]
        problem = f"{as_of.dataset}: the lake in {self.root} could not be read"
        with _port_errors(problem), ThreadPoolExecutor(_THREADS) as pool:
            return pa.concat_tables(pool.map(load, needed))

    def _folder(self, snapshot: Snapshot) -> Path:
        return self.root / snapshot.dataset / f"{snapshot.sequence:08d}"

    def _snapshots(self, dataset: str) -> list[Snapshot]:
        """Return all snapshots, oldest first. Numbers are claimed in order: a gap means that one is lost."""
        folder = self.root / dataset
        numbers = range(1, _newest(folder) + 1)
        snapshots = []
        for number in numbers:
            path = folder / f"{number:08d}" / MANIFEST
            snapshot = parse(_bytes_of(path), str(path))
            if (snapshot.dataset, snapshot.sequence) != (dataset, number):
                raise Corrupt(f"{path}: this is snapshot {snapshot.id} of {snapshot.dataset}. Put it back there.")
            snapshots.append(snapshot)
        return snapshots

    @contextmanager
    def _stage(self, dataset: str) -> Iterator[Path]:
        """Lend a locked folder beside the data sets; gone afterwards, unless it was renamed into place."""
        staging = self.root / _STAGING
        for folder in (staging, self.root / dataset):
            folder.mkdir(parents=True, exist_ok=True)
        _sync(self.root)
        _sweep(staging)
        stage = staging / f"{dataset}-{uuid.uuid4().hex}"
        stage.mkdir()
        descriptor = os.open(stage, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            os.close(descriptor)

    def _commit(self, stage: Path, snapshot: Snapshot) -> bool:
        """Make the staged files visible under the snapshot's number; False when another has that number."""
        target = self._folder(snapshot)
        _write(stage / MANIFEST, render(snapshot))
        _sync(stage)
        try:
            stage.rename(target)
        except OSError as error:
            if error.errno in (EEXIST, ENOTEMPTY):
                return False
            raise
        _sync(target.parent)
        return True


def _write_parts(table: pa.Table, stage: Path) -> tuple[DataFile, ...]:
    def write(part: Part) -> DataFile:
        file, data = encode(table, part)
        _write(stage / file.name, data)
        return file

    with ThreadPoolExecutor(_THREADS) as pool:
        return tuple(pool.map(write, parts_of(table)))


def _still_fits(newest: Snapshot, table: pa.Table) -> None:
    """Refuse to go on top of a snapshot that came first, when what is staged has not its columns."""
    if in_order_of(newest, table).column_names != table.column_names:
        raise LostRace(f"{newest.dataset}: {newest.id} came first, with its columns in another order. Try again.")


def _newest(folder: Path) -> int:
    """Return the highest sequence number in a data set's folder, 0 when there is none."""
    if not folder.is_dir():
        return 0
    names = (path.name for path in folder.iterdir())
    return max((int(name) for name in names if len(name) == 8 and name.isascii() and name.isdigit()), default=0)


def _write(path: Path, data: bytes | pa.Buffer) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    """Flush a folder's entries to the disk: without it a rename may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise Corrupt(f"{path}: the file is gone. Restore it from a copy; nothing was read.") from cause


def _sweep(staging: Path) -> None:
    """Remove the staging folders of dead writers: those that nobody locks."""
    for folder in staging.iterdir():
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > _GRACE_SECONDS:
                _remove_unless_locked(folder)


def _remove_unless_locked(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Renamed first: a writer that was only slow then fails as a whole, and cannot commit half a folder.
        dead = folder.rename(folder.with_name(f"dead-{uuid.uuid4().hex}"))
        shutil.rmtree(dead, ignore_errors=True)
    finally:
        os.close(descriptor)


@contextmanager
def _port_errors(problem: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as cause:
        raise Rejected(f"{problem}: {cause}. Give this user the right to it.") from cause
    except OSError as cause:
        raise Unavailable(f"{problem}: {cause}. Look at the disk's free space and health.") from cause
