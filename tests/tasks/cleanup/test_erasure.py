"""An erasure takes one entity's rows out of everything that the models of that entity keep, and leaves a record."""

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blocks.approvals.chain import find_first_fault, record_from_entry
from blocks.common.collectable import ArtifactOwner
from blocks.common.errors import Rejected
from blocks.lake.base import ErasedRows, Lake
from blocks.records.approvals import ErasureRecord
from tasks.approval.rules.actions import Actor
from tasks.cleanup.erasure import ErasureResult, erase_entity
from tasks.cleanup.garbage import artifact_owners
from tasks.evidence.reproduction import VerifiedPack, restore_data
from tasks.monitoring.current import ingest_log_segments
from tasks.monitoring.reference import load_reference
from tasks.shared.rules.refusal import Refusal
from tasks.shared.tables import resolve_reads
from tasks.shared.tiers import content_digest, materialise
from tasks.shared.trust import latest_signed_time
from tests.fakes.environment import NOW, World
from tests.fixtures.monitored import MODEL, UNTIL, ask, houses, serving

SPEC = MODEL.spec
DATASETS = ("houses", "houses-inference", "houses-predictions", "houses-quarantine")


@pytest.fixture
def env(tmp_path: Path) -> World:
    """Return an environment in which the house h7 is in the data, predictions, quarantine, log and tiers."""
    env = serving(tmp_path, rows=400)
    at, lake = UNTIL - timedelta(days=1), env.lake()
    predictions = pa.table({"house_id": ["h7", "h8"], "prediction": ["Yes", "No"]})
    lake.append("houses-predictions", predictions, source="test", key="p", at=at)
    aside = pa.table(
        {
            "position": ["rows.csv line 2", "rows.csv line 3", "rows.csv line 4", "rows.csv line 5"],
            "reason": ["duplicate key", "unreadable", "unreadable", "null target"],
            "key": ["h7", None, None, "h70"],
            "row": ['{"house_id": "h7"}', '{"text": "3,h7,Elm"}', '{"text": "3,h77,Elm"}', '{"house_id": "h70"}'],
        }
    )
    lake.append("houses-quarantine", aside, source="test", key="q", at=at)
    ask(env, houses(3).assign(house_id=["h7", "h9", "h7"]))
    materialise(lake, env.engine(), resolve_reads(lake, SPEC.data, ""), SPEC, "full", env.scratch)
    return env


def erased(env: World, key: str = "h7", **more: object) -> ErasureResult:
    arguments = {"actor": Actor("dora@example.com", authenticated=True), "reason": "request 17", "now": NOW} | more
    owners = artifact_owners(env, ArtifactOwner())
    return erase_entity(
        env,
        [SPEC],
        key,
        owners,
        lambda spec: ingest_log_segments(env.endpoint(), env.lake(), env.tracking(), spec),
        **arguments,
    )


def test_no_data_set_log_quarantine_or_tier_holds_the_entity_afterwards(env: World) -> None:
    before = {name: env.lake().as_of(name) for name in ("houses", "houses-predictions", "houses-quarantine")}
    done = erased(env)
    rows = {each.dataset: each.rows for each in done.changes}
    assert rows == {"houses": 1, "houses-inference": 2, "houses-predictions": 1, "houses-quarantine": 2}
    for dataset in DATASETS:
        text = env.lake().read(env.lake().as_of(dataset)).to_pandas().to_csv()
        assert "h7," not in text and '"h7"' not in text, dataset
    assert [*env.scratch.glob("tiers/*/*")] == []
    assert {name: env.lake().as_of(name).rows for name in before} == {
        "houses": 399, "houses-predictions": 1, "houses-quarantine": 2,
    }  # fmt: skip
    assert "3,h77,Elm" in env.lake().read(env.lake().as_of("houses-quarantine"))["row"][0].as_py()


def test_who_asked_and_which_digests_changed_is_signed_and_the_key_is_not(env: World) -> None:
    before = env.lake().as_of("houses").digest
    erased(env)
    links = env.approvals().chain_entries()
    assert find_first_fault(links, env.signing.chain_trust().keys) is None
    records = [record_from_entry(link) for link in links if link.kind == "erasure"]
    asked, done = records
    assert isinstance(asked, ErasureRecord) and isinstance(done, ErasureRecord)
    assert (asked.status, asked.changes, done.status) == ("requested", (), "done")
    assert (done.requested_by, done.reason) == ("dora@example.com", "request 17")
    assert ("houses", 1, before, env.lake().as_of("houses").digest) in done.changes
    assert not any("h7" in link.body for link in links)


def test_a_dry_run_counts_and_changes_nothing(env: World) -> None:
    before = {name: env.lake().as_of(name).digest for name in env.lake().datasets()}
    counted = erased(env, dry_run=True)
    assert {each.dataset: each.rows for each in counted.changes} == {
        "houses": 1, "houses-predictions": 1, "houses-quarantine": 2,
    }  # fmt: skip
    assert {name: env.lake().as_of(name).digest for name in env.lake().datasets()} == before
    assert "erasure" not in {link.kind for link in env.approvals().chain_entries()}
    assert len([*env.scratch.glob("tiers/*/*")]) == 1


