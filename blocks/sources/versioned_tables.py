"""Tables of Delta Lake and Iceberg as sources: the rows of the newest version, or those added since an ingested one.

The version that was read is in the notes of its snapshot, by the table's own id. The next load reads the rows that the
versions since then added. A version that removed or changed rows refuses the load, because ingest only appends.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.errors import NotFound, Rejected, Unavailable
from blocks.sources.base import (
    TABLE_ID_NOTE,
    TABLE_VERSION_NOTE,
    RowBatch,
    VersionedTable,
    check_names,
    number_range,
    row_as_json,
    to_typed_batch,
)
from blocks.sources.dialects import PLAIN_FORMAT
from blocks.sources.file_listing import ROW_UNIT, SourceFile
from blocks.sources.files import FileSource
from blocks.sources.s3 import S3Folder, pyiceberg_properties

DELTA_PREFIX, ICEBERG_PREFIX = "delta:", "iceberg:"
"""Prefixes of the address of a table: `delta:s3://bucket/table`, `iceberg:/data/table/metadata/v3.metadata.json`."""

_READABLE_FEATURES: Final = {"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint", "typeWidening", "columnMapping"}
_APPENDING = {"append", "replace"}  # a replace moves rows into other files


def ingested_versions(notes: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the newest ingested version of each table by its id, from the notes of snapshots, oldest first."""
    return {one[TABLE_ID_NOTE]: one[TABLE_VERSION_NOTE] for one in notes if TABLE_ID_NOTE in one}


@dataclass(frozen=True)
class _AddedFile:
    """A data file of a Delta table: its name below the table, and the values of its partition columns as text."""

    name: str
    partitions: Mapping[str, str | None]


class DeltaSource(VersionedTable):
    """The rows of a Delta table in a folder or in S3."""

    def __init__(
        self, address: str, query: str, kinds: Mapping[str, str], scratch: Path | None, ingested: Mapping[str, str]
    ) -> None:
        self._address = table_address(address, DELTA_PREFIX, query)
        self.kinds = kinds
        self._s3 = S3Folder(self._address, scratch) if self._address.startswith("s3://") else None
        self._root = self._s3.path if self._s3 else Path(self._address)
        try:
            self._open(ingested)
        except BaseException:
            self.close()
            raise

    def _open(self, ingested: Mapping[str, str]) -> None:
        if self._s3:
            for name in self._s3.names("_delta_log/"):
                self._s3.fetch(name)
        elif not (self._root / "_delta_log").is_dir():
            raise NotFound(f"{self._address}: there is no Delta table (no folder _delta_log). Check the path.")
        with _table_errors(self._address, "Delta"):
            from deltalake import DeltaTable

            table = DeltaTable(str(self._root.absolute()))
            _check_delta_features(table, self._address)
            metadata = table.metadata()
            self._table_id, version = f"delta {metadata.id}", table.version()
            self._version = str(version)
            self._version_time = _iso_time(next((one.get("timestamp") for one in table.history(1)), None))
            schema = pa.schema(table.schema())
            self._partitions = {column: schema.field(column).type for column in metadata.partition_columns}
            self._since = ingested.get(self._table_id)
            self._added = self._added_since(int(self._since), version) if self._since else self._active_files(table)
        self._names = schema.names
        self._ignored = check_names(schema.names, self.kinds, self._address)
        self.describe("Delta", self._address)

    def batches(self) -> Iterator[RowBatch]:
        """Read the files of the version: see `Source.batches`."""
        if self._added:
            yield from self._files.batches()

    def direct_scan(self) -> tuple[tuple[Path, ...], Mapping[str, str]] | None:
        """Return the files if they can be scanned directly: see `Source.direct_scan`."""
        return self._files.direct_scan() if self._added else None

    def check_unchanged(self) -> None:
        """Raise Unavailable if a file was changed while it was read."""
        if self._added:
            self._files.check_unchanged()

    def close(self) -> None:
        """Delete the downloaded copies."""
        if self._s3:
            self._s3.close()

    @cached_property
    def _files(self) -> FileSource:
        files = tuple(map(self._source_file, self._added))
        source = FileSource(files, self.kinds, self._address)
        self.position_labels, self.size_bytes = source.position_labels, source.size_bytes
        return source

    def _source_file(self, added: _AddedFile) -> SourceFile:
        path = self._s3.fetch(added.name) if self._s3 else self._root / added.name
        if not path.is_file():
            raise Rejected(
                f"{self._address}: the file {added.name} of version {self._version} is gone (VACUUM removes old ones). "
                "Restore it, or ingest the table into a new data set."
            )
        present = set(pq.read_schema(path).names)
        later = {c: None for c in self.kinds if c in self._names and c not in present and c not in self._partitions}
        return SourceFile(path, f"{added.name} {ROW_UNIT}", PLAIN_FORMAT, {**added.partitions, **later})

    def _added_since(self, last: int, version: int) -> tuple[_AddedFile, ...]:
        """Return the files that the versions after `last` added. Raises Rejected if one of them removed rows."""
        if last > version:
            raise Rejected(
                f"{self._address}: version {last} was ingested, and the table is at version {version}. It was made "
                "again or restored from a copy: ingest it into a new data set."
            )
        added: list[_AddedFile] = []
        for number in range(last + 1, version + 1):
            commit = self._root / "_delta_log" / f"{number:020d}.json"
            if not commit.is_file():
                raise Rejected(
                    f"{self._address}: version {last} was ingested, and the log entry of version {number} is gone. "
                    "Ingest more often than the log is cleaned, or ingest the table into a new data set."
                )
            actions = [json.loads(line) for line in commit.read_text().splitlines() if line.strip()]
            if any(action["remove"].get("dataChange", True) for action in actions if "remove" in action):
                operation = next((a["commitInfo"].get("operation", "") for a in actions if "commitInfo" in a), "")
                raise _rows_changed(self._address, f"version {number}", operation)
            new = [action["add"] for action in actions if "add" in action and action["add"].get("dataChange", True)]
            added += [self._added_file(one["path"], one.get("partitionValues", {})) for one in new]
        return tuple(added)

    def _active_files(self, table: Any) -> tuple[_AddedFile, ...]:
        actions = pa.table(table.get_add_actions())
        partitioned = "partition" in actions.column_names
        values = actions.column("partition").to_pylist() if partitioned else [{}] * actions.num_rows
        found = zip(actions.column("path").to_pylist(), values, strict=True)
        return tuple(sorted((self._added_file(path, one) for path, one in found), key=lambda file: file.name))

    def _added_file(self, path: str, partitions: Mapping[str, Any]) -> _AddedFile:
        if "://" in path or path.startswith(("/", "file:")):
            raise Rejected(
                f"the file {path} is outside the table's folder (a shallow clone). Copy the table, and read that."
            )
        texts = {column: _partition_text(value, self._partitions[column]) for column, value in partitions.items()}
        return _AddedFile(unquote(path), texts)


