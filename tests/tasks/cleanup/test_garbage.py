"""Garbage collection: unreferenced files are removed; the champion still predicts and a rollback still works."""

import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.cloud_cleanup.fake import FakeCloudCleanup
from blocks.common.collectable import ArtifactOwner
from blocks.records.approvals import ApprovalRequest
from blocks.records.cloud import Checkpoints, PaidEndpoint, PaidJob
from blocks.tracking.base import KEEP_TAG, KEY_TAG, PROMOTED_TAG
from tasks.cleanup.garbage import artifact_owners, remove_planned, run_cloud_actions, with_flow_run
from tasks.cleanup.rules import garbage as rules
from tasks.cleanup.rules.cloud import (
    CloudAction,
    expired_checkpoint_actions,
    idle_endpoint_actions,
    orphaned_job_actions,
)
from tasks.cleanup.rules.garbage import bytes_text, garbage_collection_markdown
from tasks.shared.rules.refusal import Refusal
from tests.fakes.environment import NOW, World, register, release
from tests.fixtures.garbage import LATER, NAME, deployed, planned


@pytest.fixture
def env(tmp_path: Path) -> World:
    return World.at(tmp_path)


def swept(env: World) -> list[str]:
    plan = planned(env)
    remove_planned(plan, planned(env), artifact_owners(env, ArtifactOwner()))
    return [each.key for each in plan.remove]


def trained(env: World, weights: dict[str, float], **tags: str) -> str:
    """Register a version of an ended run with these tags, and return its number."""
    version = register(env, weights)
    env.tracking().close_run(version.run_id, "FINISHED")
    env.tracking().tag_version(NAME, version.version, {f"ratchet.{key}": value for key, value in tags.items()})
    return version.version


def test_a_held_version_goes_with_its_run_and_model_and_what_passed_stays(env: World) -> None:
    held = trained(env, {"a": 1.0}, tier="full", verdict="hold")
    passed = trained(env, {"a": 2.0}, tier="full", verdict="pass")
    tracking = env.tracking()
    gone, stays = tracking.version(NAME, held), tracking.version(NAME, passed)
    assert gone is not None and stays is not None
    assert planned(env, NOW).remove == ()
    assert swept(env) == [f"version:{NAME}/{held}", f"run:{gone.run_id}", f"model:{gone.run_id}"]
    assert tracking.version(NAME, held) is None and tracking.version(NAME, passed) == stays
    assert [run.id for run in tracking.runs(NAME)] == [stays.run_id]
    assert planned(env).remove == ()


def test_trials_go_with_their_experiment_unless_a_person_keeps_one(env: World) -> None:
    tracking = env.tracking()
    parent = tracking.open_run(NAME, key="parent", name="experiment")
    trials = [tracking.open_run(NAME, key=f"trial {n}", name="trial", parent=parent.id) for n in range(3)]
    for run in (parent, *trials):
        tracking.close_run(run.id, "FINISHED")
    tracking.log(trials[1].id, tags={KEEP_TAG: "a baseline"})
    assert set(swept(env)) == {f"run:{trials[0].id}", f"run:{trials[2].id}"}
    assert [run.id for run in tracking.children(parent.id)] == [trials[1].id]


def test_what_an_open_request_is_about_stays(env: World) -> None:
    version = trained(env, {"a": 1.0}, tier="full", verdict="hold")
    request = ApprovalRequest("r1", NAME, env.name, version, "d", "{}", "dana", NOW, NOW, "")
    env.approvals().add_request(request)
    assert planned(env).remove == ()


def test_a_tier_that_a_run_reads_and_a_promoted_version_s_fetched_files_stay(env: World) -> None:
    for name in ("a" * 32, "b" * 32):
        (env.scratch / "tiers" / NAME / name / "train").mkdir(parents=True)
    env.tracking().open_run(NAME, key="now", name="now", tags={"ratchet.tier_digest": "a" * 64})
    version = trained(env, {"a": 1.0})
    deployed(env, version, 1)
    shutil.copytree(env.scratch / "models" / NAME / version, env.scratch / "models" / NAME / "99")
    assert set(swept(env)) == {f"tier:{NAME}/{'b' * 32}", f"fetched-model:{NAME}/99"}
    assert (env.scratch / "models" / NAME / version).is_dir()


