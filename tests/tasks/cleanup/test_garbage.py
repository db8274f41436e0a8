"""A sweep removes what nobody needs, and after it the champion still answers and the way back still works."""

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from blocks.approvals.base import ApprovalRequest
from blocks.cloud.base import Checkpoints, PaidEndpoint, PaidJob
from blocks.cloud.fake import FakeCloud
from blocks.common.collectable import Keeper
from blocks.endpoints.base import Golden, Release
from blocks.tracking.base import CHAMPION, KEEP, KEY, PROMOTED
from runtime.digests import folder_digest
from tasks.cleanup.garbage import end, keepers, make_plan, remove, with_flow_run
from tasks.cleanup.rules.garbage import roots
from tasks.cleanup.rules.garbage.cloud import Action, expired, idle, orphans
from tasks.cleanup.rules.garbage.report import size_words, sweep_markdown
from tasks.release.deployment import golden_json
from tasks.shared.records import SweepPlan
from tasks.shared.rules.refusal import Refusal
from tests.tasks.shared.test_champion import NOW, SPEC, World, artifact_of, register, release

GRACE = timedelta(days=30)
LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""When everything that the tests have just made is older than the grace period."""
NAME = SPEC.name


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.at(tmp_path)


def planned(world: World, now: datetime = LATER) -> SweepPlan:
    return make_plan(world, keepers(world, Keeper()), [NAME], GRACE, now)


def swept(world: World) -> list[str]:
    plan = planned(world)
    remove(plan, planned(world), keepers(world, Keeper()))
    return [each.key for each in plan.remove]


def trained(world: World, weights: dict[str, float], **tags: str) -> str:
    """Register a version as an ended run made it, with these tags, and return its number."""
    version = register(world, weights)
    world.tracking().close_run(version.run_id, "FINISHED")
    world.tracking().tag_version(NAME, version.version, {f"ratchet.{key}": value for key, value in tags.items()})
    return version.version


def deployed(world: World, version: str, minutes: int) -> None:
    """Put a version into service and write it down, as `deploy` does."""
    artifact = artifact_of(world, version)
    digest, golden = folder_digest(artifact), Golden('{"instances": [1]}', "[0.75]")
    world.endpoint().switch(Release(NAME, version, artifact, digest, golden))
    line = release(world, version, digest, minutes=minutes)
    world.effects().record_deployment(line)
    world.effects().intend(f"deploy:{line.request_id}", golden_json(golden), NOW)
    world.tracking().set_alias(NAME, CHAMPION, version)


def test_a_held_version_goes_with_its_run_and_model_and_what_passed_stays(world: World) -> None:
    held = trained(world, {"a": 1.0}, tier="production", verdict="hold")
    passed = trained(world, {"a": 2.0}, tier="production", verdict="pass")
    tracking = world.tracking()
    gone, stays = tracking.version(NAME, held), tracking.version(NAME, passed)
    assert gone is not None and stays is not None
    assert planned(world, NOW).remove == ()
    assert swept(world) == [f"version:{NAME}/{held}", f"run:{gone.run_id}", f"model:{gone.run_id}"]
    assert tracking.version(NAME, held) is None and tracking.version(NAME, passed) == stays
    assert [run.id for run in tracking.runs(NAME)] == [stays.run_id]
    assert planned(world).remove == ()


def test_trials_go_with_their_experiment_unless_a_person_keeps_one(world: World) -> None:
    tracking = world.tracking()
    parent = tracking.open_run(NAME, key="parent", name="experiment")
    trials = [tracking.open_run(NAME, key=f"trial {n}", name="trial", parent=parent.id) for n in range(3)]
    for run in (parent, *trials):
        tracking.close_run(run.id, "FINISHED")
    tracking.log(trials[1].id, tags={KEEP: "a baseline"})
    assert set(swept(world)) == {f"run:{trials[0].id}", f"run:{trials[2].id}"}
    assert [run.id for run in tracking.children(parent.id)] == [trials[1].id]


def test_what_an_open_request_is_about_stays(world: World) -> None:
    version = trained(world, {"a": 1.0}, tier="production", verdict="hold")
    request = ApprovalRequest("r1", NAME, world.name, version, "d", "{}", "dana", NOW, NOW, "")
    world.approvals().request_approval(request)
    assert planned(world).remove == ()


def test_a_tier_that_a_run_reads_and_a_promoted_version_s_fetched_files_stay(world: World) -> None:
    for name in ("a" * 32, "b" * 32):
        (world.scratch / "tiers" / NAME / name / "train").mkdir(parents=True)
    world.tracking().open_run(NAME, key="now", name="now", tags={"ratchet.tier_digest": "a" * 64})
    version = trained(world, {"a": 1.0})
    deployed(world, version, 1)
    shutil.copytree(world.scratch / "models" / NAME / version, world.scratch / "models" / NAME / "99")
    assert set(swept(world)) == {f"tier:{NAME}/{'b' * 32}", f"fetched:{NAME}/99"}
    assert (world.scratch / "models" / NAME / version).is_dir()


def test_an_old_tier_that_was_used_lately_stays(world: World) -> None:
    folder = world.scratch / "tiers" / NAME / ("c" * 32)
    folder.mkdir(parents=True)
    (folder / "tier.json").touch()
    os.utime(folder / "tier.json", (LATER.timestamp(), LATER.timestamp()))
    assert planned(world).remove == ()


def test_a_registry_that_lacks_what_serves_is_not_swept(world: World) -> None:
    trained(world, {"a": 1.0})
    world.effects().record_deployment(release(world, "7", "d"))
    with pytest.raises(Refusal, match=r"'7'.*not swept"):
        planned(world)


def test_what_came_to_be_needed_after_the_plan_is_spared(world: World) -> None:
    version = trained(world, {"a": 1.0})
    plan = planned(world)
    deployed(world, version, 1)
    done = remove(plan, planned(world), keepers(world, Keeper()))
    assert (done.removed, done.spared) == (0, 3)
    assert world.tracking().version(NAME, version) is not None


JOB = PaidJob("churn-1", "flow-1", "ml.m5.large", 2, NOW - timedelta(minutes=30), 3600)
ENDPOINT = PaidEndpoint("churn", "churn-2", "ml.m5.large", {"a": 3, "b": 1}, NOW - timedelta(days=3), 0.0)
OLD = Checkpoints("churn-0", 4_000_000, NOW - timedelta(days=40))


def price(use: str, kind: str) -> float | None:
    return {"training": 0.2, "hosting": 0.1}[use] if kind == "ml.m5.large" else None


def test_a_job_whose_flow_run_has_ended_is_stopped_and_what_that_saves_is_said() -> None:
    (action,) = orphans([JOB, replace(JOB, flow_run="")], lambda run: run == "flow-1", price, NOW)
    assert (action.do, action.name, action.usd) == ("stop job", "churn-1", pytest.approx(0.2 * 2 * 0.5))
    assert orphans([JOB], lambda _run: False, price, NOW) == []
    (unpriced,) = orphans([replace(JOB, instance_type="ml.z1")], lambda _run: True, price, NOW)
    assert unpriced.usd is None


def test_a_transform_job_that_nobody_waits_for_is_stopped_and_no_training_job_of_that_name() -> None:
    (action,) = orphans([JOB], lambda _run: True, lambda use, _kind: {"transform": 0.4}[use], NOW, "transform")
    assert (action.do, action.usd) == ("stop transform", pytest.approx(0.4 * 2 * 0.5))
    cloud = FakeCloud()
    cloud.put("local", JOB)
    cloud.put_transform("local", JOB)
    cloud.put_transform("production", replace(JOB, name="theirs"))
    for _ in range(2):
        end(cloud, (action, Action("stop transform", "theirs", "")), "local", NOW)
    assert cloud.transforms("local") == () and len(cloud.transforms("production")) == len(cloud.jobs("local")) == 1


def test_a_job_s_flow_run_is_known_by_its_tracked_run(world: World) -> None:
    run = world.tracking().open_run(NAME, key="k", name="n", tags={"ratchet.flow_run": "flow-9"})
    unsaid = replace(JOB, flow_run="", run=run.id)
    assert with_flow_run(world.tracking(), unsaid).flow_run == "flow-9"
    assert with_flow_run(world.tracking(), replace(unsaid, run="gone")).flow_run == ""
    assert with_flow_run(world.tracking(), JOB) == JOB


@pytest.mark.parametrize(
    ("what", "do", "usd"),
    [
        ("report", "report endpoint", 9.6),
        ("scale_down", "scale down endpoint", 4.8),
        ("delete", "delete endpoint", 9.6),
    ],
)
def test_an_idle_endpoint_is_treated_as_told(what: Any, do: str, usd: float) -> None:
    (action,) = idle([ENDPOINT], 24, what, price, NOW)
    assert (action.do, action.usd) == (do, pytest.approx(usd)) and "churn-2 stays" in action.reason


@pytest.mark.parametrize(
    "busy", [replace(ENDPOINT, requests=1.0), replace(ENDPOINT, since=NOW - timedelta(hours=23))], ids=["asked", "new"]
)
def test_an_endpoint_that_is_asked_or_new_is_left_alone(busy: PaidEndpoint) -> None:
    assert idle([busy], 24, "delete", price, NOW) == []


def test_an_endpoint_of_one_instance_each_is_not_scaled_down() -> None:
    assert idle([replace(ENDPOINT, variants={"a": 1})], 24, "scale_down", price, NOW) == []


def test_checkpoints_of_the_past_expire_and_those_of_a_running_job_stay() -> None:
    assert [each.name for each in expired([OLD], set(), 30, NOW)] == ["churn-0"]
    assert expired([OLD], {"churn-0"}, 30, NOW) == [] == expired([OLD], set(), 41, NOW)
    assert expired([OLD], {"churn-0-2"}, 30, NOW) == [] and len(expired([OLD], {"churn-01"}, 30, NOW)) == 1


def test_what_was_planned_is_ended_unless_it_changed_meanwhile() -> None:
    cloud = FakeCloud()
    busy = replace(ENDPOINT, name="busy", requests=2.0)
    cloud.put("local", JOB, ENDPOINT, replace(ENDPOINT, name="large"), busy, OLD)
    cloud.put("production", replace(JOB, name="theirs"))
    actions = (
        Action("stop job", "churn-1", ""), Action("stop job", "theirs", ""), Action("delete endpoint", "churn", ""),
        Action("delete endpoint", "busy", ""), Action("scale down endpoint", "large", ""),
        Action("report endpoint", "large", ""), Action("remove checkpoints", "churn-0", ""),
    )  # fmt: skip
    for _ in range(2):
        end(cloud, actions, "local", NOW)
    assert cloud.jobs("local") == () and len(cloud.jobs("production")) == 1
    assert {each.name: each.count for each in cloud.endpoints("local", NOW)} == {"large": 2, "busy": 4}
    assert cloud.checkpoints() == ()


def test_the_report_has_bytes_reasons_and_savings(world: World) -> None:
    trained(world, {"a": 1.0})
    kept = trained(world, {"a": 2.0}, tier="production", verdict="pass")
    page = sweep_markdown(
        planned(world).remove, planned(world).kept, [Action("stop job", "churn-1", "its flow run ended", 0.2)],
        heading="What a sweep removes",
    )  # fmt: skip
    assert "| run | 1 |" in page and "it passed on the production tier | 1 |" in page
    assert "| stop job | churn-1 | its flow run ended | 0.20 USD |" in page
    assert f"version {NAME}/{kept}" not in page


@pytest.mark.parametrize(("count", "words"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e12, "2.5 TB")])
def test_bytes_are_told_as_people_read_them(count: float, words: str) -> None:
    assert size_words(int(count)) == words


def test_the_rules_and_the_registry_mean_the_same_tags() -> None:
    assert (roots.KEEP, roots.PROMOTED, KEY) == (KEEP, PROMOTED, "ratchet.key")
