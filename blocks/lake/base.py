"""The lake port: append-only data sets of immutable snapshots, and as-of reads that always return the same rows."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prefect.blocks.core import Block
from pydantic import ConfigDict

from runtime.digests import text_digest

BUCKET_COLUMN = "_bucket"
"""Name of the int32 column, 0 to 9,999, that every entity data set has and is sorted by."""


@dataclass(frozen=True)
class DataFile:
    """One Parquet file of a snapshot: its name below the snapshot's folder, size in bytes, and SHA-256."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileTotals:
    """The number of files, and their total size."""

    files: int
    size_bytes: int


@dataclass(frozen=True)
class PublishedTable:
    """What publishing a data set as a table did: the commits written, and the problem if it cannot be such a table."""

    commits: int
    problem: str = ""


@dataclass(frozen=True)
class StorageUse:
    """Storage use of a data set: all stored files, unreferenced ones included, and the files that a full read opens."""

    stored: FileTotals
    opened: FileTotals


@dataclass(frozen=True)
class ErasedRows:
    """What an erasure removed from a data set: rows, of how many snapshots, and the digest of a full read around it.

    `problem` is why the data set's Delta table could not be published anew: it then names files that are gone.
    """

    dataset: str
    rows: int
    snapshots: int
    digest_before: str
    digest_after: str
    problem: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The manifest of one append. It is written last, so a snapshot with a manifest is complete.

    `schema` holds (column, Arrow type as text) in order, including the bucket column. `key` is the caller's
    idempotency key. `notes` is free text for people: accepted rows, quarantined rows, reasons.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

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
        return text_digest(text)


@dataclass(frozen=True)
class AsOf:
    """A repeatable read: the snapshots of a data set up to and including one of them.

    `id` and `sequence` are those of the newest snapshot; `rows` is the number of rows without a filter.
    `digest` is a SHA-256 over the digest of the read one snapshot older and that of the newest snapshot, so it
    covers all snapshots, and over what was erased from them since: `erased` has each time and number of rows in words.
    `schema` holds (column, Arrow type as text) of all columns that a snapshot of the read has.
    """

    dataset: str
    id: str
    sequence: int
    rows: int
    digest: str
    schema: tuple[tuple[str, str], ...]
    erased: tuple[str, ...] = ()
    load_snapshots: Callable[[], tuple[Snapshot, ...]] = field(default=tuple, repr=False, compare=False)

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The snapshots, oldest first; they are loaded on first use."""
        return self.load_snapshots()


class Lake(Block):
    """Append-only data sets. A partial append is never visible, and only `erase` removes what was appended.

    Every file that a read opens is verified against its SHA-256: once, and again after it changed.
    """

    @abstractmethod
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
        """Add rows as one snapshot, atomically; a reader is consumed once, in bounded memory.

        A second append with the same `key` adds nothing and returns the existing snapshot; a reader is then not
        consumed. `at` has a time zone; it becomes `created_at`. If it is not later than the newest snapshot's, it is
        set to one microsecond after that: times increase with the sequence, so that a read as of a past time never
        changes. Rows are sorted by `BUCKET_COLUMN` if they have it. If the rows are correct only on top of a certain
        snapshot, `expected_parent` is its id ("" for an empty data set).

        A new column is added to the data set and is null in older snapshots. A missing column is null for these rows.

        Raises:
            Conflict: a column has another type than before; the message names each, and the remedy.
            ConcurrentWrite: the newest snapshot is not `expected_parent`; check the rows again, then append.
            Rejected: there are no rows, or `dataset` is not a lower-case name of letters, digits, - and _.
        """

    @abstractmethod
    def find_by_key(self, dataset: str, key: str) -> Snapshot | None:
        """Return the snapshot that was appended with `key`; None if there is none, or no such data set."""

    @abstractmethod
    def datasets(self) -> tuple[str, ...]:
        """Return the names of all data sets, sorted."""

    @abstractmethod
    def as_of(self, dataset: str, when: str | None = None) -> AsOf:
        """Fix a read: `None` for now, a snapshot's id, or an ISO 8601 time with a zone ("2026-11-21T10:00:00Z").

        Raises:
            NotFound: no such data set or snapshot, or none existed at that time. The message lists existing ones.
            Rejected: `when` is a time without a zone, or is neither an id nor a time.
        """

    def read(self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a fixed read, ordered by snapshot and then as stored: always the same bytes.

        `below_bucket` selects the rows with a smaller bucket (a tier of 1 % is `below_bucket=100`), `columns` the
        columns and their order; None selects all.

        Raises:
            Corrupt: a file is missing or its SHA-256 differs from the manifest's; the message names the file.
            NotFound: no snapshot of the read has a requested column.
        """
        return self.scan(as_of, below_bucket=below_bucket, columns=columns).read_all()

    @abstractmethod
    def scan(
        self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Return the rows of `read`, in the same order, as a stream in bounded memory. Raises the errors of `read`."""

    @abstractmethod
    def files(self, as_of: AsOf, *, below_bucket: int | None = None) -> tuple[str, ...]:
        """Return the Parquet files of a read, as paths or s3:// URLs, for engines that scan files themselves.

        Each file was verified against its SHA-256. The files may contain rows of larger buckets than `below_bucket`:
        filter on `BUCKET_COLUMN`. Files of older snapshots may lack newer columns: scan with union by name. A
        compaction changes the files and the order of their rows, but never the rows: use `ORDER BY` if order matters.

        Raises:
            Corrupt: a file is missing or its SHA-256 differs from the manifest's; the message names the file.
        """

    @abstractmethod
    def compact(self, dataset: str, *, dry_run: bool = False) -> FileTotals:
        """Compact many small files into fewer, larger ones. Every read returns the same rows as before.

        Return the total size of the small files; with `dry_run` nothing is written.
        """

    @abstractmethod
    def collect_orphans(self, dataset: str, *, before: datetime, dry_run: bool = False) -> FileTotals:
        """Delete files older than `before` that no snapshot and no compaction references; return their total size.

        A running writer keeps its files or its append fails completely; it never loses only a part of them. With
        `dry_run` nothing is deleted.
        """

    @abstractmethod
    def erase(
        self,
        dataset: str,
        columns: Sequence[str],
        selects: Callable[[pa.Table], npt.NDArray[np.bool_]],
        *,
        at: datetime,
        notes: Mapping[str, str],
        dry_run: bool = False,
    ) -> ErasedRows:
        """Remove rows from all snapshots for good: the only operation that changes what a read returns.

        `selects` gets rows with `columns` and returns which of them are erased; it is called several times. Reads that
        cover an erased row have fewer rows and another digest from then on; `notes` stay in the log, and must not name
        whose rows they were. The files with these rows are deleted, those of abandoned writers too: an append under
        way may fail with a retryable error. Nothing is erased where no row is selected, and with `dry_run`.

        Raises:
            NotFound: no such data set.
            Corrupt: a file is not the one of its manifest: nothing is erased.
        """

    @abstractmethod
    def publish(self, dataset: str, *, dry_run: bool = False) -> PublishedTable:
        """Make the data set's Delta table agree with its snapshots, for engines that read the lake without our code.

        An append publishes its own snapshot. This makes up for what is missing (an older lake, a killed writer) and
        replaces what was changed. With `dry_run` nothing is written.
        """

    @abstractmethod
    def storage_use(self, dataset: str) -> StorageUse:
        """Return the current storage use of the data set. Raises NotFound if there is no such data set."""
