"""The trainer port's contract, over every adapter, and what the local one promises beyond it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from blocks.errors import Conflict, JobFailed, NotFound, Rejected
from blocks.jobs import JobStatus
from blocks.trainers.base import Trainer, TrainingJob
from blocks.trainers.fake import FakeTrainer
from blocks.trainers.local import LocalTrainer
from blocks.trainers.sagemaker import SageMakerTrainer
from tests.local_aws import Desk, sagemaker_trainer
from tests.processes import runs

HEALTHY = """
import json, os, pathlib, time
print("reading", sorted(os.listdir(os.environ["SM_CHANNEL_TRAIN"])))
time.sleep(float(json.loads(os.environ["SM_HPS"]).get("sleep", "0")))
runs = pathlib.Path(os.environ["SM_CHANNEL_TRAIN"]).resolve().parent / "runs"
runs.write_text((runs.read_text() if runs.exists() else "") + "x")
pathlib.Path(os.environ["SM_MODEL_DIR"], "hyperparameters.json").write_text(os.environ["SM_HPS"])
print("done")
"""
FAILING = "import sys\nprint('column fee is bad', file=sys.stderr)\nsys.exit(3)\n"


@dataclass(frozen=True)
class Bench:
    """One adapter under test: a trainer whose jobs succeed, one whose first job fails, and a job to give them."""

    healthy: Trainer
    failing: Trainer
    job: TrainingJob
    failing_job: TrainingJob
    last_words: str


def a_job(folder: Path, source: str, name: str = "churn-1", **more: object) -> TrainingJob:
    (folder / "program").mkdir(parents=True, exist_ok=True)
    (folder / "program" / "train.py").write_text(source)
    (folder / "train").mkdir(exist_ok=True)
    (folder / "train" / "part-0.csv").write_text("a,b\n1,2\n")
    return TrainingJob(name, folder / "program", {"train": folder / "train"}, {"rounds": "3"}, **more)


def local_bench(tmp_path: Path) -> Bench:
    trainer = LocalTrainer(root=tmp_path / "jobs", grace_seconds=1)
    bad = a_job(tmp_path / "bad", FAILING, "churn-bad")
    return Bench(trainer, trainer, a_job(tmp_path / "good", HEALTHY), bad, "column fee is bad")


def fake_bench(tmp_path: Path) -> Bench:
    job, root = a_job(tmp_path / "good", HEALTHY), tmp_path / "jobs"
    failing = FakeTrainer(root=root, fail_first=1, reason="column fee is bad")
    return Bench(FakeTrainer(root=root), failing, job, replace(job, name="churn-bad"), "column fee is bad")


def sagemaker_bench(tmp_path: Path, desk: Desk) -> Bench:
    trainer = sagemaker_trainer(desk, tmp_path)
    unique = desk.bucket.removeprefix("tests-")  # a name is taken for ever on SageMaker
    bad = a_job(tmp_path / "bad", FAILING, f"churn-bad-{unique}")
    return Bench(trainer, trainer, a_job(tmp_path / "good", HEALTHY, f"churn-1-{unique}"), bad, "column fee is bad")


@pytest.fixture(params=["local", "fake", pytest.param("sagemaker", marks=pytest.mark.slow)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "sagemaker":
        return sagemaker_bench(tmp_path, request.getfixturevalue("desk"))
    return local_bench(tmp_path) if request.param == "local" else fake_bench(tmp_path)


def test_a_job_runs_and_leaves_a_model_made_with_its_hyperparameters(bench: Bench) -> None:
    lines: list[str] = []
    state = bench.healthy.run(bench.job, lines.append)
    assert state.status is JobStatus.completed and state.model is not None
    assert json.loads((state.model / "hyperparameters.json").read_text()) == {"rounds": "3"}
    assert lines and state.seconds >= 0


def test_what_a_job_will_ask_for_is_known_before_it_is_submitted(bench: Bench) -> None:
    asked = bench.healthy.compute(1234)
    assert asked.max_seconds >= 1234 and asked.count >= 1 and asked.keep_alive_seconds >= 0
    assert bool(asked.instance_types) == bool(asked.region)


def test_a_failure_carries_the_programs_own_last_words(bench: Bench) -> None:
    with pytest.raises(JobFailed, match=bench.last_words):
        bench.failing.run(bench.failing_job, lambda _line: None)
    state = bench.failing.state(bench.failing_job.name)
    assert state.status is JobStatus.failed and state.model is None


def test_a_completed_job_is_adopted_without_training_again(bench: Bench) -> None:
    first = bench.healthy.run(bench.job, lambda _line: None)
    again = bench.healthy.run(bench.job, lambda _line: None)
    assert again.model == first.model
    assert attempts(bench, bench.healthy, bench.job) == 1


def test_a_failed_job_is_started_anew(bench: Bench) -> None:
    with pytest.raises(JobFailed):
        bench.failing.run(bench.failing_job, lambda _line: None)
    bench.failing.submit(bench.failing_job)
    assert attempts(bench, bench.failing, bench.failing_job) == 2
    bench.failing.stop(bench.failing_job.name)


def test_a_stopped_job_is_a_failure_and_is_started_anew(bench: Bench) -> None:
    job = replace(bench.job, hyperparameters={"sleep": "30"})
    bench.healthy.submit(job)
    bench.healthy.stop(job.name)
    bench.healthy.stop(job.name)
    state = bench.healthy.state(job.name)
    assert state.status is JobStatus.stopped and state.model is None and state.reason
    bench.healthy.submit(job)
    assert bench.healthy.state(job.name).status is JobStatus.in_progress
    bench.healthy.stop(job.name)


def test_whatever_ends_the_wait_stops_the_job(bench: Bench) -> None:
    def interrupted(_line: str) -> None:
        raise KeyboardInterrupt

    job = replace(bench.job, hyperparameters={"sleep": "30"})
    with pytest.raises(KeyboardInterrupt):
        bench.healthy.run(job, interrupted)
    assert bench.healthy.state(job.name).status is JobStatus.stopped


@pytest.mark.parametrize("part", ["hyperparameters", "program", "channels", "environment"])
def test_another_job_under_the_same_name_is_a_conflict(bench: Bench, tmp_path: Path, part: str) -> None:
    bench.healthy.run(bench.job, lambda _line: None)
    other = a_job(tmp_path / "other", HEALTHY + "\n")
    changes = {
        "hyperparameters": {"rounds": "4"},
        "program": other.program,
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
        bench.healthy.submit(replace(bench.job, program=tmp_path))
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
    """How often the job was really started, as each adapter shows it."""
    if isinstance(trainer, FakeTrainer):
        return trainer.started.count(job.name)
    if isinstance(trainer, SageMakerTrainer):
        listed = trainer._client("sagemaker").list_training_jobs(NameContains=job.name)
        return len(listed["TrainingJobSummaries"])
    assert isinstance(trainer, LocalTrainer)
    return len([path for path in (trainer.root / job.name).iterdir() if path.is_dir()])


# --- what the local trainer promises beyond the contract


@pytest.fixture
def local(tmp_path: Path) -> LocalTrainer:
    return LocalTrainer(root=tmp_path / "jobs", grace_seconds=0.5)


def failure(trainer: LocalTrainer, job: TrainingJob) -> str:
    with pytest.raises(JobFailed) as caught:
        trainer.run(job, lambda _line: None)
    return str(caught.value)


def eventually(condition: Callable[[], object], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_no_secret_of_the_parent_reaches_the_program(
    local: LocalTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "parents-secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    source = "import os\nfor key, value in sorted(os.environ.items()): print(key, '=', value)\n"
    lines: list[str] = []
    local.run(a_job(tmp_path, source, environment={"GIVEN": "yes"}), lines.append)
    shown = "\n".join(lines)
    assert "GIVEN = yes" in shown and "TRAINING_JOB_NAME = churn-1" in shown
    assert "parents-secret" not in shown and "PYTHONPATH" not in shown
    assert f"HOME = {tmp_path / 'jobs' / 'churn-1'}" in shown


def test_a_secret_given_to_a_job_is_not_written_into_its_folder(local: LocalTrainer, tmp_path: Path) -> None:
    local.run(a_job(tmp_path, HEALTHY, environment={"TOKEN": "very-secret"}), lambda _line: None)
    files = [path for path in (tmp_path / "jobs").rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"very-secret" in path.read_bytes()]


def test_a_job_above_its_memory_is_ended_and_says_so(local: LocalTrainer, tmp_path: Path) -> None:
    source = "import time\nheld = bytearray(300 * 2**20)\ntime.sleep(60)\n"
    said = failure(local, a_job(tmp_path, source, max_memory_mb=150))
    held = re.search(r"held ([\d,]+) MB", said)
    assert "150 MB (max_memory_mb)" in said and held is not None
    assert int(held[1].replace(",", "")) > 150, "what it held when it was looked at, still growing or not"


def test_a_job_above_its_time_is_ended_and_says_so(local: LocalTrainer, tmp_path: Path) -> None:
    said = failure(local, a_job(tmp_path, "import time\ntime.sleep(60)\n", max_seconds=1))
    assert "1 s (max_seconds)" in said
    assert local.state("churn-1").status is JobStatus.stopped


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
own = subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
print("pids", os.getpid(), own.pid, flush=True)
time.sleep(60)
"""