def test_an_old_tier_that_was_used_lately_stays(env: World) -> None:
    folder = env.scratch / "tiers" / NAME / ("c" * 32)
    folder.mkdir(parents=True)
    (folder / "tier.json").touch()
    os.utime(folder / "tier.json", (LATER.timestamp(), LATER.timestamp()))
    assert planned(env).remove == ()


def test_a_registry_that_lacks_what_serves_is_not_swept(env: World) -> None:
    trained(env, {"a": 1.0})
    env.effects().record_deployment(release(env, "7", "d"))
    with pytest.raises(Refusal, match=r"'7'.*No garbage is collected"):
        planned(env)


def test_what_came_to_be_needed_after_the_plan_is_spared(env: World) -> None:
    version = trained(env, {"a": 1.0})
    plan = planned(env)
    deployed(env, version, 1)
    done = remove_planned(plan, planned(env), artifact_owners(env, ArtifactOwner()))
    assert (done.removed, done.skipped) == (0, 3)
    assert env.tracking().version(NAME, version) is not None


JOB = PaidJob("churn-1", "flow-1", "ml.m5.large", 2, NOW - timedelta(minutes=30), 3600)
ENDPOINT = PaidEndpoint("churn", "churn-2", "ml.m5.large", {"a": 3, "b": 1}, NOW - timedelta(days=3), 0.0)
OLD = Checkpoints("churn-0", 4_000_000, NOW - timedelta(days=40))


def price(use: str, kind: str) -> float | None:
    return {"training": 0.2, "hosting": 0.1}[use] if kind == "ml.m5.large" else None


def test_a_job_whose_flow_run_has_ended_is_stopped_and_what_that_saves_is_said() -> None:
    (action,) = orphaned_job_actions([JOB, replace(JOB, flow_run_id="")], lambda run: run == "flow-1", price, NOW)
    assert (action.action, action.name, action.saving_usd) == ("stop job", "churn-1", pytest.approx(0.2 * 2 * 0.5))
    assert orphaned_job_actions([JOB], lambda _run: False, price, NOW) == []
    (unpriced,) = orphaned_job_actions([replace(JOB, instance_type="ml.z1")], lambda _run: True, price, NOW)
    assert unpriced.saving_usd is None


def orphaned_transform() -> CloudAction:
    (action,) = orphaned_job_actions(
        [JOB], lambda _run: True, lambda use, _kind: {"transform": 0.4}[use], NOW, "transform"
    )
    return action


def test_a_transform_job_that_nobody_waits_for_is_stopped_at_the_price_of_transforms() -> None:
    action = orphaned_transform()
    assert (action.action, action.saving_usd) == ("stop transform", pytest.approx(0.4 * 2 * 0.5))


def test_stopping_a_transform_job_stops_no_training_job_of_its_name_and_no_other_environment_s() -> None:
    cloud = FakeCloudCleanup()
    cloud.add("local", JOB)
    cloud.add_batch_inference_job("local", JOB)
    cloud.add_batch_inference_job("production", replace(JOB, name="theirs"))
    for _ in range(2):
        run_cloud_actions(cloud, (orphaned_transform(), CloudAction("stop transform", "theirs", "")), "local", NOW)
    assert (
        cloud.batch_inference_jobs("local") == ()
        and len(cloud.batch_inference_jobs("production")) == len(cloud.training_jobs("local")) == 1
    )


def test_a_job_s_flow_run_is_known_by_its_tracked_run(env: World) -> None:
    run = env.tracking().open_run(NAME, key="k", name="n", tags={"ratchet.flow_run": "flow-9"})
    unsaid = replace(JOB, flow_run_id="", run_id=run.id)
    assert with_flow_run(env.tracking(), unsaid).flow_run_id == "flow-9"
    assert with_flow_run(env.tracking(), replace(unsaid, run_id="gone")).flow_run_id == ""
    assert with_flow_run(env.tracking(), JOB) == JOB


