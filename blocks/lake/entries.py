"""Entries of a data set's log and their stored form, in which any changed bit is detected.

Entry n is the object `<data set>/_log/<n>.json`. It has the digest of the entry before it, so that the newest one
authenticates all. There are four kinds: a snapshot, a compaction, a fence, which announces the deletion of unfinished
files, and an erasure, which replaces files of snapshots by copies without some rows. Every entry contains the state of
the data set up to itself, so that one entry is enough to fix a read.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import ClassVar

from pydantic import ConfigDict, TypeAdapter

from blocks.common.errors import Corrupt
from blocks.lake.base import DataFile, Snapshot
from runtime.digests import bytes_digest, text_digest

_FILE_NAME = re.compile(r"part-\d{5,}(-buckets-\d{4}-\d{4})?\.parquet")
_ONE_MICROSECOND = timedelta(microseconds=1)
_PREFIX = b'{"sha256":"%s","entry":'
_PREFIX_BYTES = len(_PREFIX % (b"0" * 64))
_SUFFIX = b"}\n"


@dataclass(frozen=True)
class CompactedRange:
    """An active compaction: the files of entry `log` also contain the snapshots `first` to `last`."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    first: int
    last: int
    log: int
    rows: int


@dataclass(frozen=True)
class DatasetState:
    """The state of a data set up to an entry.

    Attributes:
        sequence, id, created_at: those of the newest snapshot.
        rows: the sum over all snapshots.
        digest: digest of the read.
        schema: (column, Arrow type as text) in order.
        arrow: the schema as Arrow serialises it, in base 64.
        others: numbers of the entries that are not snapshots.
        runs: the active compactions.
        introduced: sequence numbers of the snapshots that added columns.
        erasures: numbers of the entries that are erasures.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    sequence: int = 0
    id: str = ""
    created_at: datetime = datetime(1, 1, 1, tzinfo=UTC)
    rows: int = 0
    digest: str = ""
    schema: tuple[tuple[str, str], ...] = ()
    arrow: str = ""
    others: tuple[int, ...] = ()
    runs: tuple[CompactedRange, ...] = ()
    introduced: tuple[int, ...] = ()
    erasures: tuple[int, ...] = ()

    def entry_number_of(self, sequence: int) -> int:
        """Return the number of the entry with the snapshot of that sequence number."""
        number = sequence
        for other in self.others:
            if other <= number:
                number += 1
        return number


@dataclass(frozen=True)
class Compaction:
    """A compaction: copies of the rows of snapshots `first` to `last`, in its own files."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    first: int
    last: int
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class ReplacedFile:
    """A file of a snapshot, and the one in the erasure's folder that holds its rows but the erased ones."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    sequence: int
    name: str
    erased: int
    file: DataFile


@dataclass(frozen=True)
class Erasure:
    """Rows that were removed from snapshots for good. `notes` names the requester and the reason, never the entity."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    at: datetime
    replaced: tuple[ReplacedFile, ...]
    notes: Mapping[str, str]

    def rows_up_to(self, sequence: int) -> int:
        """Return how many rows were erased from the snapshots up to one."""
        return sum(each.erased for each in self.replaced if each.sequence <= sequence)


@dataclass(frozen=True)
class LogEntry:
    """One entry of the log. `folder` is the folder of its files below the data set; `previous` is a digest."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # a newer release may have written it

    log: int
    previous: str
    state: DatasetState
    folder: str = ""
    snapshot: Snapshot | None = None
    compaction: Compaction | None = None
    fenced: tuple[str, ...] = field(default=())
    erasure: Erasure | None = None

    @property
    def files(self) -> tuple[DataFile, ...]:
        """The files of its snapshot, compaction or erasure; a fence has none."""
        if self.erasure:
            return tuple(each.file for each in self.erasure.replaced)
        content = self.snapshot or self.compaction
        return content.files if content else ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the entry's content, as in its stored text."""
        return bytes_digest(_content(self))


