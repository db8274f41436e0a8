"""Maintenance of the lake: small files are merged, only orphaned files are removed, and a changed read is detected.

The task itself opens an environment of a Prefect server; `tests/flows/test_retrain.py` runs all of it.
"""

import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from blocks.common.errors import ConcurrentWrite, Corrupt, Unavailable
from blocks.lake.base import AsOf, FileTotals, Lake
from blocks.lake.fake import FakeLake
from blocks.lake.local import LocalLake
from tasks.cleanup.maintenance import maintain_dataset, maintenance_result, read_digest
from tasks.cleanup.rules.maintenance import DatasetMaintenance

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SOON = NOW.replace(year=2100)
"""A time when all files that a test has just made are old."""


def rows(number: int, count: int = 30) -> pa.Table:
    chance = np.random.default_rng(number)
    buckets = pa.array(chance.integers(0, 10_000, count).astype(np.int32))
    return pa.table({"id": [f"{number}-{n}" for n in range(count)], "x": chance.normal(size=count), "_bucket": buckets})


def filled(lake: Lake, count: int = 12) -> list[AsOf]:
    for number in range(count):
        lake.append("events", rows(number), source="test", key=str(number), at=NOW)
    return [lake.as_of("events", snapshot.id) for snapshot in lake.as_of("events").snapshots]


def orphan(lake: LocalLake | FakeLake, age: timedelta = timedelta(0)) -> Path:
    """Write a file that no snapshot references, as left by a writer that died long ago."""
    path = lake.root / "events" / "_data" / "dead" / "part-000000.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x" * 500)
    os.utime(path, times=(path.stat().st_atime, (NOW - age).timestamp()))
    return path


def tended(lake: Lake, *, dry_run: bool = False, before: datetime = SOON) -> DatasetMaintenance:
    return maintain_dataset(lake, "events", now=NOW, removable_before=before, dry_run=dry_run)


@pytest.fixture
def lake() -> FakeLake:
    return FakeLake()


def test_small_files_are_merged_orphans_removed_and_reads_repeated(lake: FakeLake) -> None:
    reads = filled(lake)
    returned = [lake.read(read) for read in reads]
    path = orphan(lake)
    done = tended(lake)
    assert (done.snapshots, done.merged, done.orphans, done.orphan_bytes) == (12, 12, 1, 500)
    assert (done.reads, done.repeated) == (5, 5)
    assert (done.before.opened_files, done.after.opened_files) == (12, 1)
    assert (done.before.stored_files, done.after.stored_files) == (13, 13), "an orphan less, a larger file more"
    assert done.after.stored_bytes == lake.storage_use("events").stored.size_bytes
    assert not path.exists()
    assert [lake.read(read) for read in reads] == returned
    again = tended(lake)
    assert (again.merged, again.orphans, again.problem) == (0, 0, "")
    assert (again.reads, again.repeated) == (5, 0), "nothing changed: their files are verified, and that is all"


def test_a_dry_run_says_the_same_and_changes_nothing(lake: FakeLake) -> None:
    filled(lake)
    path = orphan(lake)
    before = lake.storage_use("events")
    tried = tended(lake, dry_run=True)
    assert lake.storage_use("events") == before
    assert path.exists()
    done = tended(lake)
    assert (tried.merged, tried.orphans, tried.orphan_bytes) == (done.merged, done.orphans, done.orphan_bytes)
    assert tried.before == tried.after == done.before
    assert (tried.reads, tried.repeated) == (5, 0)


def test_files_that_may_belong_to_a_writer_at_work_stay(lake: FakeLake) -> None:
    filled(lake, 3)
    path = orphan(lake, age=timedelta(hours=23))
    assert tended(lake, before=NOW - timedelta(hours=24)).orphans == 0
    assert path.exists()
    assert tended(lake, before=NOW - timedelta(hours=22)).orphans == 1


