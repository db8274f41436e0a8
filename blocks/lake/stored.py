"""The lake over any store: the log says what there is, the layout where its rows lie, and nothing is overwritten.

`<data set>/_data/<append>/` holds the Parquet files of one append or compaction, `<data set>/_log/` the entries
that make them visible. Files that no entry names are those of a writer that is at work, or died.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pydantic import PrivateAttr

from blocks.common.errors import LostRace, Rejected
from blocks.common.temporary import swept_folder
from blocks.lake.base import AsOf, DataFile, Footprint, Lake, Size, Snapshot
from blocks.lake.compaction import compact
from blocks.lake.entries import Entry, State, next_state
from blocks.lake.layout import lay_out
from blocks.lake.log import Log
from blocks.lake.moments import check_newest, next_snapshot, resolve
from blocks.lake.orphans import collect
from blocks.lake.plan import Piece, Unit, size_of, unit_of, units_of
from blocks.lake.reading import Reader
from blocks.lake.schemas import check_append, check_dataset, check_read, conform, grown, packed, texts, unpacked
from blocks.lake.store import Store
from blocks.lake.verify import Verified

_ATTEMPTS = 1_000


class StoredLake(Lake):
    """Append-only data sets in a store. An adapter says which store, and how its errors are to be understood."""

    _store: Store | None = PrivateAttr(default=None)
    _verified: Verified | None = PrivateAttr(default=None)
    _logs: dict[str, Log] = PrivateAttr(default_factory=dict)

    @abstractmethod
    def open_store(self) -> Store:
        """Return the store; called once."""

    @abstractmethod
    def spill(self) -> Path:
        """Return a folder on a disk with room for the largest append."""

    @abstractmethod
    def port_errors(self, dataset: str, doing: str) -> AbstractContextManager[None]:
        """Turn the store's errors into the port's, with what was being done ("read", "written")."""

    def memory(self) -> Path | None:
        """Return the file in which verified files are remembered, None where there is none."""
        return None

    def append(
        self,
        dataset: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        source: str,
        key: str,
        at: datetime,
        notes: Mapping[str, str] | None = None,
        onto: str | None = None,
    ) -> Snapshot:
        """Add rows as one snapshot, whole or not at all: see `Lake.append`."""
        check_dataset(dataset)
        check_append(dataset, rows.schema, key, at)
        with self.port_errors(dataset, "written"):
            log = self._log(dataset)
            head = log.head()
            if there := log.find(key, head):
                return there
            check_newest(dataset, head.state if head else State(), onto)
            folder = f"_data/{uuid4().hex}"
            files = self._lay_out(dataset, folder, rows, grown(dataset, head.state if head else None, rows.schema))
            written = {f"{dataset}/{folder}/{file.name}": file.sha256 for file in files}
            for _ in range(_ATTEMPTS):
                state = head.state if head else State()
                schema = grown(dataset, head.state if head else None, rows.schema)
                snapshot = next_snapshot(log, state, texts(schema), files, source=source, key=key, at=at, notes=notes)
                if log.claim(_after(head, next_state(state, snapshot, packed(schema)), folder, snapshot)):
                    self.verified.remember(list(written.items()))
                    return snapshot
                before, head = head.log if head else 0, log.head()
                if head and (there := log.find(key, head)):
                    if log.entry(head.state.log_of(there.sequence)).folder != folder:
                        self._drop(written)
                    return there
                if head and log.fenced_since(before, head, folder):
                    raise LostRace(f"{dataset}: this append took so long that its files were collected. Try again.")
                try:
                    check_newest(dataset, head.state if head else State(), onto)
                except LostRace:
                    self._drop(written)
                    raise
        raise LostRace(f"{dataset}: {_ATTEMPTS} other writers were first. Try again.")

    def find(self, dataset: str, key: str) -> Snapshot | None:
        """Return the snapshot appended under `key`: see `Lake.find`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "read"):
            log = self._log(dataset)
            return log.find(key, log.head())

    def datasets(self) -> tuple[str, ...]:
        """Return the names of all data sets, sorted."""
        with self.port_errors("the lake", "read"):
            names = []
            for name in self.store.names():
                with suppress(Rejected):
                    check_dataset(name)
                    names += [name] if self._log(name).head() else []
            return tuple(sorted(names))

    def as_of(self, dataset: str, when: str | None = None) -> AsOf:
        """Fix a read: see `Lake.as_of`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "read"):
            log = self._log(dataset)
            read = resolve(log, log.head(), when)

        def load() -> tuple[Snapshot, ...]:
            with self.port_errors(dataset, "read"):
                return read.load()

        return replace(read, load=load)

    def read(self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of a fixed read: see `Lake.read`."""
        return self.scan(as_of, below_bucket=below_bucket, columns=columns).read_all()

    def scan(
        self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Stream the rows of a fixed read: see `Lake.scan`."""
        wanted = check_read(as_of, below_bucket, columns)
        with self.port_errors(as_of.dataset, "read"):
            units, state = self._units(as_of, below_bucket)
            self.verified.check([piece for unit in units for piece in unit.pieces])
            reader = Reader(self.store, unpacked(state.arrow), wanted, below_bucket)

        def batches() -> Iterator[pa.RecordBatch]:
            with self.port_errors(as_of.dataset, "read"):
                yield from reader.batches(units)

        return pa.RecordBatchReader.from_batches(reader.schema, batches())

    def files(self, as_of: AsOf, *, below_bucket: int | None = None) -> tuple[str, ...]:
        """Return the verified files of a fixed read: see `Lake.files`."""
        check_read(as_of, below_bucket, None)
        with self.port_errors(as_of.dataset, "read"):
            units, state = self._units(as_of, below_bucket)
            pieces = [piece for unit in units for piece in unit.pieces]
            pieces += [piece for piece in self._introducing(as_of, state, units) if piece not in pieces]
            self.verified.check(pieces)
            return tuple(self.store.url(piece.key) for piece in pieces)

    def compact(self, dataset: str, *, at: datetime, dry_run: bool = False) -> Size:
        """Merge small files: see `Lake.compact`."""
        check_dataset(dataset)
        with self.port_errors(dataset, "written"):
            return compact(self.store, self._log(dataset), self.verified, dry_run=dry_run)

    def collect(self, dataset: str, *, before: datetime, dry_run: bool = False) -> Size:
        """Remove what nothing names: see `Lake.collect`."""
        check_dataset(dataset)
        if before.tzinfo is None:
            raise Rejected(f"{dataset}: the time {before.isoformat()} has no zone. Give one, such as +00:00.")
        with self.port_errors(dataset, "written"):
            return collect(self.store, self._log(dataset), before, dry_run=dry_run)

    def footprint(self, dataset: str) -> Footprint:
        """Return what the data set takes: see `Lake.footprint`."""
        now = self.as_of(dataset)
        with self.port_errors(dataset, "read"):
            units, _ = self._units(now, None)
            stored = [found.bytes for found in self.store.below(f"{dataset}/") if found.key.endswith(".parquet")]
            opened = size_of([piece for unit in units for piece in unit.pieces])
            return Footprint(Size(len(stored), sum(stored)), opened)

    def url_of(self, snapshot: Snapshot, file: str) -> str:
        """Return where a file of a snapshot is stored: to restore it from a copy, say."""
        log = self._log(snapshot.dataset)
        head = log.head()
        entry = log.entry(head.state.log_of(snapshot.sequence)) if head else None
        return self.store.url(f"{snapshot.dataset}/{entry.folder if entry else ''}/{file}")

    @property
    def store(self) -> Store:
        """The store, opened when first used."""
        if self._store is None:
            self._store = self.open_store()
        return self._store

    @property
    def verified(self) -> Verified:
        """What is known to be as it was written."""
        if self._verified is None:
            self._verified = Verified(self.store, self.memory())
        return self._verified

    def _log(self, dataset: str) -> Log:
        return self._logs.setdefault(dataset, Log(self.store, dataset))

    def _lay_out(
        self, dataset: str, folder: str, rows: pa.Table | pa.RecordBatchReader, schema: pa.Schema
    ) -> tuple[DataFile, ...]:
        written: list[str] = []

        def write(name: str, data: pa.Buffer, sha256: str) -> None:
            key = f"{dataset}/{folder}/{name}"
            written.append(key)  # by two threads: the last of the list may be the other's
            self.store.put(key, data, sha256)

        try:
            with swept_folder(self.spill(), "spill-") as spill:
                files = lay_out(_tables(rows, schema), write, spill)
            if not files:
                raise Rejected(f"{dataset}: there are no rows. Check the source; an empty snapshot is never written.")
        except BaseException:
            self._drop(written)
            raise
        return files

    def _drop(self, keys: Iterable[str]) -> None:
        """Remove files that will never be named. What cannot be removed now is an orphan, and collected later."""
        with suppress(Exception):
            for key in keys:
                self.store.delete(key)

    def _units(self, as_of: AsOf, below_bucket: int | None) -> tuple[list[Unit], State]:
        """Return what a read opens, by the compactions of now, and the state that the read is fixed to."""
        log = self._log(as_of.dataset)
        head = log.head()
        if head is None or head.state.sequence < as_of.sequence:
            raise Rejected(f"{as_of.dataset}: {as_of.id} is no read of this lake. Fix the read again.")
        state = log.entry(head.state.log_of(as_of.sequence)).state
        return units_of(log, head.state, as_of.sequence, below_bucket), state

    def _introducing(self, as_of: AsOf, state: State, units: Sequence[Unit]) -> Iterator[Piece]:
        """Yield a file of each snapshot that added columns, where the read would otherwise open none with them."""
        log = self._log(as_of.dataset)
        opened = [unit for unit in units if unit.pieces]
        for sequence in state.introduced:
            if not any(unit.last >= sequence for unit in opened):
                entry = log.entry(state.log_of(sequence))
                yield unit_of(as_of.dataset, entry).pieces[0]


def _tables(rows: pa.Table | pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.Table]:
    batches = rows.to_batches() if isinstance(rows, pa.Table) else rows
    for batch in batches:
        yield conform(pa.Table.from_batches([batch]), schema)


def _after(head: Entry | None, state: State, folder: str, snapshot: Snapshot) -> Entry:
    return Entry(head.log + 1 if head else 1, head.digest if head else "", state, folder, snapshot)
