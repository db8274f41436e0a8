"""The trainer port's contract, over every adapter."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from blocks.common.errors import Conflict, JobFailed, NotFound, Rejected
from blocks.common.jobs import JobStatus
from blocks.trainers.base import Trainer, TrainingJob
from blocks.trainers.fake import FakeTrainer
from blocks.trainers.local import LocalTrainer
from blocks.trainers.sagemaker import SageMakerTrainer
from tests.fixtures.isolation import isolated
from tests.fixtures.local_aws import SageMakerLab, sagemaker_trainer
from tests.fixtures.training_jobs import FAILING, HEALTHY, a_job


@dataclass(frozen=True)
class Bench:
    """One adapter under test: a trainer whose jobs succeed, one whose first job fails, and a job for them."""

    healthy: Trainer
    failing: Trainer
    job: TrainingJob
    failing_job: TrainingJob
    last_words: str


def local_bench(tmp_path: Path, isolation: Literal["none", "bubblewrap"] = "none") -> Bench:
    trainer = LocalTrainer(root=tmp_path / "jobs", grace_seconds=1, isolation=isolation)
    bad = a_job(tmp_path / "bad", FAILING, "churn-bad")
    return Bench(trainer, trainer, a_job(tmp_path / "good", HEALTHY), bad, "column fee is bad")


def fake_bench(tmp_path: Path) -> Bench:
    job, root = a_job(tmp_path / "good", HEALTHY), tmp_path / "jobs"
    failing = FakeTrainer(root=root, failing_attempts=1, reason="column fee is bad")
    return Bench(FakeTrainer(root=root), failing, job, replace(job, name="churn-bad"), "column fee is bad")


def sagemaker_bench(tmp_path: Path, desk: SageMakerLab) -> Bench:
    trainer = sagemaker_trainer(desk, tmp_path)
    unique = desk.bucket.removeprefix("tests-")  # on SageMaker a name can never be used again
    bad = a_job(tmp_path / "bad", FAILING, f"churn-bad-{unique}")
    return Bench(trainer, trainer, a_job(tmp_path / "good", HEALTHY, f"churn-1-{unique}"), bad, "column fee is bad")


@pytest.fixture(
    params=[
        "local",
        pytest.param("bubblewrap", marks=isolated),
        "fake",
        pytest.param("sagemaker", marks=pytest.mark.slow),
    ]
)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "sagemaker":
        return sagemaker_bench(tmp_path, request.getfixturevalue("desk"))
    if request.param == "fake":
        return fake_bench(tmp_path)
    return local_bench(tmp_path, "bubblewrap" if request.param == "bubblewrap" else "none")


def test_a_job_runs_and_leaves_a_model_made_with_its_hyperparameters(bench: Bench) -> None:
    lines: list[str] = []
    state = bench.healthy.run(bench.job, lines.append)
    assert state.status is JobStatus.completed and state.model_folder is not None
    assert json.loads((state.model_folder / "hyperparameters.json").read_text()) == {"rounds": "3"}
    assert lines and state.seconds >= 0


def test_what_a_job_will_ask_for_is_known_before_it_is_submitted(bench: Bench) -> None:
    asked = bench.healthy.compute(1234)
    assert asked.max_seconds >= 1234 and asked.instance_count >= 1 and asked.keep_alive_seconds >= 0
    assert bool(asked.instance_types) == bool(asked.region)


def test_a_failure_carries_the_programs_own_last_words(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=bench.last_words):
        bench.failing.run(bench.failing_job, lambda _line: None)
    state = bench.failing.state(bench.failing_job.name)
    assert state.status is JobStatus.failed and state.model_folder is None


def test_a_completed_job_is_adopted_without_training_again(bench: Bench) -> None:
    first = bench.healthy.run(bench.job, lambda _line: None)
    again = bench.healthy.run(bench.job, lambda _line: None)
    assert again.model_folder == first.model_folder
    assert attempts(bench, bench.healthy, bench.job) == 1


def test_a_failed_job_is_started_anew(bench: Bench) -> None:
    with pytest.raises(JobFailed):
        bench.failing.run(bench.failing_job, lambda _line: None)
    bench.failing.submit(bench.failing_job)
    assert attempts(bench, bench.failing, bench.failing_job) == 2
    bench.failing.stop(bench.failing_job.name)


def test_a_stopped_job_is_a_failure_and_is_started_anew(bench: Bench) -> None:
    job = replace(bench.job, hyperparameters={"sleep": "600"})
    bench.healthy.submit(job)
    bench.healthy.stop(job.name)
    bench.healthy.stop(job.name)
    state = bench.healthy.state(job.name)
    assert state.status is JobStatus.stopped and state.model_folder is None and state.reason
    bench.healthy.submit(job)
    assert bench.healthy.state(job.name).status is JobStatus.in_progress
    bench.healthy.stop(job.name)


def test_whatever_ends_the_wait_stops_the_job(bench: Bench) -> None:
    def interrupted(_line: str) -> None:
        raise KeyboardInterrupt

    job = replace(bench.job, hyperparameters={"sleep": "600"})
    with pytest.raises(KeyboardInterrupt):
        bench.healthy.run(job, interrupted)
    assert bench.healthy.state(job.name).status is JobStatus.stopped


@pytest.mark.parametrize("part", ["hyperparameters", "program_folder", "channels", "environment"])
def test_another_job_under_the_same_name_is_a_conflict(bench: Bench, tmp_path: Path, part: str) -> None:
    bench.healthy.run(bench.job, lambda _line: None)
    other = a_job(tmp_path / "other", HEALTHY + "\n")
    changes = {
        "hyperparameters": {"rounds": "4"},
        "program_folder": other.program_folder,
        "channels": other.channels,
        "environment": {"SWITCH": "on"},
    }
    with pytest.raises(Conflict, match="churn-1"):
        bench.healthy.submit(replace(bench.job, **{part: changes[part]}))


def test_limits_and_tracking_do_not_make_another_job(bench: Bench) -> None:
    bench.healthy.run(bench.job, lambda _line: None)
    moved = replace(bench.job, environment={"MLFLOW_TRACKING_URI": "http://other"}, max_seconds=9)
    assert bench.healthy.run(moved, lambda _line: None).status is JobStatus.completed
    assert attempts(bench, bench.healthy, bench.job) == 1


def test_a_program_or_channel_that_is_not_there_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"train\.py"):
        bench.healthy.submit(replace(bench.job, program_folder=tmp_path))
    with pytest.raises(NotFound, match="'train'"):
        bench.healthy.submit(replace(bench.job, channels={"train": tmp_path / "nowhere"}))
    with pytest.raises(NotFound, match="churn-9"):
        bench.healthy.state("churn-9")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"name": "../escape"}, id="a name that leaves the folder"),
        pytest.param({"name": ""}, id="no name"),
        pytest.param({"max_seconds": 0}, id="no time"),
        pytest.param({"max_memory_mb": -1}, id="negative memory"),
        pytest.param({"hyperparameters": {"rounds": 3}}, id="a hyperparameter that is no text"),
    ],
)
def test_a_malformed_job_is_rejected(bench: Bench, change: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        bench.healthy.submit(replace(bench.job, **change))


def test_log_lines_come_once_each_from_a_position(bench: Bench) -> None:
    bench.healthy.run(bench.job, lambda _line: None)
    lines, position = bench.healthy.logs(bench.job.name)
    assert lines and bench.healthy.logs(bench.job.name, position) == ([], position)


def attempts(bench: Bench, trainer: Trainer, job: TrainingJob) -> int:
    """How often the job was actually started, as each adapter shows it."""
    if isinstance(trainer, FakeTrainer):
        return trainer.started.count(job.name)
    if isinstance(trainer, SageMakerTrainer):
        listed = trainer._client("sagemaker").list_training_jobs(NameContains=job.name)
        return len(listed["TrainingJobSummaries"])
    assert isinstance(trainer, LocalTrainer)
    return len([path for path in (trainer.root / job.name).iterdir() if path.is_dir()])
