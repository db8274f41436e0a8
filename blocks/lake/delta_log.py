"""Publishes a data set's log as a Delta table, so that other engines read its snapshots without our code.

`<data set>/_delta_log/<n>.json` is commit n of Delta's protocol. It says what entry n + 1 of our log says, about the
same Parquet files: no row is copied. Each commit is computed from our log alone, so writers may publish in any order, a
missing one can be made up later, and a changed one can be made again. The lake itself never reads them.

An erasure deletes files: the commits of the snapshots that had them then name the copies without the erased rows.
Compactions are not published: a Delta version holds the files of its snapshots, which stay, so that no engine ever
takes a file for removed. The protocol names a writer's feature that no engine knows, so none writes to the table.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import pyarrow as pa

from blocks.common.errors import PortError
from blocks.lake.base import BUCKET_COLUMN, DataFile, PublishedTable
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.entries import DatasetState, LogEntry
from blocks.lake.object_store import ObjectStore
from blocks.lake.reading import units_for_entries
from blocks.lake.schemas import deserialize_schema
from runtime.digests import bytes_digest

_FOLDER = "_delta_log"
_MAX_CATCH_UP = 64
_PROTOCOL: Final = {"minReaderVersion": 1, "minWriterVersion": 7, "writerFeatures": ["appendOnly", "ratchetReadOnly"]}
_SIMPLE_TYPES: Final[dict[pa.DataType, str]] = {
    pa.string(): "string",
    pa.large_string(): "string",
    pa.bool_(): "boolean",
    pa.int8(): "byte",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
    pa.date32(): "date",
}


def publish_newest(store: ObjectStore, log: DatasetLog, entry: LogEntry) -> None:
    """Publish an entry that was just added to the log, and the entries before it that were not published yet.

    It never fails: the append is done already, and `publish_all` makes up for what is missing. A lake that was not
    published before is left to that, too.
    """
    with suppress(Exception):
        number = entry.log
        while number > 1 and store.fingerprint(_key(log.dataset, number - 1)) is None:
            number -= 1
            if entry.log - number > _MAX_CATCH_UP:
                return
        for one in log.entries(range(number, entry.log + 1)):
            store.put_if_absent(_key(log.dataset, one.log), _commit(log, one, entry.state))


def publish_all(store: ObjectStore, log: DatasetLog, *, dry_run: bool) -> PublishedTable:
    """Publish all entries, and replace what differs from our log. With `dry_run` nothing is written.

    Return the number of commits written, or the reason why the data set cannot be a Delta table.
    """
    # Listed before the head is read: each of our commits in the list then has an entry, so none is taken for foreign.
    present = {found.key for found in store.list_objects(f"{log.dataset}/{_FOLDER}/")}
    head = log.head()
    if head is None:
        return PublishedTable(0)
    try:
        expected = {
            _key(log.dataset, one.log): _commit(log, one, head.state) for one in log.entries(range(1, head.log + 1))
        }
    except _NoDeltaType as cause:
        return PublishedTable(0, f"{cause}: other engines cannot read this data set as a Delta table")
    different = {key: data for key, data in expected.items() if key not in present or store.get(key) != data}
    foreign = present - set(expected)  # commits or checkpoints that are not ours, perhaps of a changed log
    if dry_run:
        return PublishedTable(len(different))
    for key in sorted(foreign):
        store.delete(key)
    for key, data in sorted(different.items()):
        store.put(key, data, bytes_digest(data))  # it replaces: no reader finds a version without its commit
    return PublishedTable(len(different))


class _NoDeltaType(PortError):
    """A column's type is unknown to Delta's protocol."""


def _key(dataset: str, log: int) -> str:
    return f"{dataset}/{_FOLDER}/{log - 1:020d}.json"


def _commit(log: DatasetLog, entry: LogEntry, latest_state: DatasetState) -> bytes:
    """Return the commit of an entry: one JSON object a line, the same bytes until rows of it are erased."""
    before = log.entry(entry.log - 1) if entry.log > 1 else None
    actions = [_commit_info(entry)]
    if before is None:
        actions.append({"protocol": _PROTOCOL})
    if before is None or before.state.arrow != entry.state.arrow:
        actions.append(_metadata(log, entry))
    if entry.snapshot is not None:
        actions += _adds(log, entry, latest_state)
    return b"".join(json.dumps(one, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" for one in actions)


def _commit_info(entry: LogEntry) -> dict[str, Any]:
    snapshot = entry.snapshot
    return {
        "commitInfo": {
            "timestamp": _milliseconds(entry.state.created_at),
            "operation": "WRITE" if snapshot else "MAINTENANCE",
            "operationParameters": {"mode": "Append"},
            "isBlindAppend": True,
            "engineInfo": "ratchet",
            "ratchetSnapshot": snapshot.id if snapshot else "",
        }
    }


def _metadata(log: DatasetLog, entry: LogEntry) -> dict[str, Any]:
    first = log.entry(1).state
    schema = deserialize_schema(entry.state.arrow) if entry.state.arrow else pa.schema([])
    return {
        "metaData": {
            "id": str(uuid5(NAMESPACE_URL, f"ratchet:{log.dataset}:{first.id}")),
            "name": log.dataset,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": [_field(one) for one in schema]}),
            "partitionColumns": [],
            "configuration": {"delta.appendOnly": "true"},
            "createdTime": _milliseconds(first.created_at),
        }
    }


def _adds(log: DatasetLog, entry: LogEntry, latest_state: DatasetState) -> Iterator[dict[str, Any]]:
    (unit,) = units_for_entries(log, latest_state, [entry.log])
    for planned in unit.files:
        yield {
            "add": {
                "path": planned.key.removeprefix(f"{log.dataset}/"),
                "partitionValues": {},
                "size": planned.file.bytes,
                "modificationTime": _milliseconds(entry.state.created_at),
                "dataChange": True,
                "stats": json.dumps(_statistics(planned.file), separators=(",", ":")),
                "tags": {"sha256": planned.file.sha256},
            }
        }


def _statistics(file: DataFile) -> dict[str, Any]:
    """Return the number of rows and, by the file's name, the buckets, by which engines skip files of other tiers."""
    if "-buckets-" not in file.name:
        return {"numRecords": file.rows}
    low, high = (int(text) for text in file.name.removesuffix(".parquet").split("-")[3:5])
    limits = {"minValues": {BUCKET_COLUMN: low}, "maxValues": {BUCKET_COLUMN: high}, "nullCount": {BUCKET_COLUMN: 0}}
    return {"numRecords": file.rows, **limits}


def _field(column: pa.Field) -> dict[str, Any]:
    return {"name": column.name, "type": _type(column.type, column.name), "nullable": True, "metadata": {}}


def _type(kind: pa.DataType, column: str) -> Any:
    """Return Delta's type. Raises _NoDeltaType if there is none that reads the stored files without a loss."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if name := _SIMPLE_TYPES.get(kind):
        return name
    if pa.types.is_timestamp(kind) and kind.tz is not None and kind.unit in ("ms", "us"):
        return "timestamp"
    if pa.types.is_decimal128(kind):
        return f"decimal({kind.precision},{kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"type": "array", "elementType": _type(kind.value_type, column), "containsNull": True}
    if pa.types.is_struct(kind):
        return {"type": "struct", "fields": [_field(kind.field(index)) for index in range(kind.num_fields)]}
    raise _NoDeltaType(f"column {column!r} is {kind}, which Delta does not have")


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
