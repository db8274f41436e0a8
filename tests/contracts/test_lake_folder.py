# ruff: noqa: F811 - the fixtures of tests/fixtures/lakes.py are imported by name
"""A lake in a folder: damaged and unknown files on the disk, and killed writers."""

import fcntl
import hashlib
import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from blocks.common.errors import Corrupt, Rejected, Unavailable
from blocks.lake.local import LocalLake
from tests.fixtures.lakes import NOON, append, as_bytes, flipped, local, people  # noqa: F401


def entry_path(lake, number):
    return lake.root / "people" / "_log" / f"{number:08d}.json"


def anew(lake):
    """Return the lake as another process opens it."""
    return LocalLake(root=lake.root)


def test_one_flipped_bit_anywhere_in_a_manifest_is_found(local):
    append(local, people(), notes={"reasons": "7 null target"})
    path = entry_path(local, 1)
    good = path.read_bytes()
    for offset in range(len(good)):
        path.write_bytes(flipped(good, offset, (1, 0x20, 0x2A)[offset % 3]))
        with pytest.raises(Corrupt, match=r"00000001\.json"):
            local.as_of("people")
    path.write_bytes(good)
    assert local.as_of("people").rows == 500


@pytest.mark.parametrize("holder", ["entry", "state", "snapshot", "file"])
def test_an_entry_of_a_newer_release_is_refused_and_nothing_of_it_is_dropped(local, holder):
    append(local, people(5), "k1")
    content = json.loads(entry_path(local, 1).read_bytes())["entry"]
    snapshot = content["snapshot"]
    {"entry": content, "state": content["state"], "snapshot": snapshot, "file": snapshot["files"][0]}[holder]["new"] = 1
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    entry_path(local, 1).write_text(f'{{"sha256":"{hashlib.sha256(text.encode()).hexdigest()}","entry":{text}}}\n')
    with pytest.raises(Corrupt, match=r"(?s)00000001\.json.*cannot be read.*new"):
        append(anew(local), people(5, 5), "k2")


