# ruff: noqa: F811 - the fixtures of tests/fixtures/lakes.py are imported by name
"""The contract of the lake, over every adapter and the fake."""

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from blocks.common.errors import Conflict, Corrupt, NotFound, Rejected, Unavailable
from blocks.lake.base import BUCKET_COLUMN
from blocks.lake.fake import FakeLake
from tests.fixtures.lakes import NOON, alter, append, as_bytes, flip, ids, lake, people, s3  # noqa: F401


def test_what_was_appended_is_read_back_by_bucket_and_in_order(lake):
    table = people()
    snapshot = append(lake, table, notes={"accepted": "500"})
    expected = table.take(pa.array(np.argsort(table[BUCKET_COLUMN].to_numpy(), kind="stable")))
    assert lake.read(lake.as_of("people")).equals(expected)
    assert (snapshot.rows, snapshot.sequence, snapshot.source, snapshot.created_at) == (500, 1, "test", NOON)
    assert snapshot.notes == {"accepted": "500"}
    assert snapshot.schema == (("id", "string"), ("age", "double"), ("plan", "string"), ("_bucket", "int32"))
    assert sum(file.rows for file in snapshot.files) == 500
    assert lake.as_of("people").snapshots == (snapshot,)


def test_a_table_without_buckets_keeps_its_order(lake):
    append(lake, people().drop_columns(BUCKET_COLUMN))
    assert ids(lake.read(lake.as_of("people"))) == [f"c{i}" for i in range(500)]
    with pytest.raises(NotFound, match=BUCKET_COLUMN):
        lake.read(lake.as_of("people"), below_bucket=100)


def test_snapshots_add_up_and_old_reads_stay_as_they_were(lake):
    first = append(lake, people(), "k1")
    before = lake.as_of("people")
    seen = as_bytes(lake.read(before))
    second = append(lake, people(300, 500), "k2", NOON + timedelta(hours=1))
    assert (second.sequence, second.id == first.id) == (2, False)
    now = lake.as_of("people")
    assert (now.id, now.rows, lake.read(now).num_rows) == (second.id, 800, 800)
    assert as_bytes(lake.read(before)) == seen == as_bytes(lake.read(lake.as_of("people", first.id)))
    assert lake.as_of("people", first.id).digest == before.digest != now.digest
    assert as_bytes(lake.read(now)) == as_bytes(lake.read(now))


def test_a_time_finds_what_had_landed_by_then(lake):
    for hour in range(3):
        append(lake, people(10, hour * 10), f"k{hour}", NOON + timedelta(hours=hour))
    assert lake.as_of("people", "2026-11-21T12:00:00Z").rows == 10
    assert lake.as_of("people", "2026-11-21T13:59:59.999999+00:00").rows == 20
    assert lake.as_of("people", "2026-11-21T15:00:00+01:00").rows == 30
    assert lake.as_of("people").rows == 30


def test_a_writer_with_a_slow_clock_does_not_change_the_past(lake):
    append(lake, people(10), "k1", NOON)
    past = lake.as_of("people", NOON.isoformat())
    late = append(lake, people(10, 10), "k2", NOON - timedelta(hours=3))
    assert late.created_at > NOON
    assert lake.as_of("people", NOON.isoformat()) == past


def test_times_are_kept_in_utc(lake):
    snapshot = append(lake, people(5), at=datetime(2026, 11, 21, 14, tzinfo=timezone(timedelta(hours=2))))
    assert snapshot.created_at == NOON
    assert snapshot.created_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("when", "error", "said"),
    [
        ("2020-01-01T00:00:00Z", NotFound, "there is no snapshot as of 2020.*00000001-"),
        ("00000009-0123abcd", NotFound, "there is no snapshot as of 00000009"),
        ("2026-11-21T12:00:00", Rejected, "no zone"),
        ("2026-11-21", Rejected, "no zone"),
        ("yesterday", Rejected, "neither"),
        ("", Rejected, "neither"),
        ("../../etc", Rejected, "neither"),
    ],
)
def test_a_moment_that_means_nothing_is_refused(lake, when, error, said):
    append(lake, people(5))
    with pytest.raises(error, match=said):
        lake.as_of("people", when)


