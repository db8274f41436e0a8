"""The log of a data set, entry by entry: what each says, and its text, in which no bit can change unnoticed.

Entry n is the object `<data set>/_log/<n>.json`. It names the digest of the entry before it, so that the newest
one vouches for all. There are three kinds: a snapshot, a compaction, and a fence, which says whose
unfinished files are about to be removed. Every entry carries the state of the data set up to itself, so that
one entry is enough to fix a read.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

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
    """A compaction in force: the snapshots `first` to `last` also lie in the files that entry `log` names."""

    first: int
    last: int
    log: int
    rows: int


@dataclass(frozen=True)
class DatasetState:
    """A data set up to an entry.

    `sequence`, `id`, `created_at` are those of the newest snapshot, `rows` the sum of all, `digest` that of the
    read. `others` are the numbers of the entries that are no snapshots, `introduced` the sequence numbers of
    the snapshots that added columns. `arrow` is the schema as Arrow serialises it, in base 64.
    """

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

    def entry_number_of(self, sequence: int) -> int:
        """Return the number of the entry that holds the snapshot of that sequence number."""
        number = sequence
        for other in self.others:
            if other <= number:
                number += 1
        return number


@dataclass(frozen=True)
class Compaction:
    """The rows of the snapshots `first` to `last` once more, in files of their own."""

    first: int
    last: int
    files: tuple[DataFile, ...]


@dataclass(frozen=True)
class LogEntry:
    """One entry of the log. `folder` is where its files lie below the data set; `previous` a digest."""

    log: int
    previous: str
    state: DatasetState
    folder: str = ""
    snapshot: Snapshot | None = None
    compaction: Compaction | None = None
    fenced: tuple[str, ...] = field(default=())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the entry's content, as its text states it."""
        return bytes_digest(_content(self))


def entry_key(dataset: str, log: int) -> str:
    """Return where an entry of a data set is stored."""
    return f"{dataset}/_log/{log:08d}.json"


def next_state(state: DatasetState, snapshot: Snapshot, arrow: str) -> DatasetState:
    """Return the state after a snapshot is added; `arrow` is the schema with its columns."""
    introduced = state.introduced
    if len(snapshot.schema) > len(state.schema):
        introduced = (*introduced, snapshot.sequence)
    return DatasetState(
        sequence=snapshot.sequence,
        id=snapshot.id,
        created_at=snapshot.created_at,
        rows=state.rows + snapshot.rows,
        digest=read_digest(state, snapshot),
        schema=snapshot.schema,
        arrow=arrow,
        others=state.others,
        runs=state.runs,
        introduced=introduced,
    )


def read_digest(state: DatasetState, snapshot: Snapshot) -> str:
    """Return the digest of the read that a snapshot is the newest of."""
    return text_digest("\n".join([state.digest, snapshot.digest][not state.digest :]))


def next_created_at(state: DatasetState, at: datetime) -> datetime:
    """Return when a snapshot counts as created: `at`, or a microsecond after the newest one.

    Times increase strictly with the sequence, whatever the writers' clocks say: otherwise a late writer with
    a slow clock would change what a read as of an earlier time returns.
    """
    return max(at.astimezone(UTC), state.created_at + _ONE_MICROSECOND) if state.sequence else at.astimezone(UTC)


def serialize_entry(entry: LogEntry) -> bytes:
    """Return the entry as it is stored: JSON with its own digest, the same bytes for the same entry."""
    return _PREFIX % entry.digest.encode() + _content(entry) + _SUFFIX


def parse_entry(data: bytes, where: str) -> LogEntry:
    """Return the entry of a stored text; `Corrupt` when one bit of it is not as it was written."""
    content = data[_PREFIX_BYTES : -len(_SUFFIX)]
    digest = bytes_digest(content)
    if data != _PREFIX % digest.encode() + content + _SUFFIX:
        raise Corrupt(f"{where}: the manifest is not as it was written (its digest differs). Restore it from a copy.")
    try:
        entry = _entry_from_json(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError) as cause:
        raise Corrupt(f"{where}: the manifest cannot be read ({cause}). Restore it from a copy.") from cause
    entry.__dict__["digest"] = digest  # known already: rendering a thousand entries anew takes a second
    return entry


def _content(entry: LogEntry) -> bytes:
    text = json.dumps(
        asdict(entry), sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=datetime.isoformat
    )
    return text.encode()


def parse_snapshot(content: dict[str, Any]) -> Snapshot:
    """Return the snapshot of its stored fields; `ValueError` when it names what is no file of a snapshot."""
    fields = dict(content)
    fields["created_at"] = datetime.fromisoformat(fields["created_at"])
    fields["schema"] = _pairs(fields["schema"])
    fields["files"] = _files(fields["files"])
    return Snapshot(**fields)


def _entry_from_json(content: dict[str, Any]) -> LogEntry:
    state, compaction, snapshot = dict(content["state"]), content["compaction"], content["snapshot"]
    state["created_at"] = datetime.fromisoformat(state["created_at"])
    state["schema"] = _pairs(state["schema"])
    state["others"], state["introduced"] = tuple(state["others"]), tuple(state["introduced"])
    state["runs"] = tuple(CompactedRange(**run) for run in state["runs"])
    if compaction:
        compaction = Compaction(compaction["first"], compaction["last"], _files(compaction["files"]))
    return LogEntry(
        log=content["log"],
        previous=content["previous"],
        state=DatasetState(**state),
        folder=content["folder"],
        snapshot=parse_snapshot(snapshot) if snapshot else None,
        compaction=compaction,
        fenced=tuple(content["fenced"]),
    )


def _pairs(values: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(column), str(kind)) for column, kind in values)


def _files(values: list[dict[str, Any]]) -> tuple[DataFile, ...]:
    files = tuple(DataFile(**value) for value in values)
    if strange := [file.name for file in files if not _FILE_NAME.fullmatch(file.name)]:
        raise ValueError(f"{strange[0]!r} is no file of a snapshot")
    return files