def test_a_table_that_could_not_be_published_is_left_to_a_person(env: World, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = env.lake()
    erase = type(lake).erase

    def without_table(self: Lake, dataset: str, *given: object, **named: object) -> ErasedRows:
        problem = "OSError: no space left" if dataset == "houses" else ""
        return replace(erase(self, dataset, *given, **named), problem=problem)  # type: ignore[arg-type]

    monkeypatch.setattr(type(lake), "erase", without_table)
    (said,) = [each for each in erased(env).left if "Delta table" in each]
    assert "Delta table of houses was not published anew (OSError: no space left)" in said
    assert "erase again, or run maintenance" in said


def test_a_second_erasure_finds_nothing_more(env: World) -> None:
    erased(env)
    assert sum(each.rows for each in erased(env).changes) == 0
    assert sum(each.rows for each in erased(env, key="nobody").changes) == 0


@pytest.mark.parametrize(("key", "rows"), [("1000.0", 3), ("1000", 3), ("1E+05", 1)])
def test_keys_that_an_earlier_release_stored_as_written_are_erased_and_in_no_record(
    tmp_path: Path, key: str, rows: int
) -> None:
    env = World.at(tmp_path)
    old = pa.table({"house_id": ["1000.0", "1000.00", "1000", "1E+05", "1000.5", "10000"]})
    env.lake().append("houses", old, source="test", key="o", at=UNTIL - timedelta(days=2))
    assert sum(each.rows for each in erased(env, key).changes) == rows
    left = env.lake().read(env.lake().as_of("houses"))["house_id"].to_pylist()
    gone = {"1E+05"} if key == "1E+05" else {"1000.0", "1000.00", "1000"}
    assert {*left} == {*old["house_id"].to_pylist()} - gone
    records = [link.body for link in env.approvals().chain_entries()]
    assert len(records) == 2
    assert not any(form in body for body in records for form in ("1000.0", '"1000"', "1E+05"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"actor": Actor("")}, "needs a name"),
        ({"key": " "}, "key is empty"),
        ({"reason": "as h7 asked"}, "contains the key"),
        ({"key": "17.0"}, "contains the key"),
        ({"key": "17.0", "reason": "as 17.00 asked"}, "contains the key"),
        ({"key": "1E+05", "reason": "as 1E+05 asked"}, "contains the key"),
    ],
)
def test_an_erasure_without_a_name_or_with_the_key_in_its_record_is_refused(
    env: World, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refusal, match=said):
        erased(env, **wrong)
    assert env.lake().as_of("houses").rows == 400


def test_nothing_is_erased_where_nobody_can_sign_it(env: World) -> None:
    env.signing = env.signing.model_copy(update={"decisions_key": "", "records_key": ""})
    with pytest.raises(Rejected):
        erased(env)
    assert env.lake().as_of("houses").rows == 400


def test_the_key_of_a_worker_signs_what_was_erased_and_stops_no_clock_of_decisions(env: World) -> None:
    latest = latest_signed_time(env.approvals().chain_entries())
    env.signing = env.signing.model_copy(update={"decisions_key": ""})
    erased(env, now=NOW + timedelta(days=900))
    links = env.approvals().chain_entries()
    assert find_first_fault(links, env.signing.chain_trust().keys) is None
    assert [link.kind for link in links[-2:]] == ["erasure", "erasure"]
    assert latest_signed_time(links) == latest, "else a worker with a wrong clock would stop all decisions"


def test_a_version_trained_on_erased_rows_cannot_be_reproduced_and_says_why(env: World, tmp_path: Path) -> None:
    lake = env.lake()
    reads = resolve_reads(lake, SPEC.data, "")
    data = materialise(lake, env.engine(), reads, SPEC, "full", env.scratch)
    recorded = {
        "query": {"as_of": data.reread_as_of, "tier": "full"},
        "data_digest": data.data_digest,
        "train_digest": content_digest(data.train),
        "holdout_digest": data.holdout_digest,
        "holdout": data.holdout_rule,
    }
    pack = VerifiedPack(tmp_path / "pack")
    pack.folder.mkdir()
    (pack.folder / "data.json").write_text(json.dumps(recorded))
    assert restore_data(env, pack, MODEL, tmp_path / "before").train_rows == data.train_rows
    erased(env)
    with pytest.raises(Refusal, match="1 row on 2026-11-26 12:00 UTC of houses"):
        restore_data(env, pack, MODEL, tmp_path / "after")


def test_tiers_that_are_drawn_afterwards_are_new_ones(env: World) -> None:
    lake = env.lake()
    old = materialise(lake, env.engine(), resolve_reads(lake, SPEC.data, ""), SPEC, "full", env.scratch)
    erased(env)
    new = materialise(lake, env.engine(), resolve_reads(lake, SPEC.data, ""), SPEC, "full", env.scratch)
    assert new.digest != old.digest
    assert new.train_rows + new.holdout_rows == old.train_rows + old.holdout_rows - 1
    assert "h7" not in pq.read_table(new.train)["house_id"].to_pylist()
    assert "h7" not in pq.read_table(new.holdout)["house_id"].to_pylist()


def test_monitoring_goes_on_with_the_rows_that_are_left(env: World) -> None:
    before = load_reference(env, MODEL, "1").counts["rooms"].rows
    erased(env)
    assert load_reference(env, MODEL, "1").counts["rooms"].rows == before - 1
