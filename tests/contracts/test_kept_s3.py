"""Collectable artifacts of the SageMaker adapters in S3: listed, measured, removed once; rollback targets are kept."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blocks.common.collectable import ArtifactOwner
from blocks.common.errors import NotFound, Rejected
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob
from local.sagemaker.faults import Fault
from tasks.cleanup.rules.garbage import plan_removal, protected_model_keys
from tests.fixtures.batch_inference import a_job, parts, quiet, sagemaker_transform
from tests.fixtures.local_aws import SageMakerLab, sagemaker_endpoint, sagemaker_trainer, tiny_release

GRACE = timedelta(days=30)
NUMBERS = itertools.count()
LATER = datetime(2100, 1, 1, tzinfo=UTC)
"""A time when everything that the tests have just made is older than the grace period."""
SLOW = "import os, time\ntime.sleep({})\nopen(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('made')\n"


def swept(keeper: ArtifactOwner, names: list[str], roots: dict[str, str] | None = None) -> list[str]:
    """Remove what garbage collection would remove at `LATER`, and return the keys."""
    gone = plan_removal(keeper.collectables(names), roots or {}, GRACE, LATER).remove
    for key in gone:
        assert keeper.size_bytes(key) >= 0
        keeper.delete_collectables(key)
        keeper.delete_collectables(key)
    return list(gone)


def stored(desk: SageMakerLab, prefix: str) -> list[str]:
    return [each["Key"] for each in desk.s3.list_objects_v2(Bucket=desk.bucket, Prefix=prefix).get("Contents", ())]


class Line:
    """A line of the ledger: this version is or was deployed."""

    status = "serving"

    def __init__(self, version: str) -> None:
        self.version = version


def unique(desk: SageMakerLab, name: str) -> str:
    return f"{name}-{desk.bucket[-8:]}-{next(NUMBERS)}"


def test_a_release_is_listed_with_its_bytes_and_the_live_one_is_held(desk: SageMakerLab, tmp_path: Path) -> None:
    endpoint, name = sagemaker_endpoint(desk), unique(desk, "churn")
    for version in ("1", "2"):
        endpoint.switch(tiny_release(tmp_path, version, name))
    first, second = endpoint.collectables([name, "never-released"])
    assert (first.key, first.keep_reason) == (f"release:{name}/1", "")
    assert (second.key, second.keep_reason) == (f"release:{name}/2", "it is live")
    assert first.last_used <= second.last_used <= datetime.now(UTC) + timedelta(seconds=5)
    assert endpoint.size_bytes(first.key) > len('{"requests"')
    with pytest.raises(Rejected, match="is live"):
        endpoint.delete_collectables(second.key)
    endpoint.undeploy(name)


def test_a_removed_release_takes_its_names_on_sagemaker_along_and_no_others(desk: SageMakerLab, tmp_path: Path) -> None:
    endpoint, name = sagemaker_endpoint(desk), unique(desk, "churn")
    for version in ("1", "1-2", "2"):
        endpoint.switch(tiny_release(tmp_path, "1", name) if version == "1" else
                        replace(tiny_release(tmp_path, "2", name), version=version))  # fmt: skip

    def configs() -> set[str]:
        found = desk.sagemaker.list_endpoint_configs(NameContains=f"{name}-")["EndpointConfigs"]
        return {each["EndpointConfigName"].removeprefix(f"{name}-").rpartition("-")[0] for each in found}

    assert configs() == {"1", "1-2", "2"}
    assert swept(endpoint, [name], {f"release:{name}/1-2": "a test"}) == [f"release:{name}/1"]
    assert configs() == {"1-2", "2"}
    assert len(desk.sagemaker.list_models(NameContains=f"{name}-")["Models"]) == 2
    with pytest.raises(NotFound):
        endpoint.rollback(name, "1")
    assert endpoint.rollback(name, "1-2").version == "1-2"
    endpoint.undeploy(name)


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["serve", "serve", "copy", "withdraw", "back"]), min_size=1, max_size=6), st.data())
def test_whatever_was_released_every_version_that_served_can_be_restored_after_a_sweep(
    desk: SageMakerLab, tmp_path: Path, steps: list[str], data: st.DataObject
) -> None:
    """Releases that were only copied (a killed switch) are removed; the versions in the ledger can be restored."""
    endpoint, name, served = sagemaker_endpoint(desk), unique(desk, "any"), list[str]()
    for number, step in enumerate(steps, start=1):
        release = tiny_release(tmp_path, str(number), name)
        if step == "serve":
            endpoint.switch(release)
            served.append(release.version)
        elif step == "copy":
            endpoint._release_store.save(release)
        elif step == "withdraw":
            endpoint.undeploy(name)
        elif served:
            endpoint.rollback(name, data.draw(st.sampled_from(served)))
    copied = {f"release:{name}/{n}" for n, step in enumerate(steps, start=1) if step == "copy"}
    lines = [Line(version) for version in data.draw(st.permutations(served))]
    assert set(swept(endpoint, [name], protected_model_keys(name, lines, [], []))) == copied
    for version in served:
        assert endpoint.rollback(name, version).version == version
        assert endpoint.verify(tiny_release(tmp_path, version, name)).version == version
    endpoint.undeploy(name)


@pytest.fixture
def job(tmp_path: Path, desk: SageMakerLab) -> TrainingJob:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "train.py").write_text(SLOW.format(0))
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-0.csv").write_text("a,b\n1,2\n")
    return TrainingJob(unique(desk, "job"), tmp_path / "program", {"train": tmp_path / "train"})


def test_what_training_jobs_left_goes_and_the_next_job_copies_it_anew(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    trainer = sagemaker_trainer(desk, tmp_path)
    done = trainer.run(job, quiet)
    kinds = [key.partition(":")[0] for key in swept(trainer, [])]
    assert sorted(kinds) == ["training-input", "training-input", "training-output"]
    assert stored(desk, "training/models") == stored(desk, "training/inputs") == []
    assert done.model_folder is not None and not done.model_folder.exists()
    again = replace(job, name=unique(desk, "job"))
    assert trainer.run(again, quiet).status is JobStatus.completed


def test_a_job_that_runs_holds_its_output_and_its_inputs(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    trainer = sagemaker_trainer(desk, tmp_path)
    trainer.run(job, quiet)
    desk.server.faults.add(Fault("stuck", match="holding"))
    running = replace(job, name=unique(desk, "holding"))
    trainer.submit(running)
    assert swept(trainer, []) == [f"training-output:{job.name}"]
    assert len(stored(desk, "training/inputs")) == 4
    desk.server.faults.clear()
    assert trainer.run(running, quiet).status is JobStatus.completed


def test_inputs_that_are_used_again_are_young_again(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    trainer = sagemaker_trainer(desk, tmp_path)
    trainer.run(job, quiet)
    before = {thing.key: thing.last_used for thing in trainer.collectables([])}
    desk.until(lambda: datetime.now(UTC), lambda now: now > max(before.values()) + timedelta(seconds=1.5))
    trainer.run(replace(job, name=unique(desk, "job")), quiet)
    after = {thing.key: thing.last_used for thing in trainer.collectables([])}
    assert all(after[key] > before[key] for key in before if key.startswith("training-input:"))


def test_what_a_transform_left_goes_with_its_model_unless_it_runs(desk: SageMakerLab, tmp_path: Path) -> None:
    transform = sagemaker_transform(desk)
    done, running = (a_job(tmp_path, unique(desk, name)) for name in ("price-score-a", "price-score-b"))
    transform.run(done, parts(), quiet)
    desk.server.faults.add(Fault("stuck", match=running.name))
    transform.submit(running, parts())
    assert swept(transform, []) == [f"batch-inference:{done.name}"]
    assert stored(desk, f"batch-inference/{done.name}/") == [] != stored(desk, f"batch-inference/{running.name}/")
    assert desk.sagemaker.list_models(NameContains=done.name)["Models"] == []
    assert len(desk.sagemaker.list_models(NameContains=running.name)["Models"]) == 1
    transform.stop(running.name)


def test_a_key_of_another_kind_or_place_is_refused(desk: SageMakerLab, tmp_path: Path) -> None:
    desk.put("precious/1/x", "kept")
    for keeper, keys in (
        (sagemaker_endpoint(desk), ("release:churn", "release:../1", "training-output:1", "release:a/b/c")),
        (
            sagemaker_trainer(desk, tmp_path),
            ("release:a/1", "training-output:", "training-output:a/b", "training-input:.."),
        ),
        (sagemaker_transform(desk), ("training-output:1", "batch-inference:a/b", "batch-inference:")),
    ):
        for key in keys:
            with pytest.raises(Rejected, match="not deleted"):
                keeper.delete_collectables(key)
    assert stored(desk, "") == ["precious/1/x"]
