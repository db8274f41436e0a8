"""Sampling: a tier has the same bytes for the same read, is part of the larger tier, and is split once by entity."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.common.errors import Corrupt
from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.base import Lake
from blocks.lake.fake import FakeLake
from tasks.shared.records import TierData
from tasks.shared.rules.model.data import TierSpec
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import holdout_buckets, tier_buckets
from tasks.shared.rules.rows.content import table_content_digest
from tasks.shared.tables import TableReads, resolve_reads
from tasks.shared.tiers import materialise
from tests.fixtures.sampled_rows import NOW, SPEC, append, ids
from tests.fixtures.spec_cases import GOOD


@pytest.fixture
def lake() -> FakeLake:
    return FakeLake()


ENGINE = DuckDBEngine()


def entities(data: TierData) -> set[str]:
    return ids(data.train) | ids(data.holdout)


def damage(lake: FakeLake, read: TableReads) -> None:
    """Flip a bit of the first file that the read needs."""
    first = read.main.snapshots[0]
    lake.corrupt_file(first, first.files[0].name, 100)


def test_the_same_read_is_found_again_and_not_written_anew(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    first = materialise(lake, ENGINE, read, SPEC, "full", tmp_path)
    times = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    used = times.pop(first.folder / "tier.json")
    damage(lake, read)  # would be found if the rows were read again
    assert materialise(lake, ENGINE, read, SPEC, "full", tmp_path) == first
    now = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert now.pop(first.folder / "tier.json") >= used  # from which garbage collection sees that it is in use
    assert now == times


def test_the_same_read_makes_the_same_rows_in_the_same_order_on_another_machine(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 5000)
    here, there = (materialise(lake, ENGINE, read, SPEC, "full", tmp_path / name) for name in ("here", "there"))
    for part in ("train", "holdout"):
        assert pq.read_table(here.folder / part).equals(pq.read_table(there.folder / part))
    assert here.model_copy(update={"folder": there.folder}) == there


@pytest.mark.parametrize(
    "change",
    [{"holdout": 0.3}, {"tiers": TierSpec(development=0.2, staging=0.3)}, {"data": SPEC.data.model_copy(update={"features": {"rooms": "number"}})}],
    ids=["holdout", "rate", "columns"],
)  # fmt: skip
def test_another_rule_makes_another_folder(lake: FakeLake, tmp_path: Path, change: dict[str, object]) -> None:
    read = append(lake, 0, 400)
    one = materialise(lake, ENGINE, read, SPEC, "development", tmp_path)
    two = materialise(lake, ENGINE, read, SPEC.model_copy(update=change), "development", tmp_path)
    assert one.folder != two.folder
    assert one.digest != two.digest


def test_no_entity_both_trains_and_decides(lake: FakeLake, tmp_path: Path) -> None:
    data = materialise(lake, ENGINE, append(lake, 0, 400), SPEC, "full", tmp_path)
    assert not ids(data.train) & ids(data.holdout)
    assert len(entities(data)) == 400
    assert (len(ids(data.train)), len(ids(data.holdout))) == (data.train_rows, data.holdout_rows)
    assert 40 <= data.holdout_rows <= 120, "about a fifth of 400"


def test_who_decides_still_decides_when_data_is_added(lake: FakeLake, tmp_path: Path) -> None:
    before = materialise(lake, ENGINE, append(lake, 0, 200), SPEC, "full", tmp_path)
    after = materialise(lake, ENGINE, append(lake, 200, 200), SPEC, "full", tmp_path)
    assert ids(before.holdout) < ids(after.holdout)
    assert ids(before.train) < ids(after.train)
    assert not ids(before.holdout) & ids(after.train)


def test_an_earlier_read_gives_the_earlier_rows_after_more_have_landed(lake: FakeLake, tmp_path: Path) -> None:
    early = append(lake, 0, 200)
    append(lake, 200, 200)
    data = materialise(lake, ENGINE, early, SPEC, "full", tmp_path)
    assert data.as_of == early.main.id
    assert entities(data) == {f"h{number}" for number in range(200)}


def test_each_tier_holds_the_one_before_it(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 1000)
    small, middle, whole = (
        materialise(lake, ENGINE, read, SPEC, tier, tmp_path) for tier in ("development", "staging", "full")
    )
    assert entities(small) < entities(middle) < entities(whole)
    assert ids(small.holdout) <= ids(whole.holdout), "a row that decides never trains, on any tier"


def test_two_tiers_of_the_same_rate_keep_their_own_names(lake: FakeLake, tmp_path: Path) -> None:
    read, spec = append(lake, 0, 200), SPEC.model_copy(update={"tiers": TierSpec(development=1.0, staging=1.0)})
    assert materialise(lake, ENGINE, read, spec, "development", tmp_path).tier == "development"
    assert materialise(lake, ENGINE, read, spec, "full", tmp_path).tier == "full"


def spec_with(holdout: float) -> ModelSpec:
    return SPEC.model_copy(update={"holdout": holdout})


def lonely(holdout: float) -> tuple[int, int]:
    """Return number and count of one house: it trains when the holdout is almost empty, else it is in the holdout."""
    wanted = holdout == 0.5
    decides = holdout_buckets(pa.array([f"h{number}" for number in range(50)])) < holdout * 10_000
    return next((at, 1) for at, decided in enumerate(decides) if decided == wanted)


@pytest.mark.parametrize("holdout", [0.0001, 0.5], ids=["nobody decides", "nobody trains"])
def test_a_tier_with_an_empty_side_is_refused_and_leaves_nothing(
    lake: FakeLake, tmp_path: Path, holdout: float
) -> None:
    read = append(lake, *lonely(holdout))
    with pytest.raises(Refusal, match=r"larger tier|tier's rate"):
        materialise(lake, ENGINE, read, spec_with(holdout), "full", tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize("holdout", [0.0001, 0.5], ids=["nobody decides", "nobody trains"])
def test_a_tier_with_an_empty_side_is_named_with_its_data_set(lake: FakeLake, tmp_path: Path, holdout: float) -> None:
    read = append(lake, *lonely(holdout))
    with pytest.raises(Refusal, match=rf"(?s)(full.*{read.main.id}|{read.main.id}.*full).*model\.yaml"):
        materialise(lake, ENGINE, read, spec_with(holdout), "full", tmp_path)


def test_a_tier_without_any_row_is_refused(lake: FakeLake, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"tiers": TierSpec(development=0.0001)})
    with pytest.raises(Refusal):
        materialise(lake, ENGINE, append(lake, 0, 5), spec, "development", tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_what_a_killed_run_left_half_written_is_never_taken_for_a_tier(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    whole = materialise(lake, ENGINE, read, SPEC, "full", tmp_path / "whole")
    left = tmp_path / "tiers" / SPEC.name / ".staged-killed"
    (left / "train").mkdir(parents=True)
    (left / "train" / "rows.parquet").write_bytes(b"PAR1 and then the machine went down")
    data = materialise(lake, ENGINE, read, SPEC, "full", tmp_path)
    assert data.folder.name == whole.folder.name
    assert pq.read_table(data.train).equals(pq.read_table(whole.train))


def test_a_tier_that_could_not_be_read_leaves_no_folder_behind(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    damage(lake, read)
    with pytest.raises(Corrupt):
        materialise(lake, ENGINE, read, SPEC, "full", tmp_path)
    assert not list(tmp_path.rglob("*"))


def test_a_tier_carries_the_digests_of_its_read_and_of_the_rows_that_decide(lake: FakeLake, tmp_path: Path) -> None:
    read = append(lake, 0, 200)
    data = materialise(lake, ENGINE, read, SPEC, "full", tmp_path)
    assert data.data_digest == read.digest
    assert data.holdout_digest == table_content_digest(pq.read_table(data.holdout))
    assert (data.tables, data.reread_as_of) == ({}, data.as_of)


def test_the_rows_hold_entity_features_and_target_and_nothing_else(lake: FakeLake, tmp_path: Path) -> None:
    data = materialise(lake, ENGINE, append(lake, 0, 200), SPEC, "full", tmp_path)
    columns = ["house_id", "rooms", "street", "garden", "price"]
    assert pq.read_schema(data.train / "rows.parquet").names == columns
    assert pq.read_schema(data.holdout / "rows.parquet").names == columns


def test_a_small_part_is_one_file_of_a_known_name(lake: FakeLake, tmp_path: Path) -> None:
    data = materialise(lake, ENGINE, append(lake, 0, 200), SPEC, "full", tmp_path)
    files = [path.relative_to(data.folder).as_posix() for path in sorted(data.folder.rglob("*.parquet"))]
    assert files == ["holdout/rows.parquet", "train/rows.parquet"]


STRATIFIED = parse_spec(GOOD + "tiers: {development: 0.1, staging: 0.3, stratify_by: street}\n", "model.yaml")


def with_streets(lake: Lake, streets: list[str | None], key: str = "streets") -> TableReads:
    """Append a house in each of these streets, and fix the as-of read."""
    ids = pa.array([f"{key}{number}" for number in range(len(streets))])
    columns = {
        "house_id": ids,
        "rooms": pa.array([1.0] * len(streets)),
        "street": pa.array(streets, pa.string()),
        "garden": pa.array([1] * len(streets), pa.int8()),
        "price": pa.array([float(number) for number in range(len(streets))]),
        "_bucket": pa.array(tier_buckets(ids), pa.int32()),
    }
    lake.append("houses", pa.table(columns), source="test", key=key, at=NOW)
    return resolve_reads(lake, SPEC.data, "")


def streets_of(data: TierData) -> list[str | None]:
    return [street for part in (data.train, data.holdout) for street in pq.read_table(part)["street"].to_pylist()]


def test_each_stratum_keeps_its_share_in_a_tier(lake: FakeLake, tmp_path: Path) -> None:
    read = with_streets(lake, ["Elm"] * 1000 + ['O\'Hara "Row"'] * 50 + [None] * 20)
    found = streets_of(materialise(lake, ENGINE, read, STRATIFIED, "development", tmp_path))
    assert 100 <= found.count("Elm") <= 102, "a bucket holds one house in ten, or two by chance"
    assert found.count('O\'Hara "Row"') in (5, 6)
    assert found.count(None) in (2, 3)


def test_stratified_tiers_are_nested_and_the_largest_is_everything(lake: FakeLake, tmp_path: Path) -> None:
    read = with_streets(lake, (["Elm"] * 9 + ["Oak"]) * 100)
    small, middle, whole = (
        materialise(lake, ENGINE, read, STRATIFIED, tier, tmp_path) for tier in ("development", "staging", "full")
    )
    assert entities(small) < entities(middle) < entities(whole)
    assert len(entities(whole)) == 1000
    assert ids(small.holdout) <= ids(whole.holdout)


def test_when_data_is_added_few_change_place_in_a_stratified_tier(lake: FakeLake, tmp_path: Path) -> None:
    before = materialise(lake, ENGINE, with_streets(lake, ["Elm", "Oak"] * 1000), STRATIFIED, "staging", tmp_path)
    after = materialise(lake, ENGINE, with_streets(lake, ["Elm", "Oak"] * 1000, "new"), STRATIFIED, "staging", tmp_path)
    left = entities(before) - entities(after)
    assert len(left) < 0.1 * len(entities(before)), "those at the edge of their stratum, and nobody else"
    assert not ids(after.train) & ids(before.holdout), "who decides never changes"


def test_a_stratum_that_is_nearly_a_key_is_refused(lake: FakeLake, tmp_path: Path) -> None:
    read = with_streets(lake, [f"street {number}" for number in range(300)])
    with pytest.raises(Refusal, match=r"tiers\.stratify_by: 'street' has 300 values"):
        materialise(lake, ENGINE, read, STRATIFIED, "development", tmp_path)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_column_that_came_later_is_null_in_a_tier_without_newer_rows(lake: FakeLake, tmp_path: Path) -> None:
    old = lake.read(append(lake, 0, 400).main).drop_columns(["street"])
    fresh = FakeLake()
    fresh.append("houses", old, source="test", key="old", at=NOW)
    newer = next(number for number in range(400, 999) if tier_buckets(pa.array([f"h{number}"]))[0] >= 1_000)
    row = lake.read(append(lake, newer, 1).main).slice(400)
    fresh.append("houses", row, source="test", key="new", at=NOW)
    data = materialise(fresh, ENGINE, resolve_reads(fresh, SPEC.data, ""), SPEC, "development", tmp_path)
    assert set(streets_of(data)) == {None}
