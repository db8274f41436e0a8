"""Ingestion: valid rows are appended once and counted, invalid rows are quarantined with their reason."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pydantic import PrivateAttr

from blocks.common.errors import Unavailable
from blocks.lake.base import Lake, Snapshot
from blocks.lake.fake import FakeLake
from blocks.lake.local import LocalLake
from blocks.sources import FrameSource
from tasks.ingestion.datasets import dataset_snapshots
from tasks.ingestion.landing import ingest_rows
from tasks.ingestion.rules.acceptance import PartitionedRows
from tasks.shared.rules.model.data import DataSpec, column_kinds
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.sources import open_source

HOUSES = DataSpec(dataset="houses", entity="house", target="price", features={"rooms": "number", "street": "category"})
ASIDE = "houses-quarantine"


class StoppedHalfway(FakeLake):
    """A lake that fails once at the data set itself, after the quarantine was written."""

    _block_type_slug = "ratchet-lake-stopped-halfway"
    _stops: int = PrivateAttr(default=1)

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
        """Append as the fake does, with `fail_appends` set for the data set alone."""
        if dataset == HOUSES.dataset and self._stops:
            self._stops, self.fail_appends = 0, 1
        return super().append(
            dataset, rows, source=source, key=key, at=at, notes=notes, expected_parent=expected_parent
        )


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Collect the artifacts here instead of on a Prefect server."""
    artifacts: list[dict[str, str]] = []
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **given: artifacts.append(given))
    return artifacts


