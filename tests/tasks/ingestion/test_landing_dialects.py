"""Ingestion in the dialect that `model.yaml` declares, from the declaration to the lake and back from the quarantine."""

from contextlib import closing
from pathlib import Path

import pytest

from blocks.lake.fake import FakeLake
from tasks.ingestion.datasets import export_quarantine
from tasks.ingestion.landing import ingest_rows, open_source_rows
from tasks.shared.records import IngestResult
from tasks.shared.rules.model.data import DataSpec
from tasks.shared.rules.model.parts import SourceSpec
from tests.fixtures.sources import ANYWHERE

SOURCE = SourceSpec(delimiter="semicolon", decimal="comma", thousands="space", encoding="windows-1252")
HOUSES = DataSpec(
    dataset="houses",
    entity="house",
    target="price",
    features={"rooms": "number", "street": "category"},
    source=SOURCE,
)
ROWS = [f"h{n};{n % 7},5;Königsallee;1\u00a0{n:03d},25" for n in range(40)]


@pytest.fixture(autouse=True)
def no_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send no artifacts: these tests have no Prefect server."""
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **_: None)


def land(lake: FakeLake, data: DataSpec, source: Path, folder: Path, redrive: str = "") -> IngestResult:
    with closing(open_source_rows(lake, data.ingest_schema(), str(source), "", "", redrive, folder, ANYWHERE)) as rows:
        return ingest_rows(lake, data, rows, scratch=folder, redrive=redrive)


def write(folder: Path, name: str, lines: list[str]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\r\n".join(["house;rooms;street;price", *lines, ""]).encode("cp1252"))
    return path


def test_the_declared_dialect_is_read_and_its_quarantine_is_redriven_as_ratchet_writes_it(tmp_path: Path) -> None:
    lake = FakeLake()
    source = write(tmp_path, "houses.csv", [*ROWS, "h99;1.5;Königsallee;1"])
    landed = land(lake, HOUSES, source, tmp_path / "scratch")
    assert (landed.accepted, landed.quarantined) == (40, 1)
    first = lake.read(lake.as_of("houses")).to_pylist()
    assert {row["house"]: (row["rooms"], row["street"], row["price"]) for row in first}["h3"] == (3.5, "Königsallee", 1003.25)  # fmt: skip
    export = tmp_path / "repaired.csv"
    assert export_quarantine(lake, HOUSES, landed.quarantine_snapshot, export) == 1
    repaired = '"line 42","repaired","h99","{""house"": ""h99"", ""rooms"": 1.5, ""street"": ""Elm"", ""price"": 1}"\n'
    export.write_text('"position","reason","key","row"\n' + repaired)
    again = land(lake, HOUSES, export, tmp_path / "scratch", redrive=landed.quarantine_snapshot)
    assert (again.accepted, again.quarantined) == (1, 0)


def test_a_partition_folder_that_comes_later_is_new_also_with_the_same_content(tmp_path: Path) -> None:
    columns = {"rooms": "number", "street": "category", "day": "category"}
    data = HOUSES.model_copy(update={"features": columns, "source": SOURCE.model_copy(update={"partitions": ("day",)})})
    lake, folder = FakeLake(), tmp_path / "in"
    write(folder, "day=1/houses.csv", ROWS[:20])
    assert land(lake, data, folder, tmp_path / "scratch").accepted == 20
    write(folder, "day=2/houses.csv", ROWS[20:])
    assert land(lake, data, folder, tmp_path / "scratch").accepted == 20
    assert set(lake.read(lake.as_of("houses"))["day"].to_pylist()) == {"1", "2"}
    assert not land(lake, data, folder, tmp_path / "scratch").appended
