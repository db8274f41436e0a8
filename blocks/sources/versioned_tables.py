"""Delta tables as sources, and what they share with Iceberg tables (`iceberg_tables`).

A load reads the rows of the newest version, or those added since an ingested one. The version that was read is in the
notes of its snapshot, by the table's own id. The next load reads the rows that the versions since then added. A version
that removed or changed rows refuses the load, because ingest only appends.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from blocks.common.errors import NotFound, PortError, Rejected, Unavailable
from blocks.common.source_settings import SourceSettings
from blocks.sources.base import (
    TABLE_ID_NOTE,
    TABLE_VERSION_NOTE,
    RowBatch,
    VersionedTable,
    check_names,
)
from blocks.sources.dialects import PLAIN_FORMAT
from blocks.sources.file_listing import ROW_UNIT, SourceFile
from blocks.sources.files import FileSource
from blocks.sources.s3 import S3Folder
from blocks.sources.secret_addresses import masked

DELTA_PREFIX, ICEBERG_PREFIX = "delta:", "iceberg:"
"""Prefixes of the address of a table: `delta:s3://bucket/table`, `iceberg:/data/table/metadata/v3.metadata.json`."""

_READABLE_FEATURES: Final = {"timestampNtz", "vacuumProtocolCheck", "v2Checkpoint", "typeWidening", "columnMapping"}


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
        self,
        address: str,
        query: str,
        kinds: Mapping[str, str],
        allowed: SourceSettings,
        scratch: Path | None,
        ingested: Mapping[str, str],
    ) -> None:
        self._address = table_address(address, DELTA_PREFIX, query)
        self.kinds, self._allowed = kinds, allowed
        self._s3 = S3Folder(self._address, scratch, allowed) if self._address.startswith("s3://") else None
        if not self._s3:
            allowed.check_path(Path(self._address), self._address)
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
        else:
            self._allowed.check_paths((self._root / "_delta_log").rglob("*"), self._address)
        with table_errors(self._address, "Delta"):
            from deltalake import DeltaTable

            table = DeltaTable(str(self._root.absolute()))
            _check_delta_features(table, self._address)
            metadata = table.metadata()
            self._table_id, version = f"delta {metadata.id}", table.version()
            self._version = str(version)
            self._version_time = iso_time(next((one.get("timestamp") for one in table.history(1)), None))
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
        if not self._s3:
            self._allowed.check_path(path, self._address)
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
                raise rows_changed(self._address, f"version {number}", operation)
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
        name = unquote(path)
        outside = "://" in name or name.startswith(("/", "file:")) or ".." in name.split("/") or not name.isprintable()
        if outside:
            raise Rejected(
                f"the file {path!r} is outside the table's folder (a shallow clone). Copy the table, and read that."
            )
        texts = {column: _partition_text(value, self._partitions[column]) for column, value in partitions.items()}
        return _AddedFile(name, texts)


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


def table_address(source: str, prefix: str, query: str) -> str:
    """Return the address behind the prefix. Raises Rejected for an address that cannot be one, or a query."""
    address = source.removeprefix(prefix)
    if query:
        raise Rejected(f"{source!r} is a table; a query is for a database. Leave the query empty.")
    if not address.strip() or not address.isprintable() or ".." in address.split("/"):
        raise Rejected(f"{source!r} names no table. Write {prefix}/path/of/table or {prefix}s3://bucket/table.")
    return address.removeprefix("file://").rstrip("/") or "/"


def iso_time(milliseconds: int | None) -> str:
    """Return a time of a table's log as ISO 8601 in UTC; "" for none."""
    return "" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def rows_changed(address: str, version: str, operation: str) -> Rejected:
    """Return the error for a version that removed or changed rows that were ingested."""
    return Rejected(
        f"{address}: {version} removed or changed rows ({operation or 'unknown operation'}) that were ingested. "
        "The lake only appends: ingest the table into a new data set (docs/ingest.md, corrections)."
    )


@contextmanager
def table_errors(address: str, kind: str) -> Iterator[None]:
    """Translate errors of the table's library into port errors."""
    try:
        yield
    except (Rejected, NotFound, Unavailable):
        raise
    except Exception as cause:  # the libraries have errors of many types
        reason, name = masked(str(cause)), type(cause).__name__
        if isinstance(cause, FileNotFoundError) or "NoSuch" in name or "NotFound" in name:
            error: PortError = NotFound(f"{address}: there is no such {kind} table ({reason}). Check the address.")
        elif isinstance(cause, ImportError):
            error = Rejected(f"{address}: reading it needs a package ({reason}). Install it (make setup).")
        elif isinstance(cause, OSError):
            error = Unavailable(f"{address}: the {kind} table could not be read: {reason}. Try again.")
        else:
            error = Rejected(f"{address}: the {kind} table cannot be read ({name}: {reason}).")
        raise error from (cause if reason == str(cause) else None)