@pytest.fixture(params=["fake", "local"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return FakeLake() if request.param == "fake" else LocalLake(root=tmp_path / "lake")


def houses(first: int, count: int, **changes: Mapping[int, object]) -> FrameSource:
    """Return rows of houses numbered from `first`; `changes` are new values by column and place."""
    numbers = range(first, first + count)
    columns: dict[str, list[Any]] = {
        "house": [f"h{number}" for number in numbers],
        "rooms": [float(number % 7) for number in numbers],
        "street": ["Elm" for _ in numbers],
        "price": [1000.0 + number for number in numbers],
    }
    for column, values in changes.items():
        for place, value in values.items():
            columns[column][place] = value
    return FrameSource(pd.DataFrame(columns), column_kinds(HOUSES))


def keys(lake: Lake, dataset: str = "houses") -> list[str]:
    column = "house" if dataset == "houses" else "key"
    return sorted(lake.read(lake.as_of(dataset), columns=[column])[column].to_pylist())


def reasons(lake: Lake) -> Sequence[str]:
    return lake.read(lake.as_of(ASIDE), columns=["reason"])["reason"].to_pylist()


def test_every_row_that_comes_in_is_accepted_or_quarantined(lake: Lake) -> None:
    landed = ingest_rows(lake, HOUSES, houses(0, 40, price={3: None}, house={5: None}))
    assert (landed.rows_in, landed.accepted, landed.quarantined, landed.appended) == (40, 38, 2, True)
    assert lake.as_of("houses").rows == 38
    assert lake.as_of(ASIDE).rows == 2
    assert sorted(reasons(lake)) == ["null entity key", "null target"]


def test_the_snapshot_says_how_many_came_in_and_where_the_others_are(lake: Lake) -> None:
    landed = ingest_rows(lake, HOUSES, houses(0, 40, price={3: None}))
    (snapshot,), (aside,) = dataset_snapshots(lake, "houses"), dataset_snapshots(lake, ASIDE)
    assert landed.snapshot == snapshot.id
    assert landed.quarantine_snapshot == aside.id == snapshot.notes["quarantine_snapshot"]
    assert (snapshot.notes["rows_in"], snapshot.notes["quarantined"]) == ("40", "1")
    assert aside.key == snapshot.key, "both halves of a source bear its key"


def test_the_same_rows_again_add_nothing_and_say_so(lake: Lake) -> None:
    first = ingest_rows(lake, HOUSES, houses(0, 40, price={3: None}))
    again = ingest_rows(lake, HOUSES, houses(0, 40, price={3: None}))
    assert not again.appended
    assert again.summary == f"Nothing was added: the lake holds these rows already, up to snapshot {first.snapshot}."
    counts = {"appended": False, "summary": again.summary}
    assert again == first.model_copy(update=counts), "the counts are those of the first time"
    assert (len(dataset_snapshots(lake, "houses")), len(dataset_snapshots(lake, ASIDE))) == (1, 1)


def test_the_summary_says_how_many_rows_were_set_aside_and_why(lake: Lake) -> None:
    landed = ingest_rows(lake, HOUSES, houses(0, 200, price={3: None, 5: None}, house={7: None}))
    assert landed.summary == (
        "197 of 200 accepted, 3 set aside: 2 null target, 1 null entity key "
        f"(quarantine snapshot {landed.quarantine_snapshot})."
    )
    assert ingest_rows(lake, HOUSES, houses(200, 40)).summary == "40 of 40 accepted."


def test_placeholders_of_missing_values_are_pointed_out_and_land_as_they_are(
    lake: Lake, shown: list[dict[str, str]]
) -> None:
    landed = ingest_rows(lake, HOUSES, houses(0, 40, street={1: "NA", 2: "NA"}, rooms={4: -999.0}))
    said = "Possibly missing values: '-999' in 1 row of rooms, 'NA' in 2 rows of street."
    assert landed.summary.startswith(f"40 of 40 accepted. {said}")
    assert "Possibly missing values" in shown[0]["markdown"]
    streets = lake.read(lake.as_of("houses"), columns=["street"])["street"].to_pylist()
    assert streets.count("NA") == 2


def test_rows_without_a_mistake_make_no_quarantine(lake: Lake) -> None:
    landed = ingest_rows(lake, HOUSES, houses(0, 40))
    assert (landed.quarantined, landed.quarantine_snapshot) == (0, "")
    assert lake.datasets() == ("houses",)


def test_entities_that_are_in_the_lake_are_quarantined(lake: Lake) -> None:
    ingest_rows(lake, HOUSES, houses(0, 40))
    landed = ingest_rows(lake, HOUSES, houses(38, 40))  # h38 and h39 once more
    assert (landed.accepted, landed.quarantined) == (38, 2)
    assert keys(lake, ASIDE) == ["h38", "h39"]
    assert set(reasons(lake)) == {"key already in the lake"}
    assert len(set(keys(lake))) == len(keys(lake)) == 78


def test_rows_that_the_source_could_not_read_are_counted_and_kept(lake: Lake, tmp_path: Path) -> None:
    lines = ["house,rooms,street,price", *(f"h{n},3,Elm,{1000 + n}" for n in range(20)), "h20,3,Elm", "h21,?,Elm,7"]
    (tmp_path / "houses.csv").write_text("\n".join(lines) + "\n")
    rows = open_source(str(tmp_path / "houses.csv"), kinds=column_kinds(HOUSES))
    landed = ingest_rows(lake, HOUSES, rows)
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (22, 20, 2)
    aside = lake.read(lake.as_of(ASIDE), columns=["position", "row"]).to_pylist()
    assert sorted(row["position"] for row in aside) == ["line 22", "line 23"]
    assert any("h21" in row["row"] for row in aside)


def test_new_broken_rows_beside_known_rows_are_not_lost(lake: Lake, tmp_path: Path) -> None:
    known = ["house,rooms,street,price", *(f"h{n},3,Elm,{1000 + n}" for n in range(20))]
    for name, lines in (("first.csv", known), ("second.csv", [*known, "h20,3,Elm"])):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    kinds = column_kinds(HOUSES)
    ingest_rows(lake, HOUSES, open_source(str(tmp_path / "first.csv"), kinds=kinds))
    second = open_source(str(tmp_path / "second.csv"), kinds=kinds)
    try:
        landed = ingest_rows(lake, HOUSES, second)
    except Refusal as told:  # all other rows are there already, so it may be refused, but with this count
        assert "1 unreadable" in str(told)
    else:
        assert (landed.rows_in, landed.quarantined) == (21, 1)


def test_a_source_stopped_between_quarantine_and_data_lands_once_when_it_is_run_again() -> None:
    lake = StoppedHalfway()
    rows = houses(0, 40, price={3: None})
    with pytest.raises(Unavailable):
        ingest_rows(lake, HOUSES, rows)
    assert lake.datasets() == (ASIDE,), "stopped after the quarantine, before the rows"

    landed = ingest_rows(lake, HOUSES, rows)
    assert landed.appended
    assert (len(dataset_snapshots(lake, "houses")), len(dataset_snapshots(lake, ASIDE))) == (1, 1)
    assert (landed.rows_in, landed.accepted, landed.quarantined) == (40, 39, 1)
    assert landed.quarantine_snapshot == dataset_snapshots(lake, ASIDE)[0].id


def test_a_lake_that_fails_at_once_leaves_nothing_and_the_next_try_lands() -> None:
    lake = FakeLake(fail_appends=1)
    with pytest.raises(Unavailable):
        ingest_rows(lake, HOUSES, houses(0, 40, price={3: None}))
    assert lake.datasets() == ()
    assert ingest_rows(lake, HOUSES, houses(0, 40, price={3: None})).accepted == 39


def test_a_source_of_wrong_rows_is_refused_and_leaves_nothing(lake: Lake) -> None:
    with pytest.raises(Refusal):
        ingest_rows(lake, HOUSES, houses(0, 10, price=dict.fromkeys(range(9))))
    assert lake.datasets() == ()


def test_the_artifact_shows_counts_and_the_rows_that_were_set_aside(lake: Lake, shown: list[dict[str, str]]) -> None:
    landed = ingest_rows(lake, HOUSES, houses(0, 40, price={3: None}))
    (artifact,) = shown
    assert "40 rows in = 39 accepted + 1 quarantined" in artifact["markdown"]
    assert landed.snapshot in artifact["markdown"]
    assert "| row 4 | h3 | null target |" in artifact["markdown"]


def test_a_data_set_of_the_longest_name_can_set_rows_aside(lake: Lake) -> None:
    longest = DataSpec.model_validate({**HOUSES.model_dump(), "dataset": "h" * 51})
    assert ingest_rows(lake, longest, houses(0, 40, price={3: None})).quarantined == 1


def test_a_data_set_in_which_nothing_has_landed_has_no_history(lake: Lake) -> None:
    assert dataset_snapshots(lake, "houses") == ()


@pytest.mark.parametrize(("classes", "kind"), [((), "number"), (("No", "Yes"), "category")], ids=["value", "classes"])
def test_the_target_is_read_as_the_task_needs_it(classes: tuple[str, ...], kind: str) -> None:
    kinds = column_kinds(HOUSES.model_copy(update={"classes": classes}))
    assert list(kinds) == ["house", "rooms", "street", "price"]
    assert (kinds["house"], kinds["price"]) == ("key", kind)


def test_the_request_id_of_a_label_lands_as_text_and_may_be_blank(tmp_path: Path) -> None:
    named = HOUSES.model_copy(update={"request_id": "ticket"})
    file = tmp_path / "houses.csv"
    file.write_text("house,rooms,street,price,ticket\nh1,3,Elm,10,order-17\nh2,4,Oak,20,\n")
    lake = FakeLake()
    with closing(open_source(str(file), kinds=named.ingest_schema().column_kinds)) as source:
        assert ingest_rows(lake, named, source, scratch=tmp_path).accepted == 2
    assert sorted(lake.read(lake.as_of("houses"), columns=["ticket"])["ticket"].to_pylist(), key=str) == [
        None,
        "order-17",
    ]
    assert "ticket" not in named.row_columns, "the model does not read it"


@pytest.mark.parametrize(("wrong", "said"), [(2, "38 of 40 accepted, 2 set aside"), (8, "8 of 40 rows would be")])
def test_na_in_a_column_of_numbers_is_pointed_out_whether_it_is_set_aside_or_refused(
    lake: Lake, tmp_path: Path, wrong: int, said: str
) -> None:
    lines = [f"h{n},{'NA' if n < wrong else n % 7},Elm,{1000 + n}" for n in range(40)]
    (tmp_path / "houses.csv").write_text("\n".join(["house,rooms,street,price", *lines, ""]))
    source = open_source(str(tmp_path / "houses.csv"), kinds=column_kinds(HOUSES), scratch=tmp_path)
    try:
        text = ingest_rows(lake, HOUSES, source).summary
    except Refusal as refused:
        text = str(refused)
    assert said in text
    assert f"Possibly missing values: 'NA' in {wrong} rows of rooms." in text


def test_rows_that_landed_stay_landed_whatever_becomes_of_their_report(
    lake: Lake, tmp_path: Path, shown: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> Any:
        raise MemoryError("the examples do not fit")

    monkeypatch.setattr(PartitionedRows, "quarantined_examples", no_memory)
    first = ingest_rows(lake, HOUSES, houses(0, 40, price={5: None}), scratch=tmp_path / "scratch")
    assert (first.accepted, first.quarantined, first.appended) == (39, 1, True)
    assert "h5" in shown[0]["markdown"], "the examples are remembered from the append"
    monkeypatch.setattr("tasks.ingestion.landing._remembered_rows", lambda rows, examples: iter(rows))
    second = ingest_rows(lake, HOUSES, houses(100, 40, price={5: None}), scratch=tmp_path / "scratch")
    assert (second.accepted, second.appended) == (39, True)
    assert "Examples could not be read: MemoryError: the examples do not fit" in shown[1]["markdown"]

    def down(**_: Any) -> None:
        raise ConnectionError("the Prefect server does not answer")

    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", down)
    assert ingest_rows(lake, HOUSES, houses(200, 40), scratch=tmp_path / "scratch").accepted == 40
    assert len(lake.as_of(HOUSES.dataset).snapshots) == 3


@pytest.mark.heavy  # 2,000 columns
def test_600_rows_of_2000_columns_with_one_wrong_row_land_with_their_example(
    tmp_path: Path, shown: list[dict[str, str]]
) -> None:
    names = [f"c{number}" for number in range(2_000)]
    file = tmp_path / "wide.csv"
    rows = [",".join([str(n), *(f"{n}.{place}" for place in range(2_000)), "" if n == 5 else "1"]) for n in range(600)]
    file.write_text("\n".join([",".join(["id", *names, "y"]), *rows]) + "\n")
    spec = DataSpec(dataset="wide", entity="id", target="y", features=dict.fromkeys(names, "number"))
    source = open_source(str(file), kinds=column_kinds(spec))
    landed = ingest_rows(LocalLake(root=tmp_path / "lake"), spec, source, scratch=tmp_path / "scratch")
    assert (landed.accepted, landed.quarantined) == (599, 1)
    assert "| 5 |" in shown[0]["markdown"]
