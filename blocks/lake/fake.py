"""A lake in memory, for tests: the same files, manifests and rules as the real ones, and faults on demand."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from threading import Lock

import pyarrow as pa
from pydantic import Field, PrivateAttr

from blocks.errors import Corrupt, Unavailable
from blocks.lake.base import AsOf, DataFile, Lake, Snapshot
from blocks.lake.parquet import decode, encode, parts_of, reaches_below
from blocks.lake.snapshots import (
    check_append,
    check_dataset,
    check_read,
    in_order_of,
    next_snapshot,
    resolve,
    with_key,
)


class FakeLake(Lake):
    """Append-only data sets that live as long as the object does."""

    _block_type_name = "Ratchet lake (fake, in memory)"
    _block_type_slug = "ratchet-lake-fake"

    fail_appends: int = Field(default=0, description="So many appends raise Unavailable before one works.")
    fail_reads: int = Field(default=0, description="So many reads raise Unavailable before one works.")

    _snapshots: dict[str, list[Snapshot]] = PrivateAttr(default_factory=dict)
    _files: dict[tuple[str, str], bytes] = PrivateAttr(default_factory=dict)
    _lock: Lock = PrivateAttr(default_factory=Lock)

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
        """Add the rows of `table` as one snapshot: see `Lake.append`. Fails `fail_appends` times first."""
        check_append(dataset, table, key, at)
        with self._lock:
            if self.fail_appends > 0:
                self.fail_appends -= 1
                raise Unavailable(f"{dataset}: the fake lake was told to fail. Try again.")
            existing = self._snapshots.get(dataset, [])
            if there := with_key(existing, key):
                return there
            ordered = in_order_of(existing[-1] if existing else None, table)
            encoded = [encode(ordered, part) for part in parts_of(ordered)]
            snapshot = next_snapshot(
                existing,
                dataset,
                ordered,
                tuple(file for file, _ in encoded),
                source=source,
                key=key,
                at=at,
                notes=notes,
            )
            self._files |= {(snapshot.id, file.name): data.to_pybytes() for file, data in encoded}
            self._snapshots[dataset] = [*existing, snapshot]
            return snapshot

    def datasets(self) -> tuple[str, ...]:
        """Return the names of all data sets, sorted."""
        return tuple(sorted(self._snapshots))

    def as_of(self, dataset: str, when: str | None = None) -> AsOf:
        """Fix a read: see `Lake.as_of`."""
        check_dataset(dataset)
        return resolve(dataset, self._snapshots.get(dataset, []), when)

    def read(self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a fixed read: see `Lake.read`. Fails `fail_reads` times first."""
        wanted = check_read(as_of, below_bucket, columns)
        with self._lock:
            if self.fail_reads > 0:
                self.fail_reads -= 1
                raise Unavailable(f"{as_of.dataset}: the fake lake was told to fail. Try again.")
        files = [(snapshot, file) for snapshot in as_of.snapshots for file in snapshot.files]
        needed = [entry for entry in files if reaches_below(entry[1], below_bucket)] or files[:1]
        return pa.concat_tables(
            decode(self._data(s, f), f, below_bucket=below_bucket, columns=wanted, where=f"{s.id}/{f.name}")
            for s, f in needed
        )

    def damage(self, snapshot: Snapshot, file: str, offset: int) -> None:
        """Flip the lowest bit of one byte of a stored file, as a bad disk would."""
        data = bytearray(self._files[snapshot.id, file])
        data[offset] ^= 1
        self._files[snapshot.id, file] = bytes(data)

    def lose(self, snapshot: Snapshot, file: str) -> None:
        """Drop a stored file, as a person who tidies up would."""
        del self._files[snapshot.id, file]

    def _data(self, snapshot: Snapshot, file: DataFile) -> bytes:
        try:
            return self._files[snapshot.id, file.name]
        except KeyError as cause:
            raise Corrupt(f"{snapshot.id}/{file.name}: the file is gone. Restore it from a copy.") from cause
