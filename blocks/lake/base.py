"""The lake port: append-only data sets made of immutable snapshots, and reads that can be repeated for ever."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

import pyarrow as pa
from prefect.blocks.core import Block

BUCKET_COLUMN = "_bucket"
"""Name of the int32 column, 0 to 9,999, that every entity data set carries and is laid out by."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a snapshot: its name below the snapshot's folder, size in bytes, and SHA-256."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Snapshot:
    """The manifest of one append. It is written last, so what has a manifest is whole.

    `schema` holds (column, Arrow type as text) in order, the bucket column included. `key` is the caller's
    idempotency key. `notes` is free text for people: accepted, quarantined, reasons.
    """

    dataset: str
    id: str
    sequence: int
    created_at: datetime
    source: str
    key: str
    schema: tuple[tuple[str, str], ...]
    rows: int
    files: tuple[DataFile, ...]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the manifest's canonical JSON (sorted keys, no spaces, times in ISO 8601)."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), default=datetime.isoformat)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class AsOf:
    """A read that can be repeated: the snapshots of a data set up to and including one of them, oldest first."""

    dataset: str
    snapshots: tuple[Snapshot, ...]

    @property
    def id(self) -> str:
        """The id of the newest snapshot in the read."""
        return self.snapshots[-1].id

    @property
    def rows(self) -> int:
        """How many rows the read returns when nothing is filtered."""
        return sum(snapshot.rows for snapshot in self.snapshots)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of the snapshots, in order."""
        return hashlib.sha256("\n".join(s.digest for s in self.snapshots).encode()).hexdigest()


class Lake(Block):
    """Append-only data sets. Nothing partial is ever visible; every file read is checked against its SHA-256."""

    @abstractmethod
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
        """Add the rows of `table` as one snapshot, whole or not at all.

        A second append under the same `key` adds nothing and returns the snapshot that is there.
        `at` has a time zone; it becomes `created_at`, moved to a microsecond after the newest snapshot's where
        it is not later: times increase with the sequence, so that a read as of a past time never changes.
        Rows are laid out by `BUCKET_COLUMN` where present.

        Raises:
            Conflict: the columns or types differ from those of the data set's newest snapshot; the message
                names each column that is missing, added, or of another type.
            Rejected: the table has no rows, or `dataset` is not a lower-case name of letters, digits, - and _.
        """

    @abstractmethod
    def datasets(self) -> tuple[str, ...]:
        """Return the names of all data sets, sorted."""

    @abstractmethod
    def as_of(self, dataset: str, when: str | None = None) -> AsOf:
        """Fix a read: `None` for now, a snapshot's id, or an ISO 8601 time with a zone ("2026-11-21T10:00:00Z").

        Raises:
            NotFound: no such data set or snapshot, or nothing had landed at that time. The message lists
                what there is.
            Rejected: `when` is a time without a zone, or is neither an id nor a time.
        """

    @abstractmethod
    def read(self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a fixed read, ordered by snapshot and then as laid out: the same bytes every time.

        Args:
            as_of: what `as_of` returned.
            below_bucket: only rows whose bucket is smaller (a tier of 1 % is `below_bucket=100`).
            columns: only these, in this order; all when None.

        Raises:
            Corrupt: a file is gone or its SHA-256 is not the manifest's; the message names the file.
            NotFound: a column that no snapshot of the read has.
        """
