# ruff: noqa: F811 - the fixtures of tests/fixtures/lakes.py are imported by name
"""The contract of the lake for large appends, compactions, orphaned files, and concurrent operations."""

import threading
import time
from datetime import timedelta

import boto3
import duckdb
import numpy as np
import pyarrow as pa
import pytest
from botocore.awsrequest import AWSResponse

from blocks.common.errors import ConcurrentWrite, Corrupt, NotFound, Rejected, Unavailable
from blocks.lake import layout
from blocks.lake.base import BUCKET_COLUMN, FileTotals, StorageUse
from blocks.lake.s3 import S3Lake
from tests.fixtures.lakes import NOON, alter, append, as_bytes, flipped, ids, in_bucket, lake, people, s3  # noqa: F401

PAST = NOON - timedelta(days=9_000)
FUTURE = NOON.replace(year=2100)


def reader(table, rows=1_000):
    return pa.RecordBatchReader.from_batches(table.schema, iter(table.to_batches(max_chunksize=rows)))


def meanwhile(table, act):
    """Rows as a stream; something else happens between its two halves."""

    def batches():
        half = table.num_rows // 2
        yield from table.slice(0, half).to_batches()
        act()
        yield from table.slice(half).to_batches()

    return pa.RecordBatchReader.from_batches(table.schema, batches())


def small_snapshots(lake, count=10, rows=30):
    for number in range(count):
        append(lake, people(rows, number * rows), f"k{number}")
    return [lake.as_of("people", snapshot.id) for snapshot in lake.as_of("people").snapshots]


