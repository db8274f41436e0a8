"""Quarantine: rows are exported to a file, which can be repaired and ingested again (re-drive)."""

from pathlib import Path

import pandas as pd
import pytest

from blocks.common.errors import NotFound
from blocks.lake.local import LocalLake
from blocks.sources import FrameSource, open_source
from tasks.ingestion.datasets import export_quarantine
from tasks.ingestion.landing import ingest_rows
from tasks.shared.rules.model.data import DataSpec, column_kinds
from tasks.shared.rules.refusal import Refusal

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
