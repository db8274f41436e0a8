"""The lake's snapshots as Delta tables: other engines read the same rows, and nothing of theirs changes the lake."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from blocks.lake.base import ErasedRows, Lake
from blocks.lake.dataset_log import DatasetLog
from blocks.lake.object_store import FolderObjectStore
from tests.fixtures.lakes import NOON, alter, lake, s3

__all__ = ["lake", "s3"]


def rows(number: int, count: int = 50, **columns: list[Any]) -> pa.Table:
    buckets = pa.array([(number * 37 + n * 101) % 10_000 for n in range(count)], pa.int32())
    ids = [f"{number}-{n}" for n in range(count)]
    return pa.table(
        {"id": ids, "x": [n / 7 for n in range(count)], "at": [NOON] * count, **columns, "_bucket": buckets}
    )


def append(lake: Lake, number: int, table: pa.Table | None = None) -> None:
    lake.append("events", table or rows(number), source="test", key=str(number), at=NOON)


def url_of(lake: Any, dataset: str = "events") -> str:
    return lake.store.url(f"{dataset}/_delta_log").removesuffix("/_delta_log")


@pytest.fixture
def table_of(lake: Any, tmp_path: Path) -> Iterator[Any]:
    """Return a function that opens the Delta table at a version, copied from S3 with all files below it."""

    def opened(version: int | None = None, dataset: str = "events") -> DeltaTable:
        url = url_of(lake, dataset)
        if url.startswith("s3://"):
            bucket, _, prefix = url[5:].partition("/")
            copy = tmp_path / "copy"
            client: Any = lake.store._client
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/"):
                for found in page.get("Contents", ()):
                    to = copy / found["Key"].removeprefix(f"{prefix}/")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    to.write_bytes(client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read())
            url = str(copy)
        return DeltaTable(url, version=version)

    return opened


def content(table: pa.Table) -> list[dict[str, Any]]:
    return sorted(table.to_pylist(), key=lambda row: row["id"])


def delta_rows(table: DeltaTable) -> list[dict[str, Any]]:
    return content(pa.table(table.to_pyarrow_table()))


def test_every_version_has_the_rows_of_its_snapshot(lake: Lake, table_of: Any) -> None:
    for number in range(3):
        append(lake, number)
    append(lake, 3, rows(3, label=["a"] * 50))
    snapshots = lake.as_of("events").snapshots
    assert table_of().version() == 3
    for version, snapshot in enumerate(snapshots):
        ours = lake.read(lake.as_of("events", snapshot.id))
        assert delta_rows(table_of(version)) == content(ours), snapshot.id
    names = [json.loads(line)["commitInfo"]["ratchetSnapshot"] for line in _commits(lake) if "commitInfo" in line]
    assert names == [snapshot.id for snapshot in snapshots]


def _commits(lake: Any) -> list[str]:
    found = sorted(found.key for found in lake.store.list_objects("events/_delta_log/"))
    return [line for key in found for line in lake.store.get(key).decode().splitlines()]


def test_duckdb_reads_the_files_that_the_table_names(lake: Lake, table_of: Any) -> None:
    append(lake, 0)
    append(lake, 1)
    files = [uri.removeprefix("file://") for uri in table_of().file_uris()]
    assert duckdb.sql(f"SELECT count(*), sum(x) FROM read_parquet({files!r})").fetchall() == [
        (100, pytest.approx(350.0))
    ]


def test_compaction_and_collection_leave_every_version_readable(lake: Lake, table_of: Any) -> None:
    for number in range(10):
        append(lake, number)
    before = [delta_rows(table_of(version)) for version in (0, 5, 9)]
    assert lake.compact("events").files == 10
    lake.collect_orphans("events", before=NOON.replace(year=2100))
    lake.publish("events")
    append(lake, 10)
    assert [delta_rows(table_of(version)) for version in (0, 5, 9)] == before
    assert delta_rows(table_of()) == content(lake.read(lake.as_of("events")))
    assert lake.publish("events").commits == 0


def test_erased_rows_are_in_no_version_and_every_version_stays_readable(lake: Lake, table_of: Any) -> None:
    for number in range(3):
        append(lake, number)
    gone = "1-7"
    erased = lake.erase(
        "events", ["id"], lambda rows: np.array([text == gone for text in rows["id"].to_pylist()]), at=NOON, notes={}
    )
    assert erased.rows == 1
    for version, count in enumerate((50, 99, 149, 149)):
        found = [row["id"] for row in delta_rows(table_of(version))]
        assert (len(found), gone in found) == (count, False)
    append(lake, 3)
    assert delta_rows(table_of()) == content(lake.read(lake.as_of("events")))


def test_a_lake_that_was_not_published_gets_its_table_by_maintenance(
    lake: Any, table_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("blocks.lake.object_store_lake.publish_newest", lambda *given: None)
        for number in range(70):
            append(lake, number, rows(number, 2))
    append(lake, 70, rows(70, 2))
    assert not list(lake.store.list_objects("events/_delta_log/")), "an append does not make up for an old lake"
    assert lake.publish("events", dry_run=True).commits == 71
    assert lake.publish("events").commits == 71
    assert delta_rows(table_of()) == content(lake.read(lake.as_of("events")))


def test_the_next_append_makes_up_for_a_killed_writer(
    lake: Any, table_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(lake, 0)
    with monkeypatch.context() as patch:
        patch.setattr("blocks.lake.object_store_lake.publish_newest", lambda *given: None)
        append(lake, 1)
    append(lake, 2)
    assert (table_of().version(), len(delta_rows(table_of()))) == (2, 150)


def test_a_failure_to_publish_does_not_fail_what_was_appended(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise OSError("no space left")

    append(lake, 0)
    monkeypatch.setattr("blocks.lake.delta_log._commit", fail)
    append(lake, 1)
    assert lake.as_of("events").rows == 100
    monkeypatch.undo()
    assert lake.publish("events").commits == 1


def test_what_others_changed_in_the_table_is_replaced_by_what_our_log_says(lake: Any, table_of: Any) -> None:
    append(lake, 0)
    append(lake, 1)
    url = f"{url_of(lake)}/_delta_log/{1:020d}.json"
    alter(lake, url, lambda data: data.replace(b'"dataChange":true', b'"dataChange":false'))
    lake.store.put_if_absent(f"events/_delta_log/{2:020d}.json", b'{"commitInfo":{}}\n')
    assert lake.publish("events").commits == 1
    assert (table_of().version(), lake.publish("events").commits) == (1, 0)
    append(lake, 2)
    assert len(delta_rows(table_of())) == 150


def test_maintenance_leaves_what_an_ingest_publishes_meanwhile(
    lake: Any, table_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(lake, 0)
    head, numbers = DatasetLog.head, iter([1])

    def then_append(log: DatasetLog) -> Any:
        found = head(log)
        for number in numbers:
            append(lake, number)
        return found

    monkeypatch.setattr(DatasetLog, "head", then_append)
    lake.publish("events")
    assert (table_of().version(), len(delta_rows(table_of()))) == (1, 100)


def test_a_changed_commit_is_replaced_at_once(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(key: str) -> None:
        raise AssertionError(f"{key} was deleted: a reader would find no such version")

    append(lake, 0)
    alter(lake, f"{url_of(lake)}/_delta_log/{0:020d}.json", lambda data: data[:-2])
    monkeypatch.setattr(lake.store, "delete", fail)
    assert lake.publish("events").commits == 1
    assert lake.publish("events", dry_run=True).commits == 0


def test_a_write_that_fails_half_way_leaves_the_old_content(tmp_path: Path) -> None:
    store = FolderObjectStore(tmp_path)
    store.put("a/b.json", b"old", "")
    with pytest.raises(TypeError):
        store.put("a/b.json", "no bytes", "")  # type: ignore[arg-type]
    assert store.get("a/b.json") == b"old"
    assert [found.key for found in store.list_objects("a/")] == ["a/b.json"]


def test_an_erasure_says_that_the_table_could_not_be_published(
    lake: Any, table_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise OSError("no space left")

    def erase() -> ErasedRows:
        return lake.erase("events", ["id"], lambda rows: np.array(rows["id"].to_numpy() == "0-7"), at=NOON, notes={})

    append(lake, 0)
    with monkeypatch.context() as patch:
        patch.setattr("blocks.lake.delta_log._commit", fail)
        erased = erase()
    assert (erased.rows, erased.problem) == (1, "OSError: no space left")
    assert (erase().problem, len(delta_rows(table_of()))) == ("", 49)


def test_no_engine_writes_to_the_table_or_removes_its_files(lake: Lake, table_of: Any) -> None:
    append(lake, 0)
    append(lake, 1)
    table = table_of()
    for change in (lambda: table.delete("id = '0-1'"), table.optimize.compact, lambda: table.update({"x": "1"})):
        with pytest.raises((DeltaError, OSError)):
            change()
    stored = len(delta_rows(table_of()))
    try:
        removed = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    except (DeltaError, OSError):
        removed = []
    assert removed == []
    assert len(delta_rows(table_of())) == stored == 100
    assert lake.as_of("events").rows == 100


def test_a_type_that_delta_does_not_have_is_named_and_the_snapshot_lands(lake: Any) -> None:
    odd = pa.table({"id": ["a"], "spent": pa.array([1], pa.duration("us"))})
    lake.append("odd", odd, source="test", key="1", at=NOON)
    assert lake.as_of("odd").rows == 1
    problem = lake.publish("odd").problem
    assert "'spent'" in problem
    assert "duration" in problem


def test_all_types_of_delta_read_back(lake: Lake, table_of: Any) -> None:
    from datetime import date
    from decimal import Decimal

    every = pa.table(
        {
            "id": ["a", "b"],
            "t8": pa.array([1, None], pa.int8()),
            "t16": pa.array([1, None], pa.int16()),
            "t64": pa.array([2**60, None], pa.int64()),
            "f32": pa.array([0.5, None], pa.float32()),
            "yes": pa.array([True, None]),
            "raw": pa.array([b"\x00", None]),
            "day": pa.array([date(2026, 1, 1), None]),
            "at": pa.array([NOON, None], pa.timestamp("us", "UTC")),
            "cash": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
            "tags": pa.array([["x"], None], pa.list_(pa.string())),
            "box": pa.array([{"w": 1}, None], pa.struct([("w", pa.int32())])),
        }
    )
    lake.append("types", every, source="test", key="1", at=NOON)
    assert delta_rows(table_of(dataset="types")) == every.to_pylist()