def entry_key(dataset: str, log: int) -> str:
    """Return the key of an entry of a data set."""
    return f"{dataset}/_log/{log:08d}.json"


def next_state(state: DatasetState, snapshot: Snapshot, arrow: str) -> DatasetState:
    """Return the state after a snapshot is added; `arrow` is the serialised schema with its columns."""
    introduced = state.introduced
    if len(snapshot.schema) > len(state.schema):
        introduced = (*introduced, snapshot.sequence)
    return replace(
        state,
        sequence=snapshot.sequence,
        id=snapshot.id,
        created_at=snapshot.created_at,
        rows=state.rows + snapshot.rows,
        digest=text_digest(f"{state.digest}\n{snapshot.digest}" if state.digest else snapshot.digest),
        schema=snapshot.schema,
        arrow=arrow,
        introduced=introduced,
    )


def state_after_erasure(state: DatasetState, erasure: Erasure) -> DatasetState:
    """Return a state without the rows that were erased from its snapshots: fewer rows, and another digest."""
    if not (erased := erasure.rows_up_to(state.sequence)):
        return state
    text = json.dumps(asdict(erasure), sort_keys=True, separators=(",", ":"), default=datetime.isoformat)
    return replace(state, rows=state.rows - erased, digest=text_digest(f"{state.digest}\nerased {text}"))


def next_snapshot(
    dataset: str,
    state: DatasetState,
    schema: tuple[tuple[str, str], ...],
    files: tuple[DataFile, ...],
    *,
    source: str,
    key: str,
    at: datetime,
    notes: Mapping[str, str] | None,
) -> Snapshot:
    """Return the manifest of the snapshot that follows a state.

    Times increase strictly with the sequence, whatever the writers' clocks. Otherwise a late writer with a slow clock
    would change the result of a read as of an earlier time.
    """
    created_at, key_digest = at.astimezone(UTC), text_digest(f"{dataset}\n{key}")[:8]
    return Snapshot(
        dataset=dataset,
        id=f"{state.sequence + 1:08d}-{key_digest}",
        sequence=state.sequence + 1,
        created_at=max(created_at, state.created_at + _ONE_MICROSECOND) if state.sequence else created_at,
        source=source,
        key=key,
        schema=schema,
        rows=sum(file.rows for file in files),
        files=files,
        notes={str(name): str(text) for name, text in (notes or {}).items()},
    )


def serialize_entry(entry: LogEntry) -> bytes:
    """Return the stored text of an entry: JSON with its own digest, always the same bytes for the same entry."""
    return _PREFIX % entry.digest.encode() + _content(entry) + _SUFFIX


def parse_entry(data: bytes, url: str) -> LogEntry:
    """Return the entry of a stored text. Raises Corrupt if any bit of it was changed."""
    content = data[_PREFIX_BYTES : -len(_SUFFIX)]
    digest = bytes_digest(content)
    if data != _PREFIX % digest.encode() + content + _SUFFIX:
        raise Corrupt(f"{url}: the manifest was changed (its digest differs). Restore it from a copy.")
    try:
        entry = _entry_type().validate_json(content)
        if invalid := [file.name for file in entry.files if not _FILE_NAME.fullmatch(file.name)]:
            raise ValueError(f"{invalid[0]!r} is not the name of a snapshot's file")
    except ValueError as cause:
        raise Corrupt(f"{url}: the manifest cannot be read ({cause}). Restore it from a copy.") from cause
    entry.__dict__["digest"] = digest  # fills the cached property: computing a thousand digests takes a second
    return entry


def _content(entry: LogEntry) -> bytes:
    content = asdict(entry)
    # Left out where there is none: older releases read such entries, and those that they wrote keep their text.
    if entry.erasure is None:
        del content["erasure"]
    if not entry.state.erasures:
        del content["state"]["erasures"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=datetime.isoformat)
    return text.encode()


@cache
def _entry_type() -> TypeAdapter[LogEntry]:
    return TypeAdapter(LogEntry)
