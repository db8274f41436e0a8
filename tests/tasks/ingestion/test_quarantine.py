"""Quarantine: rows are exported to a file, which can be repaired and ingested again (re-drive)."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest

from blocks.common.errors import NotFound
from blocks.lake.local import LocalLake
from blocks.sources import FrameSource
from tasks.ingestion.datasets import export_quarantine
from tasks.ingestion.landing import ingest_rows
from tasks.shared.rules.model.data import DataSpec, column_kinds
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.sources import open_source

HOUSES = DataSpec(dataset="houses", entity="house", target="price", features={"street": "category"})


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLake:
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **given: None)
    lake = LocalLake(root=tmp_path / "lake")
    for first in (0, 100):
        prices = [None if n == 3 else 1.0 for n in range(40)]
        frame = pd.DataFrame(
            {"house": [f"h{first + n}" for n in range(40)], "street": 'Elm, "the" street', "price": prices}
        )
        ingest_rows(lake, HOUSES, FrameSource(frame, column_kinds(HOUSES)))
    return lake


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_one_snapshot_of_the_quarantine_comes_out_mends_and_lands(lake: LocalLake, tmp_path: Path, ending: str) -> None:
    second = lake.as_of("houses-quarantine").id
    path = tmp_path / f"mended{ending}"
    assert export_quarantine(lake, HOUSES, second, path) == 1
    if ending == ".csv":
        path.write_text(path.read_text().replace('""price"": null', '""price"": 7'))
    else:
        frame = pd.read_parquet(path)
        frame["row"] = frame["row"].str.replace('"price": null', '"price": 7')
        frame.to_parquet(path, index=False)
    source = open_source(str(path), kinds=column_kinds(HOUSES), redrive=True)
    assert ingest_rows(lake, HOUSES, source, redrive=second).accepted == 1
    assert lake.read(lake.as_of("houses")).to_pylist()[-1] == {
        "house": "h103", "street": 'Elm, "the" street', "price": 7.0, "_bucket": lake.read(lake.as_of("houses"))["_bucket"][-1].as_py()
    }  # fmt: skip


def test_nothing_is_written_over_or_made_up(lake: LocalLake, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    newest = lake.as_of("houses-quarantine").id
    with pytest.raises(Refusal, match="exists already"):
        export_quarantine(lake, HOUSES, newest, tmp_path / "there.csv")
    with pytest.raises(Refusal, match=r"\.csv or \.parquet"):
        export_quarantine(lake, HOUSES, newest, tmp_path / "x.xlsx")
    with pytest.raises(NotFound):
        export_quarantine(lake, HOUSES, "00000009-00000000", tmp_path / "x.csv")
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert not (tmp_path / "x.csv").exists()


FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "＝1", "'=1", "-5", "plain")


def test_a_spreadsheet_finds_no_formula_in_the_file_and_the_values_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **given: None)
    lake = LocalLake(root=tmp_path / "lake")
    kinds = column_kinds(HOUSES)
    good = pd.DataFrame({"house": [f"h{n}" for n in range(90)], "street": "Elm", "price": 1.0})
    bad = pd.DataFrame({"house": FORMULAS, "street": FORMULAS, "price": None})
    ingest_rows(lake, HOUSES, FrameSource(pd.concat([good, bad]), kinds))
    newest = lake.as_of("houses-quarantine").id
    export_quarantine(lake, HOUSES, newest, path := tmp_path / "mended.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [cell for row in rows for cell in row.values()]
    assert [cell for cell in cells if re.match(r"[=+\-@＝\t\r]", cell)] == ["-5"], "a number stays a number"
    path.write_text(path.read_text().replace('""price"": null', '""price"": 7'))
    ingest_rows(lake, HOUSES, open_source(str(path), kinds=kinds, redrive=True), redrive=newest)
    landed = [row for row in lake.read(lake.as_of("houses")).to_pylist() if row["price"] == 7]
    assert {row["street"] for row in landed} == set(FORMULAS)
    assert {row["house"] for row in landed} == set(FORMULAS)
