"""Ingestion of a model's tables: each follows its own rules (key and time once, times with a zone); then they join."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Rejected
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from blocks.sources import FrameSource
from tasks.ingestion.landing import ingest_rows
from tasks.shared.records import IngestResult
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import materialise
from tests.fixtures.join_cases import SCHEMAS, at, joined_spec
from tests.fixtures.sources import open_source

SPEC = joined_spec().model_copy(update={"holdout": 0.3})
MAIN = "customer,asked_at,depot,weight,late\n"


@pytest.fixture(autouse=True)
def no_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send no artifacts: these tests have no Prefect server."""
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **_: None)


def land(lake: FakeLake, folder: Path, name: str, text: str) -> IngestResult:
    """Ingest a CSV file as the table of that name."""
    file = folder / f"{name or 'main'}.csv"
    file.write_text(text)
    landing = SPEC.data.ingest_schema(name)
    return ingest_rows(lake, landing, open_source(str(file), kinds=landing.column_kinds), scratch=folder / "scratch")


def rows(count: int) -> str:
    return "".join(f"c{number},2026-01-01T0{hour}:00:00Z,north,1.5,No\n" for number in range(count) for hour in (3, 9))


def test_an_entity_lands_once_for_each_time(tmp_path: Path) -> None:
    lake = FakeLake()
    first = land(lake, tmp_path, "", MAIN + rows(20))
    assert (first.accepted, first.quarantined) == (40, 0)
    assert lake.read(lake.as_of("parcels")).schema.field("asked_at").type == pa.timestamp("us", tz="UTC")
    more = "".join(f"c{number},2026-01-02T03:00:00Z,north,1.5,No\n" for number in range(20))
    again = land(lake, tmp_path, "", MAIN + more + "c1,2026-01-01T03:00:00Z,north,1.5,No\n")
    assert (again.accepted, again.quarantined) == (20, 1)
    (row,) = lake.read(lake.as_of("parcels-quarantine")).to_pylist()
    assert row["reason"].startswith("key already in the lake")


def test_the_same_time_written_in_two_zones_is_one_time(tmp_path: Path) -> None:
    lake = FakeLake()
    landed = land(lake, tmp_path, "", MAIN + rows(20) + "c1,2026-01-01T04:00:00+01:00,north,1.0,No\n")
    aside = lake.read(lake.as_of("parcels-quarantine")).to_pylist()
    assert (landed.accepted, [row["reason"].split(":")[0] for row in aside]) == (40, ["duplicate key"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("2026-01-01T03:00:00", "not a time with a zone"),
        ("2026-02-30T03:00:00Z", "not a time with a zone"),
        ("yesterday", "not a time with a zone"),
        ("", "null key or time"),
    ],
)
def test_what_is_no_time_with_a_zone_is_set_aside_by_name(value: str, reason: str, tmp_path: Path) -> None:
    lake = FakeLake()
    landed = land(lake, tmp_path, "", MAIN + rows(20) + f"c1,{value},north,1.0,No\n")
    (row,) = lake.read(lake.as_of("parcels-quarantine")).to_pylist()
    assert (landed.accepted, row["position"]) == (40, "line 42")
    assert row["reason"].startswith(reason)


def test_tables_that_were_ingested_join(tmp_path: Path) -> None:
    lake = FakeLake()
    land(lake, tmp_path, "", MAIN + rows(40))
    seen = "".join(f"north,2026-01-01 0{hour}:00:00+00:00,{hour}.5\n" for hour in range(8))
    assert land(lake, tmp_path, "weather", "place,seen_at,rain\n" + seen).accepted == 8
    land(lake, tmp_path, "accounts", 'customer_id,valid_from,balance,"seg""ment"\nc1,2026-01-01T02:00:00Z,7,gold\n')
    land(lake, tmp_path, "people", "who,country\n" + "".join(f"c{number},FR\n" for number in range(5)))
    data = materialise(lake, DuckDBEngine(), resolve_reads(lake, SPEC.data, ""), SPEC, "full", tmp_path)
    found = pd.concat([pq.read_table(part).to_pandas() for part in (data.train, data.holdout)])
    (three, nine) = found[found["customer"] == "c1"].sort_values("asked_at").to_dict("records")
    assert (three["rain"], nine["rain"], three["balance"], three["country"]) == (3.5, 7.5, 7.0, "FR")


def test_late_rows_and_late_news_reach_later_reads_and_never_earlier_ones(tmp_path: Path) -> None:
    """What docs/ingest.md advises for changing values: each state with the time from which it was known."""
    lake = FakeLake()
    land(lake, tmp_path, "", MAIN + rows(40))
    head = 'customer_id,valid_from,balance,"seg""ment"\n'
    land(lake, tmp_path, "accounts", f"{head}c1,2026-01-01T02:00:00Z,7,gold\n")
    land(lake, tmp_path, "weather", "place,seen_at,rain\nnorth,2026-01-01T00:00:00Z,1\n")
    land(lake, tmp_path, "people", "who,country\nc1,FR\n")
    then = resolve_reads(lake, SPEC.data, "")
    before = materialise(lake, DuckDBEngine(), then, SPEC, "full", tmp_path / "before")
    assert land(lake, tmp_path, "", MAIN + "c1,2026-01-01T01:00:00Z,north,9,Yes\n").accepted == 1
    assert land(lake, tmp_path, "accounts", f"{head}c1,2026-01-01T05:00:00Z,8,gold\n").accepted == 1
    now = materialise(lake, DuckDBEngine(), resolve_reads(lake, SPEC.data, ""), SPEC, "full", tmp_path / "now")
    again = materialise(lake, DuckDBEngine(), then, SPEC, "full", tmp_path / "again")
    assert again.model_copy(update={"folder": before.folder}) == before
    found = pd.concat([pq.read_table(part).to_pandas() for part in (now.train, now.holdout)])
    of_one = found[found["customer"] == "c1"].sort_values("asked_at")
    assert of_one["weight"].tolist() == [9.0, 1.5, 1.5], "the late row, in its place in time"
    assert of_one["balance"].fillna(0).tolist() == [0, 7, 8], "each row with what was known at its time"


def test_a_frame_of_times_without_a_zone_is_no_frame_of_times() -> None:
    landing = SPEC.data.ingest_schema("weather")
    frame = pd.DataFrame({"place": ["north"] * 2, "seen_at": [at(1), at(2)], "rain": [1.0, 2.0]})
    table = FrameSource(frame, landing.column_kinds).read_table()
    assert table.table.schema.field("seen_at").type == SCHEMAS["weather"].field("seen_at").type
    naive = FrameSource(frame.assign(seen_at=frame["seen_at"].dt.tz_localize(None)), landing.column_kinds)
    with pytest.raises(Rejected, match="'seen_at' holds times without a zone"):
        naive.read_table()
