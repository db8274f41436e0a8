"""Ingestion of streams: folders, JSON lines, databases with a watermark, S3, and re-driven quarantine files."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Rejected, Unavailable
from blocks.lake.base import Lake
from blocks.lake.local import LocalLake
from blocks.sources import FrameSource
from tasks.ingestion.datasets import dataset_snapshots, processed_files, quarantine_dataset, watermark_filter
from tasks.ingestion.landing import ingest_rows
from tasks.shared.progress import Progress
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import DataSpec, IngestSchema, column_kinds
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.clocks import Clock
from tests.fixtures.s3_server import s3_with_bucket
from tests.fixtures.sources import open_source

HOUSES = DataSpec(dataset="houses", entity="house", target="price", features={"rooms": "number", "street": "category"})
KINDS = column_kinds(HOUSES)
HEADER = "house,rooms,street,price"


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **given: None)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return LocalLake(root=tmp_path / "lake")


def land(
    lake: Lake, source: object, query: str = "", watermark: str = "", redrive: str = "", look_back: str = ""
) -> IngestResult:
    """Ingest as the task does, without its environment."""
    since = watermark_filter(lake, HOUSES, str(source), query, watermark, look_back)
    taken = None if redrive else processed_files(lake, HOUSES)
    rows = open_source(str(source), query=query, kinds=KINDS, watermark=since, processed=taken, redrive=bool(redrive))
    landed = ingest_rows(lake, HOUSES, rows, redrive=redrive)
    rows.close()
    return landed


def houses(first: int, count: int) -> pd.DataFrame:
    numbers = range(first, first + count)
    return pd.DataFrame(
        {"house": [f"h{n}" for n in numbers], "rooms": 3.0, "street": "Elm", "price": [1000.0 + n for n in numbers]}
    )


def keys(lake: Lake) -> list[str]:
    return sorted(lake.read(lake.as_of("houses"), columns=["house"])["house"].to_pylist())


def quarantine(lake: Lake, snapshot: str | None = None) -> list[dict[str, str]]:
    return lake.read(lake.as_of(quarantine_dataset(HOUSES), snapshot)).to_pylist()


FORMATS = {
    "csv": lambda frame, path: frame.to_csv(path.with_suffix(".csv"), index=False),
    "jsonl": lambda frame, path: frame.to_json(path.with_suffix(".jsonl"), orient="records", lines=True),
    "parquet": lambda frame, path: frame.to_parquet(path.with_suffix(".parquet"), index=False),
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_folder_lands_as_one_snapshot_whatever_its_format(lake: Lake, tmp_path: Path, form: str) -> None:
    (tmp_path / "in").mkdir()
    frame = houses(0, 40)
    frame.loc[37, "price"] = None  # in b, row 18
    frame.loc[38, "house"] = "h1"  # in b: the first is in a
    FORMATS[form](frame[:20], tmp_path / "in" / "a")
    FORMATS[form](frame[20:], tmp_path / "in" / "b")
    landed = land(lake, tmp_path / "in")
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (40, 38, 2)
    first, step = {"csv": (2, "line"), "jsonl": (1, "line"), "parquet": (1, "row")}[form]
    assert [(row["position"], row["reason"]) for row in quarantine(lake)] == [
        (f"b.{form} {step} {17 + first}", "null target"),
        (f"b.{form} {step} {18 + first}", f"duplicate key: kept is a.{form} {step} {1 + first}, with other values"),
    ]
    assert not land(lake, tmp_path / "in").appended, "the same files add nothing"
    assert len(dataset_snapshots(lake, "houses")) == 1


def test_parquet_scanned_as_it_is_and_parquet_read_first_land_the_same(lake: Lake, tmp_path: Path) -> None:
    frame = houses(0, 60)
    frame.loc[7, "rooms"] = float("inf")
    frame.loc[8, "house"] = " "
    other = LocalLake(root=tmp_path / "other")
    frame.to_parquet(tmp_path / "plain.parquet", index=False)
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "checked.parquet", write_page_checksum=True)
    assert open_source(f"{tmp_path}/plain.parquet", kinds=KINDS).direct_scan()
    assert not open_source(f"{tmp_path}/checked.parquet", kinds=KINDS).direct_scan()
    land(lake, tmp_path / "plain.parquet")
    land(other, tmp_path / "checked.parquet")
    assert quarantine(lake) == quarantine(other)
    assert [row["reason"] for row in quarantine(lake)] == ["not finite: column 'rooms' holds inf", "null entity key"]
    assert lake.read(lake.as_of("houses")).equals(other.read(other.as_of("houses")))


def test_a_file_that_changes_while_it_lands_leaves_no_snapshot(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "houses.parquet"
    houses(0, 40).to_parquet(path, index=False)
    source = open_source(str(path), kinds=KINDS)
    looked = source.check_unchanged
    calls: list[int] = []

    def touched() -> None:
        calls.append(1)
        if len(calls) > 1:  # after the source's identity was read, once the rows are read
            path.touch()
        looked()

    source.check_unchanged = touched  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="changed while it was read"):
        ingest_rows(lake, HOUSES, source)
    assert lake.datasets() == ()
    assert land(lake, path).appended


# Watermarks


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "crm.db"
    add(path, houses(0, 30).assign(changed=range(1, 31)))
    return path


def add(path: Path, frame: pd.DataFrame) -> None:
    with sqlite3.connect(path) as connection:
        frame.to_sql("houses", connection, index=False, if_exists="append")
    connection.close()


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)
    connection.close()


QUERY = "SELECT * FROM houses ORDER BY changed"


def test_each_load_asks_only_for_what_is_newer_than_the_last(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    first = land(lake, url, QUERY, "changed")
    assert (first.rows_in, first.accepted) == (30, 30)
    nothing = land(lake, url, QUERY, "changed")
    assert (nothing.rows_in, nothing.accepted, nothing.appended, nothing.snapshot) == (0, 0, False, first.snapshot)
    add(database, houses(30, 5).assign(changed=range(31, 36)))
    assert land(lake, url, QUERY, "changed").rows_in == 5
    add(database, houses(35, 5).assign(changed=range(36, 41)))
    assert land(lake, url, QUERY, "changed").rows_in == 5
    assert len(keys(lake)) == 40
    assert [s.notes["watermark"] for s in dataset_snapshots(lake, "houses")] == ["30", "35", "40"]


def test_a_load_that_is_refused_leaves_the_watermark_where_it_was(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    land(lake, url, QUERY, "changed")
    add(database, houses(30, 5).assign(changed=range(31, 36), price=None))
    with pytest.raises(Refusal, match="all 5 rows would be quarantined"):
        land(lake, url, QUERY, "changed")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE houses SET price = 1 WHERE price IS NULL")
    connection.close()
    assert land(lake, url, QUERY, "changed").accepted == 5


def test_rows_that_were_set_aside_are_not_asked_for_again(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    add(database, houses(30, 1).assign(changed=31, price=None))
    assert land(lake, url, QUERY, "changed").quarantined == 1
    assert land(lake, url, QUERY, "changed").rows_in == 0


def test_another_query_has_a_watermark_of_its_own(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    land(lake, url, "SELECT * FROM houses WHERE changed <= 20", "changed")
    landed = land(lake, url, "SELECT * FROM houses WHERE changed > 20 AND changed < 26", "changed")
    assert landed.rows_in == 5


def test_a_look_back_finds_late_rows_and_leaves_out_what_was_read(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    add(database, houses(30, 2).assign(changed=(31, 32), price=None))
    first = land(lake, url, QUERY, "changed", look_back="10")
    assert (first.accepted, first.quarantined) == (30, 2)
    add(database, houses(40, 3).assign(changed=(25, 30, 40)))  # two became visible late
    assert land(lake, url, QUERY, "changed").rows_in == 1, "without a lookback the late rows are missed for good"
    found = land(lake, url, QUERY, "changed", look_back="20")
    assert (found.rows_in, found.accepted, found.quarantined) == (2, 2, 0)
    notes = dataset_snapshots(lake, "houses")[-1].notes
    assert (notes["read again"], notes["watermark"]) == ("13", "40")
    assert not land(lake, url, QUERY, "changed", look_back="20").appended, "the same rows"
    again = land(lake, url, QUERY, "changed", look_back="25")
    assert (again.appended, again.rows_in, again.quarantined) == (False, 0, 0)
    assert (len(keys(lake)), len(dataset_snapshots(lake, quarantine_dataset(HOUSES)))) == (33, 1)


def test_a_row_that_was_corrected_within_the_look_back_is_quarantined_and_not_left_out(
    lake: Lake, database: Path
) -> None:
    url = f"sqlite:///{database}"
    land(lake, url, QUERY, "changed")
    execute(database, "UPDATE houses SET price = 7 WHERE house = 'h29'")
    add(database, houses(30, 20).assign(changed=range(31, 51)))
    landed = land(lake, url, QUERY, "changed", look_back="5")
    assert (landed.accepted, landed.quarantined) == (20, 1)
    (aside,) = lake.read(lake.as_of(quarantine_dataset(HOUSES))).to_pylist()
    assert (aside["key"], aside["reason"]) == ("h29", "key already in the lake")


def test_corrections_alone_are_set_aside_once_and_new_rows_come_in_beside_them(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    land(lake, url, QUERY, "changed")
    before = lake.as_of("houses").id
    execute(database, "UPDATE houses SET price = 7 WHERE house = 'h29'")
    landed = land(lake, url, QUERY, "changed", look_back="3")
    assert (landed.accepted, landed.quarantined, landed.appended) == (0, 1, False)
    assert landed.snapshot == lake.as_of("houses").id == before
    assert "1 key already in the lake" in landed.summary and landed.quarantine_snapshot
    again = land(lake, url, QUERY, "changed", look_back="3")
    assert (again.rows_in, again.appended) == (0, False)
    assert [row["key"] for row in quarantine(lake)] == ["h29"]
    execute(database, "UPDATE houses SET price = 8 WHERE house = 'h28'")
    add(database, houses(30, 1).assign(changed=[31]))
    landed = land(lake, url, QUERY, "changed", look_back="3")
    assert (landed.accepted, landed.quarantined, landed.appended) == (1, 1, True)
    assert len(keys(lake)) == 31
    assert [row["key"] for row in quarantine(lake)] == ["h29", "h28"]


def test_within_the_look_back_faults_are_a_share_of_all_rows_that_were_read(lake: Lake, database: Path) -> None:
    url = f"sqlite:///{database}"
    land(lake, url, QUERY, "changed")
    add(database, houses(30, 1).assign(changed=31, price=None))
    assert land(lake, url, QUERY, "changed", look_back="20").quarantined == 1, "1 of 21"
    add(database, houses(31, 5).assign(changed=32, price=None))
    with pytest.raises(Refusal, match="5 of 26 rows would be quarantined"):
        land(lake, url, QUERY, "changed", look_back="20")


def test_a_look_back_without_a_watermark_is_refused(lake: Lake, database: Path) -> None:
    with pytest.raises(Refusal, match="only a watermark has a lookback"):
        land(lake, f"sqlite:///{database}", QUERY, look_back="5")


# Re-drive


@pytest.fixture
def set_aside(lake: Lake, tmp_path: Path) -> IngestResult:
    """Forty houses, four of them quarantined: two unreadable, one without a price, one with invalid rooms."""
    lines = [
        HEADER,
        *(f"h{n},3,Elm,{1000 + n}" for n in range(36)),
        "h36,3,Elm,",
        "h37,3,Elm",
        "h38,?,Elm,7",
        "h39,1e999,Elm,7",
    ]
    (tmp_path / "houses.csv").write_text("\n".join(lines) + "\n")
    landed = land(lake, tmp_path / "houses.csv")
    assert (landed.accepted, landed.quarantined) == (36, 4)
    return landed


def mended(lake: Lake, path: Path, **rows: dict[str, object]) -> Path:
    """Export the quarantine, replace the JSON of some rows (by position), and write it as CSV or Parquet."""
    frame = lake.read(lake.as_of(quarantine_dataset(HOUSES))).to_pandas()
    for place, row in rows.items():
        frame.loc[frame["position"] == place.replace("_", " "), "row"] = json.dumps(row)
    frame.to_csv(path, index=False) if path.suffix == ".csv" else frame.to_parquet(path, index=False)
    return path


def house(number: int) -> dict[str, object]:
    return {"house": f"h{number}", "rooms": 3, "street": "Elm", "price": 1000 + number}


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_rows_of_a_mended_quarantine_file_land_exactly_once(
    lake: Lake, set_aside: IngestResult, tmp_path: Path, ending: str
) -> None:
    aside = set_aside.quarantine_snapshot
    path = mended(lake, tmp_path / f"mended{ending}", line_38=house(36), line_39=house(37))
    landed = land(lake, path, redrive=aside)
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (4, 2, 2)
    assert keys(lake) == sorted(f"h{n}" for n in range(38))
    assert dataset_snapshots(lake, "houses")[-1].notes["redriven_from"] == aside
    assert dataset_snapshots(lake, quarantine_dataset(HOUSES))[-1].notes["redriven_from"] == aside
    again = land(lake, path, redrive=aside)
    assert not again.appended
    assert len(keys(lake)) == 38


def test_a_file_that_is_mended_further_adds_only_what_is_new(
    lake: Lake, set_aside: IngestResult, tmp_path: Path
) -> None:
    aside, fixes = set_aside.quarantine_snapshot, {"line_38": house(36)}
    land(lake, mended(lake, tmp_path / "one.csv", **fixes), redrive=aside)
    first = lake.as_of(quarantine_dataset(HOUSES), aside)
    frame = lake.read(first).to_pandas()
    frame["row"] = [json.dumps(house(n)) for n in (36, 37, 38, 39)]
    frame.to_csv(tmp_path / "two.csv", index=False)
    landed = land(lake, tmp_path / "two.csv", redrive=aside)
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (4, 3, 1)
    assert keys(lake) == sorted(f"h{n}" for n in range(40))
    assert quarantine(lake)[-1]["reason"] == "key already in the lake"


def test_a_mended_file_in_the_source_s_own_columns_lands_too(
    lake: Lake, set_aside: IngestResult, tmp_path: Path
) -> None:
    houses(36, 4).assign(position="?", reason="?").to_csv(tmp_path / "mended.csv", index=False)
    landed = land(lake, tmp_path / "mended.csv", redrive=set_aside.quarantine_snapshot)
    assert (landed.accepted, landed.quarantined) == (4, 0)
    assert dataset_snapshots(lake, "houses")[-1].notes["redriven_from"] == set_aside.quarantine_snapshot


def test_a_quarantine_in_which_nothing_was_mended_lands_nothing(
    lake: Lake, set_aside: IngestResult, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=r"all 4 rows would be quarantined \("):
        land(lake, mended(lake, tmp_path / "same.csv"), redrive=set_aside.quarantine_snapshot)
    assert len(dataset_snapshots(lake, "houses")) == len(dataset_snapshots(lake, quarantine_dataset(HOUSES))) == 1


def test_a_quarantine_file_without_its_snapshot_is_told_what_to_name(
    lake: Lake, set_aside: IngestResult, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=r"quarantine file: to re-drive it, give the quarantine snapshot.*redrive"):
        land(lake, mended(lake, tmp_path / "mended.csv"))


@pytest.mark.parametrize("row", ["", "{", "[1]", '{"house": "h36"', '{"house": {"a": 1}, "price": 1}'])
def test_a_row_that_was_mended_badly_is_set_aside_again(
    lake: Lake, set_aside: IngestResult, tmp_path: Path, row: str
) -> None:
    frame = pd.DataFrame(
        {"position": ["line 38", "line 39"], "reason": "x", "key": None, "row": [row, json.dumps(house(37))]}
    )
    frame.to_csv(tmp_path / "mended.csv", index=False)
    landed = land(lake, tmp_path / "mended.csv", redrive=set_aside.quarantine_snapshot)
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (2, 1, 1)


# S3


def test_an_s3_prefix_lands_once(lake: Lake, tmp_path: Path) -> None:
    with s3_with_bucket("houses") as bucket:
        client = boto3.client("s3")
        for part in range(3):
            houses(part * 20, 20).to_parquet(tmp_path / "part.parquet", index=False)
            client.put_object(
                Bucket=bucket, Key=f"in/part-{part}.parquet", Body=(tmp_path / "part.parquet").read_bytes()
            )
        landed = land(lake, "s3://houses/in/")
        assert (landed.rows_in, landed.accepted, landed.appended) == (60, 60, True)
        assert not land(lake, "s3://houses/in/").appended
        assert "s3://houses/in/" in dataset_snapshots(lake, "houses")[0].source


def test_progress_is_said_in_rows_and_bytes_at_most_every_few_seconds() -> None:
    clock, said = Clock(), list[str]()
    progress = Progress("reading x.csv", total_bytes=100_000_000, say=said.append, clock=clock)
    for _ in range(20):
        clock.sleep(0.5)
        progress.add(5_000, 5_000_000)
    assert said == ["reading x.csv: 50,000 rows, 50 of 100 MB", "reading x.csv: 100,000 rows, 100 of 100 MB"]


# Times and additional tables


VISITS = IngestSchema(
    dataset="visits",
    entity="who",
    column_kinds={"who": "text", "at": "time", "pages": "number"},
    unique=("who", "at"),
    time="at",
)


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_an_entity_may_have_a_row_for_each_time_and_one_time_once(lake: Lake, tmp_path: Path, form: str) -> None:
    moments = [f"2026-01-{day:02d}T08:00:00+02:00" for day in range(1, 29)]
    frame = pd.DataFrame({"who": "a", "at": [*moments, moments[3], None], "pages": 1.0})
    if form == "parquet":
        frame["at"] = pd.to_datetime(frame["at"], utc=True).astype("datetime64[us, UTC]")
    FORMATS[form](frame, tmp_path / "visits")
    path = tmp_path / f"visits.{form}"
    source = open_source(str(path), kinds=VISITS.column_kinds)
    landed = ingest_rows(lake, VISITS, source)
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (30, 28, 2)
    found = lake.read(lake.as_of("visits"))
    assert str(found.schema.field("at").type) == "timestamp[us, tz=UTC]"
    assert found["at"].to_pylist()[0] == datetime(2026, 1, 1, 6, tzinfo=UTC)
    reasons = [row["reason"].split(":")[0] for row in lake.read(lake.as_of("visits-quarantine")).to_pylist()]
    assert reasons == ["duplicate key", "null key or time"]


def test_a_time_that_has_landed_is_known_and_a_later_one_is_not(lake: Lake) -> None:
    def visits(*days: int) -> FrameSource:
        times = [datetime(2026, 1, day, tzinfo=UTC) for day in days]
        return FrameSource(pd.DataFrame({"who": "a", "at": times, "pages": 1.0}), VISITS.column_kinds)

    ingest_rows(lake, VISITS, visits(*range(1, 20)))
    landed = ingest_rows(lake, VISITS, visits(*range(19, 31)))
    assert (landed.accepted, landed.quarantined) == (11, 1)
    assert lake.read(lake.as_of("visits-quarantine"))["reason"].to_pylist() == ["key already in the lake"]


@pytest.mark.parametrize("at", ["2026-01-01 08:00:00", "2026-01-01", "2026-02-30T08:00:00Z", "08:00", "1767254400"])
def test_58_a_time_without_a_zone_or_a_day_is_set_aside(lake: Lake, tmp_path: Path, at: str) -> None:
    lines = [f"a{n},2026-01-01T08:00:00Z,1" for n in range(20)]
    (tmp_path / "visits.csv").write_text("\n".join(["who,at,pages", *lines, f"b,{at},1"]) + "\n")
    landed = ingest_rows(lake, VISITS, open_source(str(tmp_path / "visits.csv"), kinds=VISITS.column_kinds))
    assert (landed.accepted, landed.quarantined) == (20, 1)
    (row,) = lake.read(lake.as_of("visits-quarantine")).to_pylist()
    assert row["reason"].startswith("not a time with a zone") and at in row["reason"]


def test_58_a_column_of_times_without_a_zone_is_refused(lake: Lake) -> None:
    frame = pd.DataFrame({"who": ["a"], "at": [datetime(2026, 1, 1)], "pages": [1.0]})
    with pytest.raises(Rejected, match="'at' holds times without a zone"):
        ingest_rows(lake, VISITS, FrameSource(frame, VISITS.column_kinds))
    assert lake.datasets() == ()
