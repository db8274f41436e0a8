# ruff: noqa: F811 - the fixtures of tests/fixtures/lakes.py are imported by name
"""Erasure is the only way to take rows out of the lake: over every adapter and the fake."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import ConcurrentWrite, Corrupt, NotFound
from blocks.lake.base import BUCKET_COLUMN
from blocks.lake.maintenance import delete_replaced_files
from tests.fixtures.lakes import NOON, append, ids, in_bucket, lake, people, s3  # noqa: F401

LATER = NOON + timedelta(days=400)


def of(*keys):
    """Return a function that selects the rows of these keys."""
    return lambda rows: np.asarray(pc.is_in(rows["id"], pa.array(keys)).to_numpy(zero_copy_only=False), dtype=bool)


def erase(lake, *keys, **more):
    return lake.erase("people", ["id"], of(*keys), at=LATER, notes={"requested_by": "dora"}, **more)


def stored_files(lake, dataset="people"):
    """Return the ids in each stored Parquet file, by its key: those that no read opens, too."""
    keys = sorted(found.key for found in lake.store.list_objects(f"{dataset}/_data/"))
    return {key: ids(pq.read_table(pa.BufferReader(lake.store.get(key)))) for key in keys}


def stored_ids(lake):
    return {each for found in stored_files(lake).values() for each in found}


def test_an_erased_row_is_gone_from_every_read_and_from_the_disk(lake):
    append(lake, people(50), "k1")
    append(lake, people(50, 100), "k2", NOON + timedelta(hours=1))
    before = [lake.as_of("people", each.id) for each in lake.as_of("people").snapshots]
    erased = erase(lake, "c7")
    assert (erased.rows, erased.snapshots) == (1, 1)
    assert erased.digest_before == before[1].digest != erased.digest_after == lake.as_of("people").digest
    for old in before:
        now = lake.as_of("people", old.id)
        assert now.rows == old.rows - 1 == lake.read(now).num_rows
        assert now.digest != old.digest
        assert "c7" not in ids(lake.read(now))
        assert sum(each.rows for each in now.snapshots) == now.rows
    assert stored_ids(lake) == {f"c{i}" for i in range(150) if i not in range(50, 100)} - {"c7"}
    assert len(stored_files(lake)) == 2


def test_the_other_rows_keep_their_order_and_later_appends_come_on_top(lake):
    append(lake, people(100), "k1")
    rows = lake.read(lake.as_of("people"))
    erase(lake, "c3", "c50")
    assert ids(lake.read(lake.as_of("people"))) == [each for each in ids(rows) if each not in ("c3", "c50")]
    second = append(lake, people(10, 200), "k2", LATER)
    now = lake.as_of("people")
    assert (now.rows, now.sequence, now.id) == (108, 2, second.id)
    assert now.digest == lake.as_of("people", second.id).digest
    assert lake.read(now, below_bucket=5_000).num_rows == pc.sum(pc.less(lake.read(now)[BUCKET_COLUMN], 5_000)).as_py()


def test_reads_before_the_first_erased_row_stay_as_they_were(lake):
    first = append(lake, people(10), "k1")
    before = lake.as_of("people", first.id)
    append(lake, people(10, 10), "k2", NOON + timedelta(hours=1))
    erase(lake, "c15")
    assert lake.as_of("people", first.id) == before
    assert lake.as_of("people", NOON.isoformat()).rows == 10
    assert lake.as_of("people").rows == 19


def test_a_read_that_was_fixed_before_the_erasure_must_be_fixed_again(lake):
    append(lake, people(10))
    fixed = lake.as_of("people")
    erase(lake, "c4")
    with pytest.raises(ConcurrentWrite, match="erased"):
        lake.read(fixed)
    with pytest.raises(ConcurrentWrite, match="erased"):
        lake.files(fixed)


def test_nothing_is_written_for_nobody_or_in_a_dry_run(lake):
    append(lake, people(10))
    before, stored = lake.as_of("people"), stored_files(lake)
    assert erase(lake, "nobody").rows == 0
    found = erase(lake, "c1", "c2", dry_run=True)
    assert (found.rows, found.digest_before) == (2, found.digest_after)
    assert (lake.as_of("people"), stored_files(lake)) == (before, stored)
    with pytest.raises(NotFound):
        lake.erase("strangers", ["id"], of("c1"), at=LATER, notes={})


def test_all_rows_of_a_snapshot_can_go_and_its_columns_stay(lake):
    append(lake, people(5), "k1")
    wider = people(2, 10).append_column("email", pa.array(["a@b.example", "c@d.example"]))
    append(lake, wider, "k2", NOON + timedelta(hours=1))
    erase(lake, "c10", "c11")
    now = lake.as_of("people")
    assert (now.rows, lake.read(now)["email"].null_count) == (5, 5)
    assert lake.read(now, below_bucket=1).num_rows <= 5
    assert lake.files(now)
    erase(lake, *(f"c{number}" for number in range(5)))
    assert lake.read(lake.as_of("people")).num_rows == 0


def test_a_column_that_came_later_is_looked_for_where_it_is(lake):
    append(lake, people(5), "k1")
    append(lake, people(2, 10).append_column("email", pa.array(["a@b.example", None])), "k2")

    def by_email(rows):
        return np.array([each == "a@b.example" for each in rows["email"].to_pylist()], dtype=bool)

    assert lake.erase("people", ["email"], by_email, at=LATER, notes={}).rows == 1
    assert lake.as_of("people").rows == 6


def test_a_second_erasure_takes_from_what_the_first_left(lake):
    append(lake, people(20))
    first, second = erase(lake, "c1"), erase(lake, "c2")
    assert first.digest_after == second.digest_before != second.digest_after
    assert lake.as_of("people").rows == 18
    assert len(stored_files(lake)) == 1
    assert erase(lake, "c1").rows == 0


def test_a_compaction_loses_the_rows_and_can_be_made_again(lake):
    for number in range(10):
        append(lake, people(5, number * 5), f"k{number}", NOON + timedelta(hours=number))
    assert lake.compact("people").files == 10
    erase(lake, "c17")
    now = lake.as_of("people")
    assert (now.rows, "c17" in ids(lake.read(now))) == (49, False)
    rows = ids(lake.read(now))
    assert lake.compact("people").files == 10
    assert ids(lake.read(lake.as_of("people"))) == rows
    assert lake.storage_use("people").opened.files == 1


def test_a_compaction_that_was_copied_from_erased_rows_is_not_used(lake):
    for number in range(10):
        append(lake, people(5, number * 5), f"k{number}", NOON + timedelta(hours=number))
    put, done = lake.store.put, []

    def erase_first(key, data, sha256):
        put(key, data, sha256)
        lake.store.put = put  # the erasure writes files as well
        if not done:
            done.append(lake.erase("people", ["id"], of("c17"), at=NOON - timedelta(days=1), notes={}))

    lake.store.put = erase_first
    try:
        lake.compact("people")
    finally:
        lake.store.put = put
    assert done[0].rows == 1
    now = lake.as_of("people")
    assert (now.rows, "c17" in ids(lake.read(now))) == (49, False)


def test_rows_that_land_meanwhile_are_erased_too(lake):
    append(lake, people(5), "k1")
    put_if_absent, done = lake.store.put_if_absent, []

    def land_first(key, data):
        if not done:
            done.append(True)
            append(lake, people(5), "k2", NOON + timedelta(hours=1))
        return put_if_absent(key, data)

    lake.store.put_if_absent = land_first
    try:
        erased = erase(lake, "c3")
    finally:
        lake.store.put_if_absent = put_if_absent
    assert (erased.rows, erased.snapshots) == (2, 2)
    assert lake.as_of("people").rows == 8
    assert len(stored_files(lake)) == 2


def test_maintenance_finishes_a_killed_erasure(lake):
    append(lake, people(20))
    kept, dead = lake.store.purge, []
    lake.store.purge = dead.append  # the process dies before it deletes the first file
    try:
        erase(lake, "c1")
    finally:
        lake.store.purge = kept
    assert "c1" in stored_ids(lake)
    assert len(stored_files(lake)) == 2
    lake.collect_orphans("people", before=NOON)
    assert len(stored_files(lake)) == 1
    assert delete_replaced_files(lake.store, lake._log("people"), lake._log("people").head()).files == 0
    assert lake.as_of("people").rows == 19


def test_a_damaged_file_stops_the_erasure_before_anything_is_written(lake):
    snapshot = append(lake, people(20))
    name = snapshot.files[0].name
    key = next(each for each in stored_files(lake) if each.endswith(name))
    data = bytearray(lake.store.get(key))
    data[20] ^= 1
    lake.store.put(key, bytes(data), "")
    with pytest.raises(Corrupt, match="checksum"):
        erase(lake, "c1")
    assert lake.as_of("people").rows == 20


def test_the_notes_stay_in_the_log_and_another_process_sees_the_same(lake):
    append(lake, people(20))
    erase(lake, "c1")
    log = lake._log("people")
    entry = log.head()
    assert entry.erasure.notes == {"requested_by": "dora"}
    lake._logs.clear()
    assert lake.as_of("people").rows == 19
    assert ids(lake.read(lake.as_of("people"))).count("c1") == 0


@pytest.mark.slow
def test_in_a_bucket_with_versions_no_version_keeps_the_rows(s3, tmp_path):
    lake = in_bucket(s3, tmp_path / "spill")
    client = lake.store._client
    client.put_bucket_versioning(Bucket=lake.bucket, VersioningConfiguration={"Status": "Enabled"})
    append(lake, people(20))
    erase(lake, "c1")
    found = client.list_object_versions(Bucket=lake.bucket)
    files = [each["Key"] for each in found["Versions"] if each["Key"].endswith(".parquet")]
    assert len(files) == 1
    assert "c1" not in ids(lake.read(lake.as_of("people")))