def test_the_same_key_adds_nothing(lake):
    first = append(lake, people(), "k1")
    again = append(lake, people(7, 900), "k1", NOON + timedelta(days=1))
    assert again == first
    assert lake.as_of("people").rows == 500
    other = lake.append("others", people(7), source="test", key="k1", at=NOON)
    assert (other.dataset, other.rows) == ("others", 7)


def test_columns_may_come_in_another_order(lake):
    append(lake, people())
    append(lake, people(5, 500).select(["plan", BUCKET_COLUMN, "age", "id"]), "k2")
    assert lake.read(lake.as_of("people")).num_rows == 505


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (people(age=pa.array(["x"] * 500)), "'age' is string, not double.*Cast"),
        (people(age=pa.array([1] * 500), plan=pa.array([1] * 500)), "'age' is int64.*'plan' is int64, not string"),
        (people().drop_columns(BUCKET_COLUMN), "'_bucket' is missing"),
    ],
    ids=["one", "two", "no buckets"],
)
def test_another_type_is_a_conflict_that_names_column_types_and_remedy(lake, table, said):
    append(lake, people())
    with pytest.raises(Conflict, match=said):
        append(lake, table, "k2")
    assert lake.as_of("people").rows == 500


def test_a_new_column_is_null_in_older_snapshots_and_a_missing_one_in_newer_rows(lake):
    first = append(lake, people(5), "k1")
    append(lake, people(5, 5, city=pa.array(list("abcde"))), "k2")
    third = append(lake, people(5, 10).drop_columns("age"), "k3")
    before, now = lake.as_of("people", first.id), lake.as_of("people")
    assert lake.read(before).column_names == ["id", "age", "plan", "_bucket"]
    assert [name for name, _ in now.schema] == ["id", "age", "plan", "_bucket", "city"]
    assert third.schema == now.schema
    rows = {row["id"]: row for row in lake.read(now).to_pylist()}
    assert [rows[f"c{i}"]["city"] is None for i in range(15)] == [True] * 5 + [False] * 5 + [True] * 5
    assert all(rows[f"c{i}"]["age"] is None for i in range(10, 15))
    assert lake.read(now, columns=["city"]).num_rows == 15
    with pytest.raises(NotFound, match="no column 'city'"):
        lake.read(before, columns=["city"])


def test_a_column_of_nothing_but_nulls_fits_any_type(lake):
    append(lake, people(5), "k1")
    append(lake, people(5, 5, age=pa.nulls(5)), "k2")
    assert lake.read(lake.as_of("people"))["age"].type == pa.float64()
    assert lake.read(lake.as_of("people"))["age"].null_count >= 5


def test_late_rows_of_an_entity_are_added_and_older_reads_do_not_see_them(lake):
    append(lake, people(50), "k1")
    before = lake.as_of("people")
    append(lake, people(50), "late")
    assert (lake.read(before).num_rows, lake.read(lake.as_of("people")).num_rows) == (50, 100)


@pytest.mark.parametrize("name", ["", "People", "a b", "../x", "a/b", ".x", "a\n", "-a", "a" * 64, "é"])
def test_a_name_that_is_no_name_is_refused(lake, name):
    with pytest.raises(Rejected, match="is not a valid name of a data set"):
        lake.append(name, people(), source="test", key="k", at=NOON)
    with pytest.raises(Rejected, match="is not a valid name of a data set"):
        lake.as_of(name)
    assert lake.datasets() == ()


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        (people().slice(0, 0), {}, "no rows"),
        (pa.table({}), {}, "no rows|no columns"),
        (people(), {"key": ""}, "no key"),
        (people(), {"at": datetime(2026, 1, 1)}, "no zone"),
        (people(**{" ": pa.array([1] * 500)}), {}, "blank"),
        (people(**{"x\u202e": pa.array([1] * 500)}), {}, r"u202e.*unprintable"),
        (people().rename_columns(["id", "id", "plan", "_bucket"]), {}, "'id'.*duplicate"),
        (people(_bucket=pa.array([1] * 500)), {}, "int64; it must be int32"),
        (people(_bucket=pa.array([10_000] * 500, type=pa.int32())), {}, "0 to 9,999"),
        (people(_bucket=pa.array([None] * 500, type=pa.int32())), {}, "500 nulls"),
    ],
    ids=["empty", "bare", "key", "zone", "blank", "unprintable", "twice", "type", "range", "null"],
)
def test_what_no_lake_may_store_is_refused_and_leaves_nothing(lake, table, changes, said):
    with pytest.raises(Rejected, match=said):
        append(lake, table, **changes)
    assert lake.datasets() == ()
    with pytest.raises(NotFound, match="no data set 'people'"):
        lake.as_of("people")


