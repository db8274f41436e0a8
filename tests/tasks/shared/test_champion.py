"""The champion: the version that is deployed according to the ledger; only its approved files are loaded.

`EnvironmentReader` is an environment in memory, over the fakes beside the adapters; the tests of other tasks use it.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from blocks.common.errors import NotFound
from blocks.engines.duckdb import DuckDBEngine
from blocks.tracking.fake import MODEL_FILE
from runtime.digests import folder_digest
from tasks.shared.champion import champion_version, comparable_since, refuse_changed_forms, verified_champion_files
from tasks.shared.rules.model.holdout import HoldoutRule
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, SPEC, World, artifact_of, register, release


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


def test_no_version_serves_before_the_first_release(env: World) -> None:
    assert champion_version(env, SPEC.name) == ""


def test_the_version_that_serves_is_the_last_that_was_released_well(env: World) -> None:
    release(env, "1", "a")
    release(env, "2", "b", minutes=1)
    release(env, "3", "c", "failed", minutes=2)
    assert champion_version(env, SPEC.name) == "2"


def test_what_another_environment_serves_does_not_count(env: World) -> None:
    release(env, "1", "a")
    env.effects().record_deployment(replace(release(env, "2", "b"), id="there", environment="aws", version="9"))
    assert champion_version(env, SPEC.name) == "2"


def test_the_champions_files_are_those_that_were_approved(env: World) -> None:
    version = register(env, {"rooms": 1.0}).version
    release(env, version, folder_digest(artifact_of(env, version)))
    files = verified_champion_files(env, SPEC.name, version)
    assert json.loads((files / MODEL_FILE).read_text()) == {"rooms": 1.0}


@pytest.mark.parametrize("fetched", [True, False], ids=["on this machine", "in the registry"])
def test_a_champion_whose_files_have_changed_is_refused(env: World, tmp_path: Path, fetched: bool) -> None:
    version = register(env, {"rooms": 1.0})
    release(env, version.version, folder_digest(tmp_path / "runs" / version.run_id / "model"))
    changed = artifact_of(env, version.version) if fetched else tmp_path / "runs" / version.run_id / "model"
    (changed / MODEL_FILE).write_text('{"rooms": -1.0}')
    with pytest.raises(Refusal, match=r"(?s)price version 1.*not those that were approved.*roll back"):
        verified_champion_files(env, SPEC.name, version.version)


def test_values_in_changed_forms_are_not_predicted_by_a_version_that_does_not_know_them(env: World) -> None:
    version = register(env, {"rooms": 1.0}).version
    refuse_changed_forms(env, SPEC.name, version, ())
    with pytest.raises(Refusal, match=r"(?s)price version 1.*'street'.*Retrain"):
        refuse_changed_forms(env, SPEC.name, version, {"street"})


def test_a_champion_with_one_more_file_is_refused(env: World) -> None:
    version = register(env, {"rooms": 1.0}).version
    release(env, version, folder_digest(artifact_of(env, version)))
    (artifact_of(env, version) / "code.py").write_text("print('I run when the model is loaded')")
    with pytest.raises(Refusal, match="not those that were approved"):
        verified_champion_files(env, SPEC.name, version)


def test_a_champion_that_the_registry_has_lost_is_not_found(env: World) -> None:
    release(env, "7", "a")
    with pytest.raises(NotFound, match="7"):
        verified_champion_files(env, SPEC.name, "7")


def test_a_champion_of_the_same_holdout_rule_is_compared_on_all_rows(env: World) -> None:
    version = register(env, {"rooms": 1.0}).version
    release(env, version, "m")
    assert comparable_since(env, SPEC, version, "0.2") is None


def test_a_champion_of_another_holdout_rule_may_have_seen_the_rows_that_decide(env: World) -> None:
    version = register(env, {"rooms": 1.0}, holdout=0.1).version
    release(env, version, "m")
    with pytest.raises(Refusal, match=r"(?s)version 1.*another holdout rule.*0\.1.*now 0\.2"):
        comparable_since(env, SPEC, version, "0.2")


def test_a_champion_that_says_nothing_of_its_holdout_is_refused(env: World) -> None:
    tracking: Any = env.tracking()
    run = tracking.open_run(SPEC.name, key="by hand", name="by hand")
    tracking.log_model(run.id, {"rooms": 1.0})
    tracking.register(SPEC.name, run.id, key="by hand", tags={})
    release(env, "1", "m")
    for edited in ({}, {"ratchet.holdout": "0.2", "ratchet.trained_until": "2020-01-01T00:00:00+00:00"}):
        env.tracking().tag_version(SPEC.name, "1", edited)
        with pytest.raises(Refusal, match="(?s)no holdout rule.*retrain"):
            comparable_since(env, SPEC, "1", "0.2")
        with pytest.raises(Refusal, match="unknown until when"):
            comparable_since(env, SPEC, "1", BY_TIME)


def test_a_champion_that_is_not_in_the_registry_is_refused_with_what_to_do(env: World) -> None:
    with pytest.raises(Refusal, match=r"(?s)not in the registry.*'9'.*roll back"):
        comparable_since(env, SPEC, "9", "0.2")


BY_TIME = HoldoutRule("time", 0.2, gap_days=2.0, time="sold_at").text


def champion_by_time(env: World, rule: str, **tags: str) -> None:
    """Register version 1 with this holdout rule and these tags."""
    tracking: Any = env.tracking()
    run = tracking.open_run(SPEC.name, key="1", name="test")
    tracking.log_model(run.id, {"rooms": 1.0})
    tracking.register(SPEC.name, run.id, key="1", tags={"ratchet.holdout": rule, **tags})
    release(env, "1", "m")


@pytest.mark.parametrize(
    ("tag", "value"),
    [("holdout", "0.2"), ("trained_until", "2020-01-01T00:00:00+00:00"), ("cut_off", "2020-01-01T00:00:00+00:00"),
     ("commit", "--output=/tmp/x"), ("snapshot", "00000009-ffffffff"), ("tier", "development"), ("data_digest", "e" * 64)],
)  # fmt: skip
def test_a_tag_of_the_champion_that_somebody_has_edited_is_refused(env: World, tag: str, value: str) -> None:
    champion_by_time(env, BY_TIME, **{"ratchet.trained_until": "2026-03-01T00:00:00+00:00", "ratchet.commit": "c" * 40})
    env.tracking().tag_version(SPEC.name, "1", {f"ratchet.{tag}": value})
    with pytest.raises(Refusal, match=rf"(?s)version 1, tag ratchet\.{tag}.*otherwise.*restore the tag"):
        comparable_since(env, SPEC, "1", BY_TIME)


def test_a_version_that_nobody_approved_has_no_facts(env: World) -> None:
    register(env, {"rooms": 1.0})
    with pytest.raises(Refusal, match="no approved evidence"):
        comparable_since(env, SPEC, "1", "0.2")


@pytest.mark.parametrize(
    ("rule", "since"),
    [
        pytest.param(BY_TIME, "2026-03-03", id="same rule"),
        pytest.param(HoldoutRule("time", 0.1, gap_days=5.0, time="sold_at").text, "2026-03-06", id="a longer gap"),
        pytest.param(HoldoutRule("group_and_time", 0.3, time="sold_at", group="shop").text, "2026-03-03", id="by group, too"),
    ],
)  # fmt: skip
def test_by_time_a_champion_is_compared_on_rows_newer_than_its_training_and_the_longer_gap(
    env: World, rule: str, since: str
) -> None:
    champion_by_time(env, rule, **{"ratchet.trained_until": "2026-03-01T00:00:00+00:00"})
    assert comparable_since(env, SPEC, "1", BY_TIME) == datetime.fromisoformat(since).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("0.2", id="of an earlier release, by entity"),
        pytest.param(HoldoutRule("time", 0.2, time="listed_at").text, id="by another time"),
    ],
)
def test_what_bounds_no_champion_is_bounded_by_the_rows_of_its_snapshot(env: World, rule: str) -> None:
    times = pa.array([datetime(2026, 5, day, tzinfo=UTC) for day in (1, 9, 4)], pa.timestamp("us", tz="UTC"))
    rows = pa.table({"sold_at": times, "_bucket": pa.array([1, 2, 3], pa.int32())})
    env._adapters[env.engine_adapter] = DuckDBEngine()
    snapshot = env.lake().append(SPEC.data.dataset, rows, source="test", key="1", at=NOW)
    champion_by_time(
        env, rule, **{"ratchet.snapshot": snapshot.id, "ratchet.trained_until": "2026-01-01T00:00:00+00:00"}
    )
    assert comparable_since(env, SPEC, "1", BY_TIME) == datetime(2026, 5, 11, tzinfo=UTC)


def test_a_champion_whose_training_cannot_be_bounded_is_refused(env: World) -> None:
    champion_by_time(env, "0.2", **{"ratchet.snapshot": "gone"})
    with pytest.raises(Refusal, match=r"(?s)version 1.*unknown until when.*set holdout back"):
        comparable_since(env, SPEC, "1", BY_TIME)
