"""Ingestion from a growing folder, glob or prefix: each run ingests the new files, and no file twice."""

import random
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import boto3
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from blocks.common.errors import ConcurrentWrite, PortError, Rejected
from blocks.lake.base import Lake, Snapshot
from blocks.lake.fake import FakeLake
from blocks.sources import FrameSource
from tasks.ingestion.datasets import dataset_snapshots, processed_files, quarantine_dataset
from tasks.ingestion.landing import ingest_rows
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import DataSpec, column_kinds
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.s3_server import s3_with_bucket
from tests.fixtures.sources import open_source

HOUSES = DataSpec(dataset="houses", entity="house", target="price", features={"rooms": "number"})
KINDS = column_kinds(HOUSES)


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **given: None)


@pytest.fixture
def lake() -> Lake:
    return FakeLake()


class Folder:
    """Files below a folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.address, self.pattern, self._path = str(path / "in"), str(path / "in" / "*.csv"), path / "in"
        self._path.mkdir()

    def put(self, name: str, text: str) -> None:
        (self._path / name).write_text(text)

    def move(self, name: str, to: str) -> None:
        (self._path / name).rename(self._path / to)


class Prefix:
    """Objects below a prefix of a bucket."""

    address, pattern = "s3://growing/in/", "s3://growing/in/*.csv"

    def __init__(self) -> None:
        self._client = boto3.client("s3")

    def put(self, name: str, text: str) -> None:
        self._client.put_object(Bucket="growing", Key=f"in/{name}", Body=text.encode())

    def move(self, name: str, to: str) -> None:
        self._client.copy_object(Bucket="growing", Key=f"in/{to}", CopySource=f"growing/in/{name}")
        self._client.delete_object(Bucket="growing", Key=f"in/{name}")


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_with_bucket("growing"):
        yield


@pytest.fixture(params=["folder", "prefix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Folder | Prefix:
    if request.param == "folder":
        return Folder(tmp_path)
    request.getfixturevalue("s3")
    client = boto3.client("s3")
    for found in client.list_objects_v2(Bucket="growing").get("Contents", ()):
        client.delete_object(Bucket="growing", Key=found["Key"])
    return Prefix()


def rows(first: int, count: int = 20, *, wrong: int = 0) -> str:
    """Return a CSV of houses numbered from `first`, the last of them without a price."""
    lines = [f"h{n},3,{'' if n >= first + count - wrong else 1000 + n}" for n in range(first, first + count)]
    return "\n".join(["house,rooms,price", *lines]) + "\n"


def land(lake: Lake, source: str) -> IngestResult:
    """Ingest as the task does, without its environment."""
    opened = open_source(source, kinds=KINDS, processed=processed_files(lake, HOUSES))
    try:
        return ingest_rows(lake, HOUSES, opened)
    finally:
        opened.close()


def keys(lake: Lake) -> list[str]:
    return sorted(lake.read(lake.as_of("houses"), columns=["house"])["house"].to_pylist())


def numbered(count: int) -> list[str]:
    return sorted(f"h{number}" for number in range(count))


def test_each_load_takes_the_files_that_are_new(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    place.put("b.csv", rows(20))
    assert land(lake, place.address).accepted == 40
    place.put("c.csv", rows(40))
    third = land(lake, place.pattern)
    assert (third.rows_in, third.accepted, third.quarantined) == (20, 20, 0), "the old rows are not even looked at"
    assert keys(lake) == numbered(60)
    nothing = land(lake, place.address)
    assert (nothing.appended, nothing.rows_in, nothing.snapshot) == (False, 0, third.snapshot)
    assert "1 new of 3" in dataset_snapshots(lake, "houses")[-1].source
    assert [file.name.rpartition("/")[2] for file in processed_files(lake, HOUSES)] == ["a.csv", "b.csv", "c.csv"]
    assert quarantine_dataset(HOUSES) not in lake.datasets()


def test_a_file_that_changed_after_it_landed_is_refused_by_name(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    place.put("b.csv", rows(20))
    land(lake, place.address)
    place.put("b.csv", rows(20, 25))
    place.put("c.csv", rows(60))
    with pytest.raises(Rejected, match=r"in/b\.csv: the file changed.*had 238 .*Restore the old content.*a new file"):
        land(lake, place.address)
    assert keys(lake) == numbered(40)
    place.put("b.csv", rows(20))
    place.put("b-2.csv", rows(40, 5))
    assert land(lake, place.address).accepted == 25


def test_a_file_is_known_by_its_content_wherever_it_is_moved(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    land(lake, place.address)
    place.move("a.csv", "2026-11-21.csv")
    place.put("copy.csv", rows(0))
    assert land(lake, place.address).rows_in == 0
    place.put("a.csv", rows(20))
    assert land(lake, place.address).accepted == 20, "the old one made room for it"


def test_a_row_of_the_only_new_file_is_set_aside_with_its_file(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    land(lake, place.address)
    place.put("b.csv", rows(20, wrong=1))
    land(lake, place.address)
    (row,) = lake.read(lake.as_of(quarantine_dataset(HOUSES))).to_pylist()
    assert row["position"].endswith("b.csv line 21")


def test_a_load_that_is_refused_takes_no_file(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    land(lake, place.address)
    place.put("b.csv", rows(20, wrong=5))
    with pytest.raises(Refusal, match="5 of 20 rows would be quarantined"):
        land(lake, place.address)
    place.put("b.csv", rows(20))
    assert land(lake, place.address).accepted == 20


def test_a_column_that_came_later_is_asked_of_new_files_only(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    land(lake, place.address)
    more = HOUSES.model_copy(update={"features": {"rooms": "number", "street": "category"}})
    head, *lines = rows(20).splitlines()
    place.put("b.csv", "\n".join([f"{head},street", *(f"{line},Elm" for line in lines)]) + "\n")
    opened = open_source(place.address, kinds=column_kinds(more), processed=processed_files(lake, more))
    assert ingest_rows(lake, more, opened).accepted == 20
    opened.close()
    assert lake.read(lake.as_of("houses"))["street"].to_pylist() == [None] * 20 + ["Elm"] * 20


def test_a_new_file_without_a_row_is_no_success(lake: Lake, place: Folder | Prefix) -> None:
    place.put("a.csv", rows(0))
    land(lake, place.address)
    place.put("b.csv", "house,rooms,price\n")
    with pytest.raises(Rejected, match=r"1 new of 2.*0 rows"):
        land(lake, place.address)


def test_a_file_that_was_named_itself_is_known_in_its_folder(lake: Lake, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("a.csv", rows(0))
    land(lake, f"{folder.address}/a.csv")
    folder.put("b.csv", rows(20))
    assert land(lake, folder.address).rows_in == 20
    again = land(lake, f"{folder.address}/a.csv")
    assert (again.appended, again.snapshot) == (False, dataset_snapshots(lake, "houses")[0].id)


class Unreliable(FakeLake):
    """A lake of which every third append fails: before or after its files were written, or after it was committed."""

    _block_type_slug = "ratchet-lake-unreliable"
    _chance: random.Random = PrivateAttr(default_factory=lambda: random.Random(7))

    def append(
        self,
        dataset: str,
        rows: pa.Table | pa.RecordBatchReader,
        *,
        source: str,
        key: str,
        at: datetime,
        notes: Mapping[str, str] | None = None,
        expected_parent: str | None = None,
    ) -> Snapshot:
        """Append, or fail as a killed process does."""
        fate = self._chance.choice(["before", "after", *["well"] * 4])
        if fate == "before":
            raise KeyboardInterrupt
        done = super().append(
            dataset, rows, source=source, key=key, at=at, notes=notes, expected_parent=expected_parent
        )
        if fate == "after":
            raise KeyboardInterrupt
        return done


def test_whatever_is_interrupted_every_row_lands_once(tmp_path: Path) -> None:
    lake, chance, folder = Unreliable(), random.Random(1), Folder(tmp_path)
    made = interrupted = 0
    for night in range(8):
        for _ in range(chance.randrange(3)):
            folder.put(f"{night:02d}-{made}.csv", rows(made, 10, wrong=int(chance.random() < 0.3)))
            made += 10
        while made:
            try:
                land(lake, folder.address)
                break
            except KeyboardInterrupt:
                interrupted += 1
    lost = {row["key"] for row in lake.read(lake.as_of(quarantine_dataset(HOUSES))).to_pylist()}
    assert sorted([*keys(lake), *lost]) == numbered(made), "each is in the lake once, or set aside"
    assert interrupted > 2


def test_rows_that_another_ingest_brought_meanwhile_do_not_land_twice(lake: Lake, tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.put("a.csv", rows(0, 40, wrong=1))
    slow = open_source(folder.address, kinds=KINDS, processed=())
    looked, frame = slow.check_unchanged, pd.DataFrame({"house": ["h7"], "rooms": [1.0], "price": [2.0]})
    asked: list[int] = []

    def meanwhile() -> None:
        looked()
        asked.append(1)
        if len(asked) == 2:  # the rows were checked, and are being written to the lake
            ingest_rows(lake, HOUSES, FrameSource(frame, KINDS))

    slow.check_unchanged = meanwhile  # type: ignore[method-assign]
    with pytest.raises(ConcurrentWrite, match="was added since. Try again") as lost:
        ingest_rows(lake, HOUSES, slow)
    assert isinstance(lost.value, PortError)
    landed = land(lake, folder.address)
    assert (landed.accepted, landed.quarantined) == (38, 2)
    assert len(keys(lake)) == len(set(keys(lake))) == 39
    there = lake.as_of(quarantine_dataset(HOUSES), landed.quarantine_snapshot).snapshots[-1]
    assert there.rows == 2, "what was set aside is what this judgement set aside"