@pytest.mark.parametrize(
    ("what", "do", "usd"),
    [
        ("report", "report endpoint", 9.6),
        ("scale_down", "scale down endpoint", 4.8),
        ("delete", "delete endpoint", 9.6),
    ],
)
def test_an_idle_endpoint_is_treated_as_told(what: Any, do: str, usd: float) -> None:
    (action,) = idle_endpoint_actions([ENDPOINT], 24, what, price, NOW)
    assert (action.action, action.saving_usd) == (do, pytest.approx(usd)) and "churn-2 is kept" in action.reason


@pytest.mark.parametrize(
    "busy",
    [replace(ENDPOINT, requests=1.0), replace(ENDPOINT, in_service_since=NOW - timedelta(hours=23))],
    ids=["asked", "new"],
)
def test_an_endpoint_that_is_asked_or_new_is_left_alone(busy: PaidEndpoint) -> None:
    assert idle_endpoint_actions([busy], 24, "delete", price, NOW) == []


def test_an_endpoint_of_one_instance_each_is_not_scaled_down() -> None:
    assert idle_endpoint_actions([replace(ENDPOINT, instances_by_variant={"a": 1})], 24, "scale_down", price, NOW) == []


def test_checkpoints_of_the_past_expire_and_those_of_a_running_job_stay() -> None:
    assert [each.name for each in expired_checkpoint_actions([OLD], set(), 30, NOW)] == ["churn-0"]
    assert (
        expired_checkpoint_actions([OLD], {"churn-0"}, 30, NOW)
        == []
        == expired_checkpoint_actions([OLD], set(), 41, NOW)
    )
    assert (
        expired_checkpoint_actions([OLD], {"churn-0-2"}, 30, NOW) == []
        and len(expired_checkpoint_actions([OLD], {"churn-01"}, 30, NOW)) == 1
    )


def test_what_was_planned_is_ended_unless_it_changed_meanwhile() -> None:
    cloud = FakeCloudCleanup()
    busy = replace(ENDPOINT, name="busy", requests=2.0)
    cloud.add("local", JOB, ENDPOINT, replace(ENDPOINT, name="large"), busy, OLD)
    cloud.add("production", replace(JOB, name="theirs"))
    actions = (
        CloudAction("stop job", "churn-1", ""), CloudAction("stop job", "theirs", ""), CloudAction("delete endpoint", "churn", ""),
        CloudAction("delete endpoint", "busy", ""), CloudAction("scale down endpoint", "large", ""),
        CloudAction("report endpoint", "large", ""), CloudAction("remove checkpoints", "churn-0", ""),
    )  # fmt: skip
    for _ in range(2):
        run_cloud_actions(cloud, actions, "local", NOW)
    assert cloud.training_jobs("local") == () and len(cloud.training_jobs("production")) == 1
    assert {each.name: each.instance_count for each in cloud.endpoints("local", NOW)} == {"large": 2, "busy": 4}
    assert cloud.checkpoints() == ()


def test_the_report_has_bytes_reasons_and_savings(env: World) -> None:
    trained(env, {"a": 1.0})
    kept = trained(env, {"a": 2.0}, tier="full", verdict="pass")
    action = CloudAction("stop job", "churn-1", "its flow run ended", 0.2)
    page = garbage_collection_markdown(planned(env).model_copy(update={"cloud_actions": (action,)}))
    assert "| run | 1 |" in page and "it passed the evaluation on the full tier | 1 |" in page
    assert "| stop job | churn-1 | its flow run ended | 0.20 USD |" in page
    assert f"version {NAME}/{kept}" not in page


@pytest.mark.parametrize(("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")])
def test_bytes_are_told_as_people_read_them(count: float, words: str) -> None:
    assert bytes_text(int(count)) == words


def test_the_rules_and_the_registry_mean_the_same_tags() -> None:
    assert (rules.KEEP_TAG, rules.PROMOTED_TAG, KEY_TAG) == (KEEP_TAG, PROMOTED_TAG, "ratchet.key")