class Forgetful(FakeLake):
    """A lake whose compactions lose a row."""

    _block_type_slug = "ratchet-lake-forgetful"
    _lost: bool = PrivateAttr(default=False)

    def compact(self, dataset: str, *, dry_run: bool = False) -> FileTotals:
        """Compact, and from then on lose the last row."""
        self._lost = True
        return super().compact(dataset, dry_run=dry_run)

    def scan(
        self, as_of: AsOf, *, below_bucket: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.RecordBatchReader:
        """Stream all rows but one."""
        table = super().scan(as_of, below_bucket=below_bucket, columns=columns).read_all()
        return table.slice(0, table.num_rows - self._lost).to_reader()


def test_a_read_that_changed_is_told_by_its_snapshot() -> None:
    lake = Forgetful()
    first = filled(lake)[0]
    assert f"the read as of {first.id} returns other rows than before" in tended(lake).problem


def test_a_damaged_data_set_is_told_and_left_as_it_is(lake: FakeLake) -> None:
    snapshot = filled(lake)[0].snapshots[0]
    lake.corrupt_file(snapshot, snapshot.files[0].name, 60)
    before = lake.storage_use("events")
    assert "checksum mismatch" in tended(lake).problem
    assert lake.storage_use("events") == before


def test_one_damaged_data_set_fails_the_round_after_the_others_were_looked_after(lake: FakeLake) -> None:
    snapshot = filled(lake)[0].snapshots[0]
    for number in range(12):
        lake.append("other", rows(number), source="test", key=str(number), at=NOW)
    lake.corrupt_file(snapshot, snapshot.files[0].name, 60)
    done = [maintain_dataset(lake, name, now=NOW, removable_before=SOON, dry_run=False) for name in lake.datasets()]
    assert [(one.dataset, one.merged) for one in done] == [("events", 0), ("other", 12)]
    with pytest.raises(Corrupt, match=r"1 of 2 data sets have a problem: .*checksum mismatch"):
        maintenance_result(done, dry_run=False)
    assert maintenance_result(done[1:], dry_run=False).files_merged == 12


def test_a_lake_that_does_not_answer_is_worth_another_try(lake: FakeLake) -> None:
    filled(lake)
    lake.fail_reads = 1
    with pytest.raises(Unavailable):
        tended(lake)
    assert tended(lake).merged == 12


def test_a_digest_tells_every_value_and_needs_no_type_that_has_none(lake: FakeLake) -> None:
    nested = rows(1).append_column("tags", pa.array([["a"]] * 30))
    lake.append("events", nested, source="test", key="1", at=NOW)
    other = FakeLake()
    changed = nested.set_column(1, "x", pa.array([0.0] * 30))
    other.append("events", changed, source="test", key="1", at=NOW)
    ours, theirs = (read_digest(one, "events", one.as_of("events").id) for one in (lake, other))
    assert ours.split()[2] != theirs.split()[2]


@pytest.mark.slow
def test_it_is_safe_beside_writers_and_readers(tmp_path: Path) -> None:
    root, stop = tmp_path / "lake", threading.Event()
    first = filled(LocalLake(root=root))[-1]
    expected, wrong, landed = LocalLake(root=root).read(first), list[str](), list[str]()

    def write() -> None:
        lake = LocalLake(root=root)
        for number in range(100, 1_000):
            if stop.is_set():
                return
            try:
                lake.append("events", rows(number), source="test", key=str(number), at=NOW)
                landed.append(str(number))
            except ConcurrentWrite:
                continue

    def read() -> None:
        while not stop.is_set():
            lake = LocalLake(root=root)
            if not lake.read(lake.as_of("events", first.id)).equals(expected):
                wrong.append(first.id)

    threads = [threading.Thread(target=work) for work in (write, read)]
    for thread in threads:
        thread.start()
    rounds = [tended(LocalLake(root=root)) for _ in range(6)]  # ignores active writers: every file is old enough
    stop.set()
    for thread in threads:
        thread.join()
    assert [one.problem for one in rounds] == [""] * 6
    assert sum(one.merged for one in rounds) >= 12
    assert not wrong
    now = LocalLake(root=root).as_of("events")
    assert {snapshot.key for snapshot in now.snapshots} == {*map(str, range(12)), *landed}
