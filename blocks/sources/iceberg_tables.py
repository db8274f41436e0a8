"""Tables of Iceberg as sources. Only allowed places are read, whatever a table or its catalog says.

A table's metadata names its other files by full address, and may name a class that reads them and an endpoint of S3.
So every file is read by `CheckedFileIO`, and of the settings of a table or a catalog only S3 credentials are taken.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import pyarrow as pa
from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import ArrowScan, PyArrowFile, PyArrowFileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import StaticTable, Table

from blocks.common.errors import Rejected
from blocks.common.source_settings import SourceSettings
from blocks.sources.base import RowBatch, VersionedTable, check_names, number_range, row_as_json, to_typed_batch
from blocks.sources.file_listing import ROW_UNIT
from blocks.sources.read_only_sql import database_url
from blocks.sources.s3 import s3_client
from blocks.sources.secret_addresses import masked
from blocks.sources.versioned_tables import ICEBERG_PREFIX, iso_time, rows_changed, table_address, table_errors

_ALLOWED: Final = "ratchet.sources"
_APPENDING: Final = {"append", "replace"}  # a replace moves rows into other files
_CREDENTIALS: Final = ("s3.access-key-id", "s3.secret-access-key", "s3.session-token")


class IcebergSource(VersionedTable):
    """The rows of an Iceberg table, by its metadata file or by a catalog."""

    def __init__(
        self,
        address: str,
        query: str,
        kinds: Mapping[str, str],
        allowed: SourceSettings,
        ingested: Mapping[str, str],
    ) -> None:
        named = table_address(address, ICEBERG_PREFIX, query)
        self.kinds, self._address = kinds, masked(named)
        with table_errors(self._address, "Iceberg"):
            self._table = open_iceberg_table(named, allowed)
            snapshot = self._table.current_snapshot()
            names = [field.name for field in self._table.schema().fields]
            self._table_id = f"iceberg {self._table.metadata.table_uuid}"
            self._version = str(snapshot.snapshot_id if snapshot else 0)
            self._version_time = iso_time(snapshot.timestamp_ms if snapshot else None)
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
        schema = self._table.schema().select(*self.kinds)
        for index, task in enumerate(self._tasks):
            first, label = 1, self.position_labels[index]
            with table_errors(self._address, "Iceberg"):
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


def _check_only_appended(table: Any, last: int, address: str) -> None:
    """Raise Rejected if a snapshot after the ingested one removed rows, or if that one is no ancestor."""
    current = table.current_snapshot()
    while current is not None and current.snapshot_id != last:
        operation = current.summary.operation.value if current.summary else "unknown"
        if operation not in _APPENDING:
            raise rows_changed(address, f"snapshot {current.snapshot_id}", operation)
        parent = current.parent_snapshot_id
        current = table.snapshot_by_id(parent) if parent is not None else None
    if current is None:
        raise Rejected(
            f"{address}: snapshot {last} was ingested, and is no longer in the table's history (expired, or rolled "
            "back). Ingest more often than snapshots expire, or ingest the table into a new data set."
        )


class CheckedFileIO(PyArrowFileIO):  # type: ignore[misc]
    """Reads files in allowed places, and writes none. Its properties hold the settings of the environment."""

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file to read. Raises Rejected for a place that is not allowed."""
        scheme, netloc, path = self.parse_location(location)
        allowed = SourceSettings.model_validate_json(self.properties[_ALLOWED])
        if not location.isprintable() or ".." in Path(path).parts:
            raise Rejected(f"the table names the file {location!r}, which goes upwards or has control characters.")
        if scheme == "file":
            allowed.check_path(Path(path), location)
        elif scheme in ("s3", "s3a", "s3n"):
            allowed.check_object(netloc, path.removeprefix(f"{netloc}/"), location)
        else:
            raise Rejected(f"the table names the file {location!r}; only files of this machine and of S3 are read.")
        return super().new_input(location)

    def new_output(self, location: str) -> PyArrowFile:
        """Raise Rejected: a source is only read."""
        raise Rejected(f"{location}: a source is only read.")

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Raise Rejected: a source is only read."""
        raise Rejected(f"{location}: a source is only read.")


def open_iceberg_table(address: str, allowed: SourceSettings) -> Table:
    """Return the table of a metadata file, of a table's folder with `version-hint.text`, or of a catalog.

    A catalog is `URI#namespace.table`, `URI#catalog/namespace.table` where the URI is a database that catalogs share,
    or `NAME#namespace.table` where pyiceberg's own configuration has the name, which must be among the allowed hosts.

    Raises:
        Rejected: the catalog, the metadata or a file that they name is in no allowed place.
    """
    catalog, sign, name = address.partition("#")
    ours = {_ALLOWED: allowed.model_dump_json(), "py-io-impl": f"{__name__}.{CheckedFileIO.__name__}"}
    ours |= pyiceberg_properties() if allowed.buckets else {}
    if not sign:
        return _static_table(address, ours)
    owner, _, table = name.rpartition("/")
    place = _catalog_uri(catalog, allowed)
    opened = load_catalog(owner or ("default" if place else catalog), **place, **ours, init_catalog_tables="false")
    opened._load_file_io = lambda given=None, location=None: _io(ours, given or {})
    if urlsplit(uri := str(opened.properties.get("uri", ""))).scheme in ("http", "https"):
        _catalog_uri(uri, allowed)  # a REST catalog may send its clients elsewhere
    return opened.load_table(table)


def pyiceberg_properties() -> dict[str, str]:
    """Return endpoint, region and credentials of the AWS SDK's configuration for pyiceberg's own S3 client."""
    import boto3

    client, credentials = s3_client(), boto3.Session().get_credentials()
    found = {"s3.endpoint": client.meta.endpoint_url, "s3.region": client.meta.region_name}
    if credentials:
        frozen = credentials.get_frozen_credentials()
        found |= {"s3.access-key-id": frozen.access_key, "s3.secret-access-key": frozen.secret_key}
        found["s3.session-token"] = frozen.token
    return {name: value for name, value in found.items() if value}


def _static_table(address: str, ours: Mapping[str, str]) -> Table:
    """Return the table of a metadata file. pyiceberg's own function lets the file name the class that reads it."""
    io, location = _io(ours, {}), address
    if not address.endswith(".metadata.json"):
        location = StaticTable._metadata_location_from_version_hint(address, dict(ours))
    metadata = FromInputFile.table_metadata(io.new_input(location))
    name = ("static-table", location)
    return StaticTable(name, metadata, location, io, NoopCatalog("static-table"))


def _io(ours: Mapping[str, str], given: Mapping[str, Any]) -> CheckedFileIO:
    return CheckedFileIO({**ours, **{name: str(given[name]) for name in _CREDENTIALS if given.get(name)}})


def _catalog_uri(catalog: str, allowed: SourceSettings) -> dict[str, str]:
    if "://" not in catalog:
        allowed.check_host(catalog, None, f"the catalog {catalog}")
        return {}
    parts = urlsplit(catalog)
    if parts.scheme in ("http", "https"):
        allowed.check_host(parts.hostname or "", parts.port, f"the catalog at {parts.hostname}")
        return {"uri": catalog, "type": "rest"}
    url = database_url(catalog, allowed)
    if url.get_backend_name() == "sqlite":  # pyiceberg would open it to write
        file = quote(str(Path(str(url.database)).absolute()))
        return {"uri": f"sqlite:///file:{file}?mode=ro&uri=true", "type": "sql"}
    return {"uri": catalog, "type": "sql"}
