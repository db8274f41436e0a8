"""A tier is the same bytes for the same read, nested in the next, and split once by entity."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.digests import file_digest
from blocks.errors import Corrupt, Unavailable
from blocks.lake.base import AsOf, Lake
from blocks.lake.fake import FakeLake
from tasks.logic.buckets import tier_buckets
from tasks.logic.model_spec import ModelSpec, Tiers, parse_spec
from tasks.logic.refusal import Refusal
from tasks.logic.tiers import is_holdout
from tasks.records import TierData
from tasks.sample import materialise
from tests.tasks.logic.model_spec_cases import GOOD

SPEC = parse_spec(GOOD, "model.yaml").model_copy(update={"tiers": Tiers(development=0.1, staging=0.3)})
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def append(lake: Lake, first: int, count: int) -> AsOf:
    """Land so many houses, numbered from `first`, and fix the read."""
    ids = pa.array([f"h{number}" for number in range(first, first + count)])
    columns = {
        "house_id": ids,
        "rooms": pa.array([float(number % 7) for number in range(count)]),
        "street": pa.array(["Elm"] * count),
        "garden": pa.array([1] * count, pa.int8()),
        "price": pa.array([1000.0 + number for number in range(count)]),
        "_bucket": pa.array(tier_buckets(ids), pa.int32()),
    }
    lake.append("houses", pa.table(columns), source="test", key=f"from {first}", at=NOW)
    return lake.as_of("houses")


def ids(folder: Path) -> set[str]:
    return set(pq.read_table(folder / "rows.parquet", columns=["house_id"])["house_id"].to_pylist())


def entities(data: TierData) -> set[str]:
    return ids(data.train) | ids(data.holdout)


@pytest.fixture
def lake() -> FakeLake:
    return FakeLake()


def test_the_same_read_is_found_again_and_not_written_anew(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    first = materialise(lake, read, SPEC, "production", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    lake.fail_reads = 1  # would be raised if the rows were read once more
    assert materialise(lake, read, SPEC, "production", tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == times


def test_the_same_read_makes_the_same_bytes_on_another_machine(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    here, there = (materialise(lake, read, SPEC, "production", tmp_path / name) for name in ("here", "there"))
    for part in ("train", "holdout"):
        assert file_digest(here.folder / part / "rows.parquet") == file_digest(there.folder / part / "rows.parquet")
    assert here.model_copy(update={"folder": there.folder}) == there


@pytest.mark.parametrize(
    "change",
    [{"holdout": 0.3}, {"tiers": Tiers(development=0.2, staging=0.3)}, {"data": SPEC.data.model_copy(update={"features": {"rooms": "number"}})}],
    ids=["holdout", "rate", "columns"],
)  # fmt: skip
def test_another_rule_makes_another_folder(lake: FakeLake, tmp_path: Path, change: dict[str, object]) -> None:
    read = append(lake, 0, 400)
    one = materialise(lake, read, SPEC, "development", tmp_path)
    two = materialise(lake, read, SPEC.model_copy(update=change), "development", tmp_path)
    assert one.folder != two.folder
    assert one.digest != two.digest


def test_no_entity_both_trains_and_decides(lake: FakeLake, tmp_path: Path) -> None:
    data = materialise(lake, append(lake, 0, 400), SPEC, "production", tmp_path)
    assert not ids(data.train) & ids(data.holdout)
    assert len(entities(data)) == 400
    assert (len(ids(data.train)), len(ids(data.holdout))) == (data.train_rows, data.holdout_rows)
    assert 40 <= data.holdout_rows <= 120, "about a fifth of 400"


def test_who_decides_still_decides_when_data_is_added(lake: FakeLake, tmp_path: Path) -> None:
    before = materialise(lake, append(lake, 0, 200), SPEC, "production", tmp_path)
    after = materialise(lake, append(lake, 200, 200), SPEC, "production", tmp_path)
    assert ids(before.holdout) < ids(after.holdout)
    assert ids(before.train) < ids(after.train)
    assert not ids(before.holdout) & ids(after.train)


def test_an_earlier_read_gives_the_earlier_rows_after_more_have_landed(lake: FakeLake, tmp_path: Path) -> None:
    early = append(lake, 0, 200)
    append(lake, 200, 200)
    data = materialise(lake, early, SPEC, "production", tmp_path)
    assert data.as_of == early.id
    assert entities(data) == {f"h{number}" for number in range(200)}


def test_each_tier_holds_the_one_before_it(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 1000)
    small, middle, whole = (
        materialise(lake, read, SPEC, tier, tmp_path) for tier in ("development", "staging", "production")
    )
    assert entities(small) < entities(middle) < entities(whole)
    assert ids(small.holdout) <= ids(whole.holdout), "a row that decides never trains, on any tier"


def test_two_tiers_of_the_same_rate_keep_their_own_names(lake: FakeLake, tmp_path: Path) -> None:
    read, spec = append(lake, 0, 200), SPEC.model_copy(update={"tiers": Tiers(development=1.0, staging=1.0)})
    assert materialise(lake, read, spec, "development", tmp_path).tier == "development"
    assert materialise(lake, read, spec, "production", tmp_path).tier == "production"


def spec_with(holdout: float) -> ModelSpec:
    return SPEC.model_copy(update={"holdout": holdout})


def lonely(holdout: float) -> tuple[int, int]:
    """Return number and count of one house: it trains when the holdout is next to nothing, else it decides."""
    wanted = holdout == 0.5
    decides = is_holdout(pa.array([f"h{number}" for number in range(50)]), holdout)
    return next((at, 1) for at, decided in enumerate(decides) if decided == wanted)


@pytest.mark.parametrize("holdout", [0.0001, 0.5], ids=["nobody decides", "nobody trains"])
def test_a_tier_with_an_empty_side_is_refused_and_leaves_nothing(
    lake: FakeLake, tmp_path: Path, holdout: float
) -> None:
    read = append(lake, *lonely(holdout))
    with pytest.raises(Refusal, match=r"larger tier|tier's rate"):
        materialise(lake, read, spec_with(holdout), "production", tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("holdout", [0.0001, 0.5], ids=["nobody decides", "nobody trains"])
def test_a_tier_with_an_empty_side_is_named_with_its_data_set(lake: FakeLake, tmp_path: Path, holdout: float) -> None:
    read = append(lake, *lonely(holdout))
    with pytest.raises(Refusal, match=rf"(?s)(production.*{read.id}|{read.id}.*production).*model\.yaml"):
        materialise(lake, read, spec_with(holdout), "production", tmp_path)


def test_a_tier_without_any_row_is_refused(lake: FakeLake, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"tiers": Tiers(development=0.0001)})
    with pytest.raises(Refusal):
        materialise(lake, append(lake, 0, 5), spec, "development", tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_what_a_killed_run_left_half_written_is_never_taken_for_a_tier(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    whole = materialise(lake, read, SPEC, "production", tmp_path / "whole")
    left = tmp_path / "tiers" / SPEC.name / ".staged-killed"
    (left / "train").mkdir(parents=True)
    (left / "train" / "rows.parquet").write_bytes(b"PAR1 and then the machine went down")
    data = materialise(lake, read, SPEC, "production", tmp_path)
    assert data.folder.name == whole.folder.name
    assert file_digest(data.train / "rows.parquet") == file_digest(whole.train / "rows.parquet")


def test_a_tier_that_could_not_be_read_leaves_no_folder_behind(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    lake.fail_reads = 1
    with pytest.raises(Unavailable):
        materialise(lake, read, SPEC, "production", tmp_path)
    lake.damage(read.snapshots[0], read.snapshots[0].files[0].name, 100)
    with pytest.raises(Corrupt):
        materialise(lake, read, SPEC, "production", tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_tier_carries_the_digests_of_its_read_and_of_the_rows_that_decide(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    data = materialise(lake, read, SPEC, "production", tmp_path)
    assert data.data_digest == read.digest
    assert data.holdout_digest == file_digest(data.holdout / "rows.parquet")


def test_the_rows_hold_entity_features_and_target_and_nothing_else(lake: FakeLake, tmp_path: Path) -> None:
    data = materialise(lake, append(lake, 0, 200), SPEC, "production", tmp_path)
    columns = ["house_id", "rooms", "street", "garden", "price"]
    assert pq.read_schema(data.train / "rows.parquet").names == columns
    assert pq.read_schema(data.holdout / "rows.parquet").names == columns
