"""The lake port: append-only data sets made of immutable snapshots, and reads that can be repeated for ever."""

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property

import pyarrow as pa
from prefect.blocks.core import Block

from runtime.digests import text_digest

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
class FileTotals:
    """How many files there are, and their bytes."""

    files: int
    size_bytes: int


@dataclass(frozen=True)
class StorageUse:
    """What a data set takes: the files that are stored, unnamed ones included, and those that a full read opens."""

    stored: FileTotals
    opened: FileTotals


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
        return text_digest(text)


@dataclass(frozen=True)
class AsOf:
    """A read that can be repeated: the snapshots of a data set up to and including one of them.

    `id` and `sequence` are the newest snapshot's; `rows` is what the read returns when nothing is filtered;
    `digest` is a SHA-256 over the digest of the read one snapshot older and that of the newest snapshot, so it
    stands for all of them. `schema` holds (column, Arrow type as text): columns that a snapshot of the read has.
    """

    dataset: str
    id: str
    sequence: int
    rows: int
    digest: str
    schema: tuple[tuple[str, str], ...]
    load_snapshots: Callable[[], tuple[Snapshot, ...]] = field(repr=False, compare=False)

    @cached_property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """Return the snapshots, oldest first; they are fetched when first asked for."""
        return self.load_snapshots()


class Lake(Block):
    """Append-only data sets. Nothing partial is ever visible.

    Every file that a read opens has been checked against its SHA-256: once, and again when it changed.
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
        """Add rows as one snapshot, whole or not at all; a reader is consumed once, in bounded memory.

        A second append under the same `key` adds nothing and returns the snapshot that is there; a reader is
        then not touched. `at` has a time zone; it becomes `created_at`, moved to a microsecond after the newest
        snapshot's where it is not later: times increase with the sequence, so that a read as of a past time
        never changes. Rows are laid out by `BUCKET_COLUMN` where present. `expected_parent` is the id of the newest snapshot
        that the caller has seen ("" for none), when the rows are right only on top of that one.

        A column that the data set did not have is added: it reads as null in older snapshots. One that is
        missing reads as null for these rows.

        Raises:
            Conflict: a column has another type than before; the message names each, and the remedy.
            LostRace: another snapshot than `expected_parent` is the newest; look at the rows again, then append.
            Rejected: there are no rows, or `dataset` is not a lower-case name of letters, digits, - and _.
        """

    @abstractmethod
    def find_by_key(self, dataset: str, key: str) -> Snapshot | None:
        """Return the snapshot that was appended under `key`, or None: also when there is no such data set."""

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

    @abstractmethod
    def scan(
        self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Return the rows of `read`, in the same order, as a stream in bounded memory; raises what `read` does."""

    @abstractmethod
    def files(self, as_of: AsOf, *, below_bucket: int | None = None) -> tuple[str, ...]:
        """Return the Parquet files that a read needs, for engines that scan themselves: paths or s3:// URLs.

        Each was checked against its SHA-256: once, and again when it changed. Rows of buckets from
        `below_bucket` on may be in them: filter on `BUCKET_COLUMN`. Files of older snapshots may lack newer
        columns: scan with union by name. Which files these are, and the order of their rows, changes with a
        compaction, the rows never: say `ORDER BY` where order matters.

        Raises:
            Corrupt: a file is gone or its SHA-256 is not the manifest's; the message names the file.
        """

    @abstractmethod
    def compact(self, dataset: str, *, at: datetime, dry_run: bool = False) -> FileTotals:
        """Put the rows of many small files into fewer, larger ones; no read returns anything else than before.

        Return the small files; with `dry_run` those that it would take together, and nothing is written.
        """

    @abstractmethod
    def collect_orphans(self, dataset: str, *, before: datetime, dry_run: bool = False) -> FileTotals:
        """Remove files older than `before` that no snapshot and no compaction names, and return what they took.

        A writer that is still at work keeps its files, or fails as a whole: never is a part of them lost. With
        `dry_run` nothing is removed.
        """

    @abstractmethod
    def storage_use(self, dataset: str) -> StorageUse:
        """Return what the data set takes now; `NotFound` when there is none."""