@pytest.mark.parametrize("damage", ["gone", "of another data set", "of another time"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_manifest_that_is_missing_or_misplaced_is_named(local, damage, number):
    for sequence in range(3):
        append(local, people(5, sequence * 5), f"k{sequence}")
        local.append("others", people(5), source="test", key=f"k{sequence}", at=NOON)
    other = LocalLake(root=local.root.parent / "other")
    for sequence in range(3):
        append(other, people(6, sequence * 5), f"k{sequence}")
    path = entry_path(local, number)
    if damage == "gone":
        path.unlink()
    elif damage == "of another data set":
        path.write_bytes((local.root / "others" / "_log" / path.name).read_bytes())
    else:  # valid by itself, but the next entry has another digest of it
        path.write_bytes(entry_path(other, number).read_bytes())
    if damage == "of another time" and number == 3:
        return  # no later entry: nothing confirms the newest
    with pytest.raises(Corrupt, match="0000000"):
        _ = anew(local).as_of("people").snapshots
    if damage != "of another time":
        with pytest.raises(Corrupt, match=path.name):
            append(anew(local), people(5, 50), "k9")


@pytest.mark.parametrize("helper", ["head", "pack-000000"])
@pytest.mark.parametrize("damage", ["gone", "broken", "old"])
def test_helpers_may_be_lost_or_broken(local, helper, damage):
    path = local.root / "people" / "_log" / helper
    old = b""
    for number in range(70):
        append(local, people(2, number * 2), f"k{number}")
        old = old or (path.read_bytes() if path.exists() else b"")
    expected = local.as_of("people").snapshots
    assert len(expected) == 70
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(old if damage == "old" else flipped(path.read_bytes(), 3))
    assert anew(local).as_of("people").snapshots == expected
    assert append(anew(local), people(2, 900), "k69") == expected[-1]


def test_strays_are_not_read(local):
    append(local, people())
    seen = as_bytes(local.read(local.as_of("people")))
    for stray in ("people/x.tmp", "people/_log/x.tmp", "people/_data/part-9.parquet", "people/notes.txt"):
        (local.root / stray).write_text("stray")
    (local.root / "empty").mkdir()
    (local.root / "No Data Set").mkdir()
    (local.root / "loose.txt").write_text("stray")
    assert as_bytes(local.read(local.as_of("people"))) == seen
    assert local.datasets() == ("people",)
    assert append(local, people(5, 500), "k2").sequence == 2


def test_spill_folders_of_the_dead_are_swept_and_of_the_living_kept(local):
    staging = local.root / ".staging"
    append(local, people(5))
    assert not [path for path in staging.iterdir() if path.is_dir()]
    hour_ago, hour_ahead = time.time() - 3_600, time.time() + 3_600
    for name in ("spill-dead", "spill-alive", "spill-new"):
        (staging / name).mkdir()
        (staging / name / "x.arrow").write_bytes(b"half")
    os.utime(staging / "spill-dead", (hour_ago, hour_ago))
    os.utime(staging / "spill-alive", (hour_ago, hour_ago))
    os.utime(staging / "spill-new", (hour_ahead, hour_ahead))  # so that it is new however slow the machine is
    held = os.open(staging / "spill-alive", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    append(local, people(5, 5), "k2")
    assert sorted(path.name for path in staging.iterdir() if path.is_dir()) == ["spill-alive", "spill-new"]
    os.close(held)
    append(local, people(5, 10), "k3")
    assert [path.name for path in staging.iterdir() if path.is_dir()] == ["spill-new"]


def test_a_failed_append_leaves_nothing(local):
    append(local, people(5))
    before = {path for path in local.root.rglob("*") if path.is_file()}

    def rows():
        yield from people(200_000).to_batches()
        yield from people(500, _bucket=pa.array([-1] * 500, type=pa.int32())).to_batches()

    with pytest.raises(Rejected, match="0 to 9,999"):
        append(local, pa.RecordBatchReader.from_batches(people(1).schema, rows()), "k2")
    assert {path for path in local.root.rglob("*") if path.is_file()} == before


def test_a_root_that_cannot_be_a_folder_is_a_port_error(tmp_path):
    (tmp_path / "lake").write_text("a file")
    with pytest.raises(Unavailable, match="lake"):
        append(LocalLake(root=tmp_path / "lake"), people(5))


def test_what_was_verified_is_not_hashed_again_until_it_changes(local, monkeypatch):
    snapshot = append(local, people())
    now = local.as_of("people")
    other = anew(local)
    path = other.files(now)[0]
    hashed = []
    true = other.store.sha256
    monkeypatch.setattr(other.store, "sha256", lambda key: hashed.append(key) or true(key))
    other.files(now)
    assert hashed == []
    os.utime(path)  # the name may belong to another file by now
    other.files(now)
    other.files(now)
    assert len(hashed) == 1
    assert path == local.file_url(snapshot, snapshot.files[0].name)


def test_a_changed_file_is_found_though_its_size_and_time_are_as_before(local):
    append(local, people())
    (path,) = local.files(local.as_of("people"))
    found = Path(path).stat()
    with Path(path).open("r+b") as stream:
        stream.seek(100)
        byte = stream.read(1)
        stream.seek(100)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(Corrupt, match="checksum mismatch"):
        local.files(local.as_of("people"))


def test_fixing_a_read_of_many_snapshots_opens_no_more_than_of_one(local, monkeypatch):
    opened = []

    def gets(lake):
        true, opened[:] = lake.store.get, []
        monkeypatch.setattr(lake.store, "get", lambda key: opened.append(key) or true(key))
        lake.as_of("people")
        return len(opened)

    append(local, people(2))
    one = gets(anew(local))
    for number in range(70):
        append(local, people(2, number * 2), f"many{number}")
    assert gets(anew(local)) == one <= 4
    assert local.as_of("people").sequence == 71


def test_a_tier_reads_its_own_files_only(local):
    snapshot = append(local, people(130_000))
    now = local.as_of("people")
    assert len(snapshot.files) > 5
    last = snapshot.files[-1].name
    Path(local.file_url(snapshot, last)).unlink()
    assert local.read(now, below_bucket=100).num_rows > 1_000
    assert len(local.files(now, below_bucket=100)) == 1
    with pytest.raises(Corrupt, match=last):
        local.read(now)


@pytest.mark.slow
def test_a_tier_of_one_percent_opens_a_small_part_of_what_a_full_read_does(local, monkeypatch):
    append(local, people(1_000_000))
    now, opened = local.as_of("people"), []
    true = local.store.open
    monkeypatch.setattr(local.store, "open", lambda key, sha256: opened.append(key) or true(key, sha256))

    def opened_bytes(below):
        opened.clear()
        local.read(now, below_bucket=below)
        return sum((local.root / key).stat().st_size for key in opened)

    assert 0 < opened_bytes(100) < 0.3 * opened_bytes(None)