def every_read(lake, reads):
    """Return what reads of different times, tiers and columns return, as bytes."""
    return [
        as_bytes(lake.read(read, below_bucket=below, columns=columns))
        for read in {id(read): read for read in (reads[0], reads[len(reads) // 2], reads[-2], reads[-1])}.values()
        for below, columns in [(None, None), (100, None), (3_333, ["plan", "id"]), (0, None)]
    ]


def test_a_stream_is_laid_out_as_a_table_is(lake):
    table = people(130_000)
    one = append(lake, table, "k1")
    two = append(lake, reader(table), "k2")
    assert [file.sha256 for file in one.files] == [file.sha256 for file in two.files]


def test_what_does_not_fit_into_memory_is_laid_out_as_what_does(lake, monkeypatch):
    table = people(130_000)
    one = append(lake, table, "k1")
    monkeypatch.setattr(layout, "MAX_SORT_BYTES", 200_000)  # each stripe is split again, too
    two = append(lake, reader(table), "k2")
    assert [(f.sha256, f.rows) for f in one.files] == [(f.sha256, f.rows) for f in two.files]


def dawdle(frame, event, arg):
    """Pause at every line, so that the threads of the lake overtake each other."""
    if not frame.f_code.co_filename.endswith(("lake/stored.py", "lake/layout.py")):
        return None
    if event == "line":
        time.sleep(0.0005)
    return dawdle


def test_every_file_of_a_large_append_lies_under_its_own_name(lake, monkeypatch):
    monkeypatch.setattr(layout, "MAX_FILE_ROWS", 1_000)
    threading.settrace(dawdle)
    try:
        snapshot = append(lake, people(101_000))
    finally:
        threading.settrace(None)
    assert len(snapshot.files) > 100
    assert lake.read(lake.as_of("people")).num_rows == 101_000  # each file checked against its SHA-256


def test_a_bucket_larger_than_memory_keeps_its_order(lake, monkeypatch):
    monkeypatch.setattr(layout, "MAX_SORT_BYTES", 100_000)
    table = people(120_000, _bucket=pa.array(np.repeat([7, 5], 60_000).astype(np.int32)))
    append(lake, reader(table))
    expected = [f"c{i}" for i in [*range(60_000, 120_000), *range(60_000)]]
    assert ids(lake.read(lake.as_of("people"))) == expected


def test_rows_without_buckets_are_streamed_in_order(lake, monkeypatch):
    monkeypatch.setattr(layout, "MAX_SORT_BYTES", 100_000)
    monkeypatch.setattr(layout, "MAX_FILE_ROWS", 7_000)
    snapshot = append(lake, reader(people(30_000).drop_columns(BUCKET_COLUMN)))
    assert [file.rows for file in snapshot.files] == [7_000, 7_000, 7_000, 7_000, 2_000]
    assert ids(lake.read(lake.as_of("people"))) == [f"c{i}" for i in range(30_000)]


def test_a_stream_is_not_touched_when_its_key_is_there(lake):
    first = append(lake, people(), "k1")

    def never():
        raise AssertionError("consumed")
        yield

    assert append(lake, pa.RecordBatchReader.from_batches(people().schema, never()), "k1") == first
    assert lake.find_by_key("people", "k1") == first
    assert lake.find_by_key("people", "k2") is None
    assert lake.find_by_key("nothing", "k1") is None


def test_a_stream_that_fails_or_is_empty_adds_nothing(lake):
    def broken():
        raise RuntimeError("the source broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        append(lake, meanwhile(people(), broken))
    with pytest.raises(Rejected, match="no rows"):
        append(lake, reader(people().slice(0, 0)))
    assert lake.datasets() == ()
    assert not list(lake.store.list_objects("people/"))


@pytest.mark.parametrize("columns", [["id"], ["_bucket", "plan"], None])
def test_a_scan_streams_the_rows_of_the_read(lake, columns):
    append(lake, people(130_000))
    append(lake, people(10, 130_000), "k2")
    now = lake.as_of("people")
    for below in (None, 100, 4_321):
        stream = lake.scan(now, below_bucket=below, columns=columns)
        assert stream.read_all().equals(lake.read(now, below_bucket=below, columns=columns))


def test_damage_is_found_by_scan_and_files_too(lake):
    append(lake, people(5))
    now = lake.as_of("people")
    (snapshot,) = now.snapshots
    alter(lake, lake.file_url(snapshot, snapshot.files[0].name), lambda data: flipped(data, 77))
    with pytest.raises(Corrupt, match="checksum mismatch"):
        lake.files(now)
    with pytest.raises(Corrupt, match="checksum mismatch"):
        lake.scan(now).read_all()


def test_an_engine_finds_the_rows_and_columns_of_the_read_in_its_files(lake):
    if lake.store.url("").startswith("s3"):
        pytest.skip("DuckDB needs its httpfs extension for s3://")
    append(lake, people(60), "k1")
    append(lake, people(60, 60, city=pa.array(["x"] * 60), _bucket=pa.array([9_000] * 60, pa.int32())), "k2")
    small = people(60, 120)
    append(lake, small.append_column("age2", small["age"]), "k3")
    now = lake.as_of("people")
    for below in (1, 100, 10_000):
        files = list(lake.files(now, below_bucket=below))
        sql = "SELECT count(*), count(city), count(age2) FROM read_parquet(?, union_by_name=true, hive_partitioning=false) WHERE _bucket < ?"
        expected = lake.read(now, below_bucket=below)
        counts = [len(expected) - expected[column].null_count for column in ("id", "city", "age2")]
        with duckdb.connect() as engine:  # a separate connection: an unfinished result blocks the shared one
            assert list(engine.execute(sql, [files, below]).fetchone()) == counts


def test_a_compaction_changes_no_read_and_opens_fewer_files(lake):
    reads = small_snapshots(lake)
    before = every_read(lake, reads)
    files = len(lake.files(reads[-1]))
    lake.compact("people")
    assert every_read(lake, reads) == before
    assert len(lake.files(reads[-1])) < files / 8
    assert [read.digest for read in reads] == [lake.as_of("people", read.id).digest for read in reads]
    assert append(lake, people(5, 900), "more").sequence == len(reads) + 1
    assert every_read(lake, reads) == before


@pytest.mark.slow
def test_compactions_are_compacted_and_grow_with_the_schema(lake):
    reads = small_snapshots(lake, 10)
    lake.compact("people")
    for number in range(10):
        append(lake, people(9_000, 9_000 * number, city=pa.array(["x"] * 9_000)), f"l{number}")
    reads += [lake.as_of("people", snapshot.id) for snapshot in lake.as_of("people").snapshots[10:]]
    before = every_read(lake, reads)
    lake.compact("people")
    assert every_read(lake, reads) == before
    lake.compact("people")
    for number in range(10):
        append(lake, people(9_000, 90_000 + 9_000 * number, city=pa.array(["y"] * 9_000)), f"m{number}")
    reads.append(lake.as_of("people"))
    before = every_read(lake, reads)
    lake.compact("people")
    assert every_read(lake, reads) == before
    files = lake.files(lake.as_of("people"))
    assert 5 < len(files) < 15  # more than 100,000 rows are cut by stripe
    freed = lake.collect_orphans("people", before=FUTURE)
    assert freed.size_bytes > 0  # the first compactions, which the last one contains
    assert every_read(lake, reads) == before
    assert lake.files(lake.as_of("people")) == files


def test_few_snapshots_are_not_compacted(lake):
    reads = small_snapshots(lake, 5)
    files = lake.files(reads[-1])
    assert lake.compact("people") == FileTotals(0, 0)
    assert lake.compact("nothing") == FileTotals(0, 0)
    assert lake.files(reads[-1]) == files


def test_a_compaction_says_what_it_takes_together_and_tried_out_it_changes_nothing(lake):
    reads = small_snapshots(lake)
    small = FileTotals(10, sum(file.bytes for read in reads[-1].snapshots for file in read.files))
    before = lake.storage_use("people")
    assert before == StorageUse(small, small)
    assert lake.compact("people", dry_run=True) == small
    assert lake.storage_use("people") == before
    assert lake.compact("people") == small
    after = lake.storage_use("people")
    assert (after.opened.files, after.stored.files) == (1, 11), "those of before stay, for reads that end among them"
    assert after.stored.size_bytes == small.size_bytes + after.opened.size_bytes
    assert lake.compact("people") == FileTotals(0, 0)
    with pytest.raises(NotFound):
        lake.storage_use("nothing")


def test_rows_that_were_made_for_another_snapshot_are_not_appended(lake):
    first = append(lake, people(5), "k1", expected_parent="")
    with pytest.raises(ConcurrentWrite, match=f"an empty data set, but {first.id} was added since"):
        append(lake, people(5, 5), "k2", expected_parent="")
    assert append(lake, people(5), "k1", expected_parent="") == first, "what has landed has landed"
    second = append(lake, people(5, 5), "k2", expected_parent=first.id)
    late = meanwhile(people(10, 10), lambda: append(lake, people(5, 50), "quick"))
    with pytest.raises(ConcurrentWrite, match=second.id):
        append(lake, late, "k3", expected_parent=second.id)
    assert lake.as_of("people").rows == 15
    assert lake.storage_use("people").stored.files == 3, "nothing of it is left behind"


def test_damage_is_not_laundered_by_a_compaction(lake):
    reads = small_snapshots(lake, 10)
    snapshot = reads[-1].snapshots[4]
    alter(lake, lake.file_url(snapshot, snapshot.files[0].name), lambda data: flipped(data, 99))
    with pytest.raises(Corrupt, match="checksum mismatch"):
        lake.compact("people")
    assert lake.read(reads[3]).num_rows == 120


def test_an_append_and_a_compaction_at_once_both_land(lake):
    reads = small_snapshots(lake, 10)
    before = every_read(lake, reads)
    append(lake, meanwhile(people(10, 5_000), lambda: lake.compact("people")), "while")
    assert lake.as_of("people").rows == 310
    assert every_read(lake, reads) == before
    assert lake.read(lake.as_of("people")).num_rows == 310


def orphan(lake, size=1_000):
    """A file of a writer that died."""
    key = "people/_data/0123456789abcdef0123456789abcdef/part-000000.parquet"
    lake.store.put(key, b"x" * size, "a" * 64) if not lake.store.url("").startswith("s3") else (
        lake.store._client.put_object(**lake.store._at(key), Body=b"x" * size)
    )


def test_files_that_nothing_names_are_removed_when_they_are_old_and_nothing_else_is(lake):
    reads = small_snapshots(lake, 10)
    lake.compact("people")
    before = every_read(lake, reads)
    stored = {found.key for found in lake.store.list_objects("people/_data/")}
    orphan(lake)
    assert lake.collect_orphans("people", before=PAST) == FileTotals(0, 0)
    assert lake.collect_orphans("people", before=FUTURE, dry_run=True) == FileTotals(1, 1_000)
    assert len(set(lake.store.list_objects("people/_data/"))) == len(stored) + 1
    assert lake.storage_use("people").stored.files == len(stored) + 1
    assert lake.collect_orphans("people", before=FUTURE) == FileTotals(1, 1_000)
    assert {found.key for found in lake.store.list_objects("people/_data/")} == stored
    assert lake.storage_use("people").stored.files == len(stored)
    assert lake.collect_orphans("people", before=FUTURE) == FileTotals(0, 0)
    assert every_read(lake, reads) == before
    assert append(lake, people(5, 900), "more").sequence == 11


def test_a_writer_at_work_keeps_its_files(lake, monkeypatch):
    monkeypatch.setattr(layout, "MAX_FILE_ROWS", 100)
    monkeypatch.setattr(layout, "MAX_SORT_BYTES", 1)  # written while the source is still read
    append(lake, people(5))
    rows = people(1_000, 50).drop_columns(BUCKET_COLUMN)
    lake.append("events", rows, source="test", key="k0", at=NOON)

    def act():
        assert len(list(lake.store.list_objects("events/_data/"))) > 10
        assert lake.collect_orphans("events", before=PAST).files == 0

    lake.append("events", meanwhile(rows, act), source="test", key="k1", at=NOON)
    assert lake.read(lake.as_of("events")).num_rows == 2_000


def test_a_writer_whose_files_were_collected_fails_as_a_whole(lake, monkeypatch):
    monkeypatch.setattr(layout, "MAX_FILE_ROWS", 100)
    monkeypatch.setattr(layout, "MAX_SORT_BYTES", 1)  # written while the source is still read
    rows = people(2_000).drop_columns(BUCKET_COLUMN)
    first = lake.append("events", rows, source="test", key="k0", at=NOON)
    with pytest.raises(ConcurrentWrite, match="collected"):
        stalled = meanwhile(rows, lambda: lake.collect_orphans("events", before=FUTURE))
        lake.append("events", stalled, source="test", key="k1", at=NOON)
    now = lake.as_of("events")
    assert (now.snapshots, lake.read(now).num_rows) == ((first,), 2_000)
    again = lake.append("events", rows, source="test", key="k1", at=NOON)
    assert (again.sequence, lake.read(lake.as_of("events")).num_rows) == (2, 4_000)


@pytest.fixture
def bucket(s3, tmp_path):
    return in_bucket(s3, tmp_path)


def on_commit(lake, answer):
    """Call `answer` for each put of a log entry, as long as it returns something; use its response."""

    def before_send(request, **_):
        return answer(request) if "/_log/0" in request.url else None

    lake.store._client.meta.events.register("before-send.s3.PutObject", before_send)


def conflict(request):
    body = b"<Error><Code>ConditionalRequestConflict</Code><Message>puts met</Message></Error>"

    class Raw:
        def stream(self, **_):
            yield body

    return AWSResponse(request.url, 409, {}, Raw())


def test_a_put_that_met_another_is_tried_again(bucket):
    left = [3]

    def answer(request):
        left[0] -= 1
        return conflict(request) if left[0] >= 0 else None

    on_commit(bucket, answer)
    assert append(bucket, people(5)).sequence == 1
    assert left[0] < 0
    assert bucket.as_of("people").rows == 5


def test_an_answer_that_was_lost_on_its_way_does_not_lose_the_append(bucket, s3):
    sent = []

    def answer(request):
        if not sent:  # it arrives, but the caller gets no response and sends it again
            sent.append(request.url)
            key = request.url.split(f"{bucket.bucket}/", 1)[1]
            body = request.body if isinstance(request.body, bytes) else request.body.read()
            boto3.client("s3", endpoint_url=s3).put_object(Bucket=bucket.bucket, Key=key, Body=entry_of(body))
            if not isinstance(request.body, bytes):
                request.body.seek(0)

    on_commit(bucket, answer)
    assert append(bucket, people(5)).sequence == 1
    assert len(sent) == 1
    assert bucket.read(bucket.as_of("people")).num_rows == 5


def entry_of(body):
    """The entry in a request's body, which may come in chunks followed by a checksum."""
    return body[body.index(b'{"sha256"') : body.rindex(b"}") + 1] + b"\n"


def test_a_bucket_that_is_not_there_is_named(s3, tmp_path):
    with pytest.raises(NotFound, match="no-such-bucket-here.*Create the bucket"):
        append(S3Lake(bucket="no-such-bucket-here", endpoint_url=s3, spill_folder=tmp_path), people(5))


@pytest.mark.slow
def test_a_service_that_does_not_answer_is_unavailable(s3, tmp_path):
    with pytest.raises(Unavailable, match="network"):
        append(S3Lake(bucket="x-y-z", endpoint_url="http://127.0.0.1:9", spill_folder=tmp_path), people(5))
