"""A fake lake for tests: the same log, files and rules as the real adapters, in its own folder, and faults."""

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from threading import Lock

import pyarrow as pa
from pydantic import Field, PrivateAttr

from blocks.common.errors import Unavailable
from blocks.lake.base import AsOf, Snapshot
from blocks.lake.object_store import STAGING_FOLDER, FolderObjectStore, ObjectStore
from blocks.lake.object_store_lake import ObjectStoreLake


class FakeLake(ObjectStoreLake):
    """Append-only data sets that exist as long as the object."""

    _block_type_name = "Ratchet lake (fake)"
    _block_type_slug = "ratchet-lake-fake"

    fail_appends: int = Field(default=0, description="Number of appends that raise Unavailable before one works.")
    fail_reads: int = Field(default=0, description="Number of reads that raise Unavailable before one works.")

    _root: Path | None = PrivateAttr(default=None)
    _lock: Lock = PrivateAttr(default_factory=Lock)

    @property
    def root(self) -> Path:
        """The folder of the lake, which is deleted with this object."""
        with self._lock:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="fake-lake-"))
                weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
            return self._root

    def open_store(self) -> ObjectStore:
        """Return the folder as a store; nothing is flushed to the disk."""
        return FolderObjectStore(self.root, durable=False)

    def spill(self) -> Path:
        """Return the folder in which large appends are sorted."""
        return self.root / STAGING_FOLDER

    def append(
        self,
        dataset: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        source: str,
        key: str,
        at: datetime,
        notes: Mapping[str, str] | None = None,
        expected_parent: str | None = None,
    ) -> Snapshot:
        """Add rows as one snapshot: see `Lake.append`. Fails `fail_appends` times first."""
        if self.fail_appends > 0:
            self.fail_appends -= 1
            raise Unavailable(f"{dataset}: this fake lake is configured to fail (fail_appends). Try again.")
        return super().append(
            dataset, rows, source=source, key=key, at=at, notes=notes, expected_parent=expected_parent
        )

    def scan(
        self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Stream the rows of a fixed read: see `Lake.scan`. Fails `fail_reads` times first."""
        if self.fail_reads > 0:
            self.fail_reads -= 1
            raise Unavailable(f"{as_of.dataset}: this fake lake is configured to fail (fail_reads). Try again.")
        return super().scan(as_of, below_bucket=below_bucket, columns=columns)

    def corrupt_file(self, snapshot: Snapshot, file: str, offset: int) -> None:
        """Flip the lowest bit of one byte of a stored file, as a bad disk would."""
        path = Path(self.file_url(snapshot, file))
        data = bytearray(path.read_bytes())
        data[offset] ^= 1
        path.write_bytes(data)

    @contextmanager
    def port_errors(self, dataset: str, action: str) -> Iterator[None]:
        """Translate errors of the file system into port errors."""
        try:
            yield
        except OSError as cause:
            raise Unavailable(f"{dataset}: the fake lake could not be {action}: {cause}. Try again.") from cause