@pytest.mark.parametrize("below", [0, 1, 100, 101, 2_500, 9_999, 10_000])
@pytest.mark.parametrize("count", [40, 130_000], ids=["one file", "many files"])
def test_a_tier_is_the_rows_below_its_bucket(lake, below, count):
    append(lake, people(count))
    append(lake, people(60, count), "k2")
    now = lake.as_of("people")
    everything = lake.read(now)
    tier = lake.read(now, below_bucket=below)
    assert tier.equals(everything.filter(pc.less(everything[BUCKET_COLUMN], below)))
    assert tier.schema == everything.schema


def test_only_the_columns_asked_for_come_back_in_that_order(lake):
    append(lake, people())
    now = lake.as_of("people")
    some = lake.read(now, below_bucket=5_000, columns=["plan", "id"])
    assert some.column_names == ["plan", "id"]
    assert some.equals(lake.read(now, below_bucket=5_000).select(["plan", "id"]))
    with pytest.raises(NotFound, match="no column 'plam'.*plan"):
        lake.read(now, columns=["id", "plam"])
    with pytest.raises(Rejected, match="at least one column"):
        lake.read(now, columns=[])
    with pytest.raises(Rejected, match="-1"):
        lake.read(now, below_bucket=-1)


def test_data_sets_are_listed_and_a_missing_one_is_named(lake):
    assert lake.datasets() == ()
    for name in ("b", "a-1"):
        lake.append(name, people(5), source="test", key="k", at=NOON)
    assert lake.datasets() == ("a-1", "b")
    with pytest.raises(NotFound, match="no data set 'c'"):
        lake.as_of("c")


def test_equal_tables_are_stored_as_equal_bytes(lake):
    one = append(lake, people(), "k1")
    cut = pa.concat_tables([people().slice(0, 123), people().slice(123)])
    two = append(lake, cut, "k2")
    assert [file.sha256 for file in one.files] == [file.sha256 for file in two.files]


def test_eight_writers_at_once_lose_nothing(lake):
    def write(number):
        return [append(lake, people(20, 1_000 * number + 20 * i), f"k{number}-{i}") for i in range(3)]

    with ThreadPoolExecutor(8) as pool:
        written = [snapshot for some in pool.map(write, range(8)) for snapshot in some]
    now = lake.as_of("people")
    assert sorted(s.sequence for s in written) == list(range(1, 25))
    assert {s.id for s in now.snapshots} == {s.id for s in written}
    assert len(set(ids(lake.read(now)))) == 24 * 20


def test_eight_writers_of_one_key_write_it_once(lake):
    with ThreadPoolExecutor(8) as pool:
        written = set(pool.map(lambda _: append(lake, people(), "same").id, range(8)))
    assert len(written) == 1
    assert lake.as_of("people").rows == 500


def test_a_file_that_is_gone_is_named(lake):
    snapshot = append(lake, people())
    now = lake.as_of("people")
    name = snapshot.files[0].name
    alter(lake, lake.file_url(snapshot, name), None)
    with pytest.raises(Corrupt, match=name):
        lake.read(now)


def test_one_flipped_byte_anywhere_in_a_file_is_found(lake):
    snapshot = append(lake, people())
    now = lake.as_of("people")
    file = snapshot.files[0]
    for offset in [0, file.bytes - 1, *random.Random(7).sample(range(file.bytes), 12)]:
        flip(lake, snapshot, file.name, offset)
        with pytest.raises(Corrupt, match=f"{file.name}.*checksum mismatch"):
            lake.read(now)
        with pytest.raises(Corrupt, match="checksum mismatch"):
            lake.read(now, below_bucket=9_000, columns=["id"])
        flip(lake, snapshot, file.name, offset)
    assert lake.read(now).num_rows == 500


def test_the_fake_fails_as_often_as_it_is_told():
    lake = FakeLake(fail_appends=2, fail_reads=1)
    for _ in range(2):
        with pytest.raises(Unavailable):
            append(lake, people())
    append(lake, people())
    with pytest.raises(Unavailable):
        lake.read(lake.as_of("people"))
    assert lake.read(lake.as_of("people")).num_rows == 500