def _partition_text(value: Any, kind: pa.DataType) -> str | None:
    """Return a value of a partition column, typed or as the text of the protocol, in one form."""
    if value is None or value == "":  # the protocol writes null as the empty text
        return None
    if not isinstance(value, str):
        return str(pa.scalar(value, kind).cast(pa.string()))
    if pa.types.is_timestamp(kind) and kind.tz and not value.endswith("Z"):
        value += "Z"  # the protocol's timestamps are UTC
    return str(pa.array([value]).cast(kind)[0].cast(pa.string()))


def _check_delta_features(table: Any, address: str) -> None:
    """Raise Rejected, with its name, for a feature of the table without which its files show other rows."""
    features = set(table.protocol().reader_features or ())
    mapping = table.metadata().configuration.get("delta.columnMapping.mode") or "none"
    if mapping != "none":
        remedy = "Rewrite the table without it (INSERT into a table of plain names)."
        raise Rejected(f"{address}: the table has column mapping ({mapping}), which cannot be read. {remedy}")
    if "deletionVectors" in features and pa.table(table.deletion_vectors()).num_rows:
        remedy = "Rewrite the files (REORG TABLE … APPLY (PURGE))."
        raise Rejected(f"{address}: the table has deletion vectors, which cannot be read. {remedy}")
    if unknown := sorted(features - _READABLE_FEATURES - {"deletionVectors"}):
        raise Rejected(f"{address}: the table needs {', '.join(unknown)}, which cannot be read. Drop the feature.")


