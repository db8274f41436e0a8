"""The holdout by time and by group: newer rows decide, a group is on one side, and nothing is divided in silence."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from blocks.engines.duckdb import DuckDBEngine
from blocks.lake.fake import FakeLake
from blocks.sources.frames import FrameSource
from tasks.ingestion.landing import ingest_rows
from tasks.sampling.tasks import publish_rows, split_sentence
from tasks.shared.rules.model.spec import parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.shared.rules.rows.buckets import tier_buckets
from tests.fixtures.divided_rows import BOTH, FIRST, GROUPED, TIMED, divide, frames, land, sales, spec_of
from tests.fixtures.join_cases import JOINED, table
from tests.fixtures.joined_tiers import CUSTOMERS, ROWS, filled

DAY = timedelta(days=1)


def test_by_time_the_newest_rows_decide_and_no_training_row_is_newer(tmp_path: Path) -> None:
    data = divide(land(sales()), spec_of(TIMED), tmp_path)
    parts = frames(data)
    assert data.cut_off == (FIRST + 80 * DAY).isoformat()
    assert data.trained_until == (FIRST + 79 * DAY).isoformat() == parts["train"]["sold_at"].max().isoformat()
    assert parts["holdout"]["sold_at"].min() == FIRST + 80 * DAY
    assert (data.train_rows, data.holdout_rows, data.unused_rows) == (1600, 400, 0)
    assert set(parts["train"]["house_id"]) == set(parts["holdout"]["house_id"]), "a house may be in both"


def test_rows_within_the_gap_are_in_neither_part(tmp_path: Path) -> None:
    data = divide(land(sales()), spec_of(TIMED, "{share: 0.2, gap_days: 7}"), tmp_path)
    assert data.trained_until == (FIRST + 72 * DAY).isoformat(), "more than 7 days before the cut-off"
    assert (data.train_rows, data.unused_rows, data.holdout_rows) == (73 * 20, 7 * 20, 400)
    assert frames(data)["unused"]["sold_at"].between(FIRST + 73 * DAY, FIRST + 79 * DAY).all()


def test_since_a_date_all_rows_decide(tmp_path: Path) -> None:
    spec = spec_of(TIMED, '{by: time, since: "2026-03-01T00:00:00+01:00"}')
    data = divide(land(sales()), spec, tmp_path)
    assert data.cut_off == "2026-02-28T23:00:00+00:00"
    assert frames(data)["holdout"]["sold_at"].min() == pd.Timestamp("2026-03-01", tz="UTC")


def test_rows_of_one_time_are_on_one_side_of_the_cut_off(tmp_path: Path) -> None:
    rows = sales()
    rows.loc[rows.index >= 900, "sold_at"] = FIRST + 50 * DAY  # more than half of the rows: ties
    data = divide(land(rows.drop_duplicates(["house_id", "sold_at"])), spec_of(TIMED, "0.01"), tmp_path)
    parts = frames(data)
    assert (parts["holdout"]["sold_at"] == FIRST + 50 * DAY).all()
    assert (parts["train"]["sold_at"] < FIRST + 50 * DAY).all()


def test_rows_of_one_time_only_cannot_be_divided(tmp_path: Path) -> None:
    rows = sales(days=1)
    with pytest.raises(Refusal, match=r"of 20 rows, 0 are for training.*both sides of the cut-off"):
        divide(land(rows), spec_of(TIMED), tmp_path)
    validated = TIMED.replace("  seed: 7", "  seed: 7\n  validation_share: 0.25")
    with pytest.raises(Refusal, match=r"of 20 rows, 0 are for training, 0 for validation and 20 for the holdout"):
        divide(land(rows), spec_of(validated), tmp_path)


@pytest.mark.parametrize(
    "holdout",
    ['{since: "2027-01-01T00:00:00Z"}', '{since: "2025-01-01T00:00:00Z"}', "{gap_days: 200}", "{gap_days: 3660}"],
    ids=["after all rows", "before all rows", "a gap beyond all rows", "the longest gap"],
)
def test_a_cut_off_that_leaves_a_side_empty_is_refused(tmp_path: Path, holdout: str) -> None:
    with pytest.raises(Refusal, match=r"0 (are )?for (training|the holdout).*outside its gap"):
        divide(land(sales()), spec_of(TIMED, holdout), tmp_path)


def test_all_tiers_share_one_cut_off(tmp_path: Path) -> None:
    lake, spec = land(sales(houses=200)), spec_of(TIMED, more="tiers: {development: 0.1, staging: 0.3}\n")
    small, whole = (divide(lake, spec, tmp_path, tier) for tier in ("development", "full"))
    assert small.cut_off == whole.cut_off
    assert 0 < small.train_rows < whole.train_rows
    keys = ["house_id", "sold_at"]
    assert set(map(tuple, frames(small)["holdout"][keys].to_numpy())) <= set(
        map(tuple, frames(whole)["holdout"][keys].to_numpy())
    )


def test_the_cut_off_is_that_of_the_read_and_moves_with_new_rows(tmp_path: Path) -> None:
    lake = land(sales(50))
    before = divide(lake, spec_of(TIMED), tmp_path)
    land(sales(100)[50 * 20 :], lake, "2")
    assert divide(lake, spec_of(TIMED), tmp_path).cut_off > before.cut_off
    again = divide(land(sales(50)), spec_of(TIMED), tmp_path / "elsewhere")
    assert again.model_copy(update={"folder": before.folder, "as_of": before.as_of, "reread_as_of": before.as_of}) == (
        before.model_copy(update={"digest": again.digest, "data_digest": again.data_digest})
    )


@pytest.mark.parametrize(
    "kind",
    [pa.date32(), pa.timestamp("us"), pa.timestamp("ns", tz="Asia/Tokyo"), pa.timestamp("s", tz="UTC")],
    ids=str,
)
def test_every_kind_of_time_divides_alike(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.Table.from_pandas(sales(), preserve_index=False)
    place = table.schema.get_field_index("sold_at")
    times = table["sold_at"].cast(pa.timestamp("us")) if pa.types.is_date(kind) else table["sold_at"]
    data = divide(land(table.set_column(place, "sold_at", times.cast(kind))), spec_of(TIMED), tmp_path)
    assert (data.cut_off, data.trained_until) == ((FIRST + 80 * DAY).isoformat(), (FIRST + 79 * DAY).isoformat())
    assert (data.train_rows, data.holdout_rows) == (1600, 400)


@pytest.mark.parametrize(
    ("base", "column"), [(TIMED, "sold_at"), (GROUPED, "owner"), (BOTH, "owner")], ids=["time", "group", "both"]
)
def test_a_row_without_time_or_group_is_refused_with_its_entity(tmp_path: Path, base: str, column: str) -> None:
    rows = sales()
    rows.loc[7, column] = None
    with pytest.raises(Refusal, match=rf"data set houses, column '{column}'.*no tier and no part.*h7"):
        divide(land(rows), spec_of(base), tmp_path)


def test_by_entity_beside_a_time_a_house_is_on_one_side_and_the_newest_row_is_recorded(tmp_path: Path) -> None:
    spec = spec_of(TIMED, '{by: entity, share: 0.2, reason: "new houses are asked about"}')
    data = divide(land(sales()), spec, tmp_path)
    parts = frames(data)
    assert not set(parts["train"]["house_id"]) & set(parts["holdout"]["house_id"])
    assert (data.holdout_rule, data.cut_off, data.trained_until) == ("0.2", "", (FIRST + 99 * DAY).isoformat())


@pytest.mark.parametrize("tier", ["development", "staging", "full"])
def test_by_group_an_owner_is_in_one_tier_and_on_one_side(tmp_path: Path, tier: str) -> None:
    spec = spec_of(GROUPED, more="tiers: {development: 0.2, staging: 0.5}\n")
    rows = sales(days=1, houses=400)
    parts = frames(divide(land(rows), spec, tmp_path, tier))
    assert not set(parts["train"]["owner"]) & set(parts["holdout"]["owner"])
    bound = {"development": 2_000, "staging": 5_000, "full": 10_000}[tier]
    expected = rows[tier_buckets(pa.array(rows["owner"])) < bound]
    both = pd.concat(parts.values())
    assert set(both["house_id"]) == set(expected["house_id"]), "all houses of an owner, whose buckets differ"


def test_by_group_and_time_no_group_that_decides_trains_and_what_decides_is_newer(tmp_path: Path) -> None:
    spec = spec_of(BOTH, "{share: 0.3, gap_days: 2}")
    parts = frames(divide(land(sales(houses=200)), spec, tmp_path))
    assert not set(parts["train"]["owner"]) & set(parts["holdout"]["owner"])
    assert parts["holdout"]["sold_at"].min() - parts["train"]["sold_at"].max() > 2 * DAY
    assert sum(map(len, parts.values())) == 200 * 100
    assert {"train", "holdout", "unused"} == set(parts)


@pytest.mark.parametrize(
    ("base", "kind"), [(TIMED, "time"), (GROUPED, "group"), (BOTH, "group and time")], ids=["time", "group", "both"]
)
def test_validation_rows_are_divided_as_the_holdout_is(tmp_path: Path, base: str, kind: str) -> None:
    base = base.replace("  seed: 7", "  seed: 7\n  validation_share: 0.25")
    holdout = "{share: 0.2, gap_days: 3}" if "time" in kind else "0.2"
    data = divide(land(sales(houses=200)), spec_of(base, holdout), tmp_path)
    parts = frames(data)
    train, validation, decides = (parts[part] for part in ("train", "validation", "holdout"))
    if "group" in kind:
        assert not set(train["owner"]) & set(validation["owner"])
        assert not set(validation["owner"]) & set(decides["owner"])
    if "time" in kind:
        assert validation["sold_at"].min() - train["sold_at"].max() > 3 * DAY
        assert decides["sold_at"].min() - validation["sold_at"].max() > 3 * DAY
        assert data.trained_until == validation["sold_at"].max().isoformat(), "early stopping has seen them"
    assert set(data.training_parts) == {"train", "validation"}


def test_validation_rows_by_entity_are_of_other_entities(tmp_path: Path) -> None:
    base = BOTH.replace("  time: sold_at\n", "").replace("  group: owner\n", "")
    base = base.replace("  seed: 7", "  seed: 7\n  validation_share: 0.25")
    rows = sales(days=1, houses=400)
    parts = frames(divide(land(rows), spec_of(base), tmp_path))
    assert sum(map(len, parts.values())) == 400
    assert 0.15 < len(parts["validation"]) / (len(parts["validation"]) + len(parts["train"])) < 0.35
    whole = frames(divide(land(rows), spec_of(base.replace("  validation_share: 0.25\n", "")), tmp_path))
    assert set(whole["holdout"]["house_id"]) == set(parts["holdout"]["house_id"])


def test_a_recorded_rule_divides_as_it_did_whatever_model_yaml_says_now(tmp_path: Path) -> None:
    lake = land(sales())
    then = divide(lake, spec_of(TIMED, '{by: entity, reason: "before"}'), tmp_path)
    again = divide(lake, spec_of(TIMED), tmp_path, rule=then.holdout_rule)
    assert (again.folder, again.holdout_digest) == (then.folder, then.holdout_digest)


def test_the_run_says_how_many_rows_each_part_has(tmp_path: Path) -> None:
    base = TIMED.replace("  seed: 7", "  seed: 7\n  validation_share: 0.25")
    data = divide(land(sales()), spec_of(base, "{share: 0.2, gap_days: 1}"), tmp_path)
    assert split_sentence(data) == (
        "Of 2,000 rows, 1,160 train, 400 validate, 400 decide, 40 are in neither part. Holdout: newest 0.2 of the rows, "
        "after a gap of 1 days, by sold_at (cut-off 2026-03-22T00:00:00+00:00)."
    )


def test_all_rows_are_published_whichever_part_they_are_in(tmp_path: Path) -> None:
    spec = spec_of(BOTH.replace("  target:", "  publish: sold-houses\n  target:"), "{share: 0.3, gap_days: 2}")
    lake = land(sales())
    data = divide(lake, spec, tmp_path)
    published = publish_rows(lake, DuckDBEngine(), spec, data, at=FIRST)
    assert data.unused_rows > 0
    assert published.rows == data.all_rows == 2_000
    assert "owner" in lake.read(lake.as_of("sold-houses")).column_names


@pytest.mark.parametrize("tier", ["development", "full"])
def test_a_tier_of_groups_joins_all_rows_of_its_entities_from_every_table(tmp_path: Path, tier: str) -> None:
    region = [f"r{int(who[1:]) // 3}" for who, *_ in ROWS[""]]
    lake = filled(main=table("", ROWS[""]).append_column("region", pa.array(region)))
    text = JOINED.replace("  target:", "  group: region\n  target:") + "tiers: {development: 0.3, staging: 0.4}\n"
    spec = parse_spec(text + 'holdout: {by: group, share: 0.3, reason: "regions are new"}\n', "m.yaml")
    found = pd.concat(frames(divide(lake, spec, tmp_path, tier)).values())
    expected = found["region"].drop_duplicates()
    bound = 3_000 if tier == "development" else 10_000
    kept = tier_buckets(pa.array(region)) < bound
    assert set(expected) == {each for each, there in zip(region, kept, strict=True) if there}
    assert len(found) == kept.sum()
    french = found[found["country"].notna()]["customer"]
    assert set(french) == {who for who in CUSTOMERS[::3] if who in set(found["customer"])}
    with_balance = found[found["balance"].notna()]["customer"]
    assert set(with_balance) == {who for who in CUSTOMERS[::2] if who in set(found["customer"])}


def test_ingest_quarantines_a_row_without_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.ingestion.landing.create_markdown_artifact", lambda **_: None)
    rows = sales(days=1).drop(columns=["sold_at"])
    rows.loc[[3, 4], "owner"] = [None, ""]
    schema = spec_of(GROUPED).data.ingest_schema()
    lake = FakeLake()
    landed = ingest_rows(lake, schema, FrameSource(rows, schema.column_kinds), scratch=tmp_path)
    assert (landed.accepted, landed.quarantined) == (18, 2)
    aside = lake.read(lake.as_of("houses-quarantine")).to_pylist()
    assert [row["reason"] for row in aside] == ["null group", "null group"]
    data = divide(lake, spec_of(GROUPED), tmp_path)
    assert data.all_rows == 18