def pids(trainer: LocalTrainer) -> list[int]:
    lines, _ = trainer.logs("churn-1")
    return [int(pid) for line in lines if line.startswith("pids") for pid in line.split()[1:]]


def test_stop_ends_a_program_that_ignores_it_and_the_child_that_left_its_session(
    local: LocalTrainer, tmp_path: Path
) -> None:
    local.submit(a_job(tmp_path, STUBBORN))
    assert eventually(lambda: len(pids(local)) == 2)
    local.stop("churn-1")
    assert [pid for pid in pids(local) if runs(pid)] == []


def test_what_a_completed_program_left_running_is_ended(local: LocalTrainer, tmp_path: Path) -> None:
    source = STUBBORN.rsplit("time.sleep(60)", 1)[0]
    local.run(a_job(tmp_path, source), lambda _line: None)
    assert len(pids(local)) == 2
    assert eventually(lambda: not [pid for pid in pids(local) if runs(pid)])


def test_a_program_killed_by_a_signal_says_which(local: LocalTrainer, tmp_path: Path) -> None:
    said = failure(local, a_job(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"))
    assert "SIGKILL" in said


SUBMITTER = """
import sys, time
from pathlib import Path
from blocks.trainers.base import TrainingJob
from blocks.trainers.local import LocalTrainer
folder = Path(sys.argv[1])
job = TrainingJob("churn-1", folder / "program", {"train": folder / "train"}, {"sleep": sys.argv[2]})
LocalTrainer(root=folder / "jobs").submit(job)
print("submitted", flush=True)
time.sleep(60)
"""


def submitted_elsewhere(folder: Path, sleep: str) -> "subprocess.Popen[str]":
    """Submit the job from a process of its own, so that it can be killed."""
    command = [sys.executable, "-c", SUBMITTER, str(folder), sleep]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None and process.stdout.readline() == "submitted\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_job_whose_submitter_was_killed_ends_and_is_started_anew(local: LocalTrainer, tmp_path: Path) -> None:
    job = replace(a_job(tmp_path, HEALTHY), hyperparameters={"sleep": "2"})
    kill(submitted_elsewhere(tmp_path, "2"))
    assert eventually(lambda: local.state("churn-1").status is JobStatus.failed)
    assert "interrupted" in local.state("churn-1").reason
    assert local.run(job, lambda _line: None).status is JobStatus.completed
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.slow
def test_a_retry_right_after_the_kill_does_not_attach_to_the_dying_job(local: LocalTrainer, tmp_path: Path) -> None:
    job = replace(a_job(tmp_path, HEALTHY), hyperparameters={"sleep": "2"})
    kill(submitted_elsewhere(tmp_path, "2"))
    assert local.run(job, lambda _line: None).status is JobStatus.completed


@pytest.mark.slow
def test_a_job_that_completed_before_its_submitter_died_is_adopted(local: LocalTrainer, tmp_path: Path) -> None:
    job = replace(a_job(tmp_path, HEALTHY), hyperparameters={"sleep": "0"})
    submitter = submitted_elsewhere(tmp_path, "0")
    assert eventually(lambda: local.state("churn-1").status is JobStatus.completed)
    kill(submitter)
    assert local.run(job, lambda _line: None).status is JobStatus.completed
    assert (tmp_path / "runs").read_text() == "x"


def test_a_killed_entry_point_leaves_nothing_training_once_the_job_is_started_anew(
    local: LocalTrainer, tmp_path: Path
) -> None:
    job = a_job(tmp_path, STUBBORN)
    local.submit(job)
    assert eventually(lambda: len(pids(local)) == 2)
    first = pids(local)
    record = json.loads((tmp_path / "jobs" / "churn-1" / "001" / "process.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    assert eventually(lambda: local.state("churn-1").status is JobStatus.failed)
    local.submit(job)
    assert eventually(lambda: not [pid for pid in first if runs(pid)])
    local.stop("churn-1")


def test_two_submissions_at_once_train_once(local: LocalTrainer, tmp_path: Path) -> None:
    job = a_job(tmp_path, HEALTHY)
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda _: local.run(job, lambda _line: None), range(4)))
    assert {state.status for state in states} == {JobStatus.completed}
    assert (tmp_path / "runs").read_text() == "x"


def test_edits_of_the_program_after_submission_do_not_reach_the_job(local: LocalTrainer, tmp_path: Path) -> None:
    source = "import time\ntime.sleep(1)\nimport helper\nprint(helper.WORD)\n"
    job = a_job(tmp_path, source)
    (job.program / "helper.py").write_text("WORD = 'as submitted'\n")
    local.submit(job)
    (job.program / "helper.py").write_text("WORD = 'edited'\n")
    assert eventually(lambda: local.state("churn-1").status is JobStatus.completed)
    assert local.logs("churn-1")[0] == ["as submitted"]
    assert not (job.program / "__pycache__").exists()