class IcebergSource(VersionedTable):
    """The rows of an Iceberg table, by its metadata file or by a catalog."""

    def __init__(self, address: str, query: str, kinds: Mapping[str, str], ingested: Mapping[str, str]) -> None:
        self._address = table_address(address, ICEBERG_PREFIX, query)
        self.kinds = kinds
        with _table_errors(self._address, "Iceberg"):
            self._table = _iceberg_table(self._address)
            snapshot = self._table.current_snapshot()
            names = [field.name for field in self._table.schema().fields]
            self._table_id = f"iceberg {self._table.metadata.table_uuid}"
            self._version = str(snapshot.snapshot_id if snapshot else 0)
            self._version_time = _iso_time(snapshot.timestamp_ms if snapshot else None)
            self._since = ingested.get(self._table_id)
            self._ignored = check_names(names, kinds, self._address)
            if self._since:
                _check_only_appended(self._table, int(self._since), self._address)
            planned = self._scan().plan_files() if snapshot and self._since != self._version else ()
            self._tasks = sorted(planned, key=lambda task: task.file.file_path)
        self.position_labels = tuple(f"{task.file.file_path.rpartition('/')[2]} {ROW_UNIT}" for task in self._tasks)
        self.position_labels = self.position_labels or (ROW_UNIT,)
        self.size_bytes = sum(task.file.file_size_in_bytes for task in self._tasks)
        self.describe("Iceberg", self._address)

    def batches(self) -> Iterator[RowBatch]:
        """Read the files of the snapshot, without deleted rows: see `Source.batches`."""
        from pyiceberg.expressions import AlwaysTrue
        from pyiceberg.io.pyarrow import ArrowScan

        schema = self._table.schema().select(*self.kinds)
        for index, task in enumerate(self._tasks):
            first, label = 1, self.position_labels[index]
            with _table_errors(self._address, "Iceberg"):
                found = ArrowScan(self._table.metadata, self._table.io, schema, AlwaysTrue()).to_record_batches([task])
                for batch in found:
                    raw = pa.Table.from_batches([batch])
                    numbers = number_range(first, raw.num_rows)
                    typed = to_typed_batch(raw, numbers, label, self.kinds, row_as_json(raw))
                    first += raw.num_rows
                    yield replace(typed, file_index=index)

    def _scan(self) -> Any:
        """Return the scan of the snapshot, or of what was appended since the ingested one."""
        if self._since is None:
            return self._table.scan(snapshot_id=int(self._version), selected_fields=tuple(self.kinds))
        return self._table.incremental_append_scan(
            from_snapshot_id_exclusive=int(self._since),
            to_snapshot_id_inclusive=int(self._version),
            selected_fields=tuple(self.kinds),
        )


def _iceberg_table(address: str) -> Any:
    """Return the table of a metadata file, of a table's folder with `version-hint.text`, or of a catalog.

    A catalog is `URI#namespace.table`, `URI#catalog/namespace.table` where the URI is a database that catalogs share,
    or `NAME#namespace.table` where pyiceberg's own configuration has the name.
    """
    from pyiceberg.catalog import load_catalog
    from pyiceberg.table import StaticTable

    catalog, sign, name = address.partition("#")
    properties = pyiceberg_properties() if "s3://" in address else {}
    if not sign:
        return StaticTable.from_metadata(address, properties)
    place = {"uri": catalog} if "://" in catalog else {}
    owner, _, table = name.rpartition("/")
    return load_catalog(owner or ("default" if place else catalog), **place, **properties).load_table(table)


def _check_only_appended(table: Any, last: int, address: str) -> None:
    """Raise Rejected if a snapshot after the ingested one removed rows, or if that one is no ancestor."""
    current = table.current_snapshot()
    while current is not None and current.snapshot_id != last:
        operation = current.summary.operation.value if current.summary else "unknown"
        if operation not in _APPENDING:
            raise _rows_changed(address, f"snapshot {current.snapshot_id}", operation)
        parent = current.parent_snapshot_id
        current = table.snapshot_by_id(parent) if parent is not None else None
    if current is None:
        raise Rejected(
            f"{address}: snapshot {last} was ingested, and is no longer in the table's history (expired, or rolled "
            "back). Ingest more often than snapshots expire, or ingest the table into a new data set."
        )


def table_address(source: str, prefix: str, query: str) -> str:
    """Return the address behind the prefix. Raises Rejected for an address that cannot be one, or a query."""
    address = source.removeprefix(prefix)
    if query:
        raise Rejected(f"{source!r} is a table; a query is for a database. Leave the query empty.")
    if not address.strip() or not address.isprintable() or ".." in address.split("/"):
        raise Rejected(f"{source!r} names no table. Write {prefix}/path/of/table or {prefix}s3://bucket/table.")
    return address.removeprefix("file://").rstrip("/") or "/"


def _iso_time(milliseconds: int | None) -> str:
    return "" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def _rows_changed(address: str, version: str, operation: str) -> Rejected:
    return Rejected(
        f"{address}: {version} removed or changed rows ({operation or 'unknown operation'}) that were ingested. "
        "The lake only appends: ingest the table into a new data set (docs/ingest.md, corrections)."
    )


@contextmanager
def _table_errors(address: str, kind: str) -> Iterator[None]:
    """Translate errors of the table's library into port errors."""
    try:
        yield
    except (Rejected, NotFound, Unavailable):
        raise
    except FileNotFoundError as cause:
        raise NotFound(f"{address}: there is no such {kind} table ({cause}). Check the address.") from cause
    except ImportError as cause:
        raise Rejected(f"{address}: reading it needs a package ({cause}). Install it (make setup).") from cause
    except OSError as cause:
        raise Unavailable(f"{address}: the {kind} table could not be read: {cause}. Try again.") from cause
    except Exception as cause:  # the libraries have errors of many types, and none is transient
        name = type(cause).__name__
        if "NoSuch" in name or "NotFound" in name:
            raise NotFound(f"{address}: there is no such {kind} table ({cause}). Check the address.") from cause
        raise Rejected(f"{address}: the {kind} table cannot be read ({name}: {cause}).") from cause
