"""The local trainer beyond the port's contract: limits, no secrets in the job, and no process left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.common.errors import JobFailed
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob
from blocks.trainers.local import LocalTrainer
from tests.checkout import ROOT
from tests.fixtures.training_jobs import HEALTHY, a_job
from tests.processes import is_running
from tests.waiting import wait_for


@pytest.fixture
def local(tmp_path: Path) -> LocalTrainer:
    return LocalTrainer(root=tmp_path / "jobs", grace_seconds=0.5)


def failure(trainer: LocalTrainer, job: TrainingJob) -> str:
    with pytest.raises(JobFailed) as caught:
        trainer.run(job, lambda _line: None)
    return str(caught.value)


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
    held = re.search(r"used ([\d,]+) MB", said)
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
    wait_for(lambda: len(pids(local)) == 2)
    local.stop("churn-1")
    assert [pid for pid in pids(local) if is_running(pid)] == []


def test_what_a_completed_program_left_running_is_ended(local: LocalTrainer, tmp_path: Path) -> None:
    source = STUBBORN.rsplit("time.sleep(60)", 1)[0]
    local.run(a_job(tmp_path, source), lambda _line: None)
    assert len(pids(local)) == 2
    wait_for(lambda: not [pid for pid in pids(local) if is_running(pid)])


def test_a_program_killed_by_a_signal_says_which(local: LocalTrainer, tmp_path: Path) -> None:
    said = failure(local, a_job(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"))
    assert "SIGKILL" in said


SUBMITTER = """
import sys, time
from pathlib import Path
from blocks.trainers.base import TrainingJob
from blocks.trainers.local import LocalTrainer
folder = Path(sys.argv[1])
job = TrainingJob("churn-1", folder / "program", {"train": folder / "train"}, {"until": sys.argv[2]})
LocalTrainer(root=folder / "jobs").submit(job)
print("submitted", flush=True)
time.sleep(60)
"""


def submitted_elsewhere(folder: Path, until: Path) -> "subprocess.Popen[str]":
    """Submit the job, which trains until that file exists, from a separate process that can be killed."""
    command = [sys.executable, "-c", SUBMITTER, str(folder), str(until)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "submitted\n"
    return process


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_job_whose_submitter_was_killed_ends_and_is_started_anew(local: LocalTrainer, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = replace(a_job(tmp_path, HEALTHY), hyperparameters={"until": str(go)})
    kill(submitted_elsewhere(tmp_path, go))
    wait_for(lambda: local.state("churn-1").status is JobStatus.failed)
    assert "interrupted" in local.state("churn-1").reason
    go.touch()
    assert local.run(job, lambda _line: None).status is JobStatus.completed
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.slow
def test_a_retry_right_after_the_kill_does_not_attach_to_the_dying_job(local: LocalTrainer, tmp_path: Path) -> None:
    job = replace(a_job(tmp_path, HEALTHY), hyperparameters={"until": str(tmp_path / "go")})
    kill(submitted_elsewhere(tmp_path, tmp_path / "go"))
    threading.Timer(2, (tmp_path / "go").touch).start()
    assert local.run(job, lambda _line: None).status is JobStatus.completed


@pytest.mark.slow
def test_a_job_that_completed_before_its_submitter_died_is_adopted(local: LocalTrainer, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    job = replace(a_job(tmp_path, HEALTHY), hyperparameters={"until": str(tmp_path / "go")})
    submitter = submitted_elsewhere(tmp_path, tmp_path / "go")
    wait_for(lambda: local.state("churn-1").status is JobStatus.completed)
    kill(submitter)
    assert local.run(job, lambda _line: None).status is JobStatus.completed
    assert (tmp_path / "runs").read_text() == "x"


def test_a_killed_entry_point_leaves_nothing_training_once_the_job_is_started_anew(
    local: LocalTrainer, tmp_path: Path
) -> None:
    job = a_job(tmp_path, STUBBORN)
    local.submit(job)
    wait_for(lambda: len(pids(local)) == 2)
    first = pids(local)
    record = json.loads((tmp_path / "jobs" / "churn-1" / "001" / "process.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)
    wait_for(lambda: local.state("churn-1").status is JobStatus.failed)
    local.submit(job)
    wait_for(lambda: not [pid for pid in first if is_running(pid)])
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
    (job.program_folder / "helper.py").write_text("WORD = 'as submitted'\n")
    local.submit(job)
    (job.program_folder / "helper.py").write_text("WORD = 'edited'\n")
    wait_for(lambda: local.state("churn-1").status is JobStatus.completed)
    assert local.logs("churn-1")[0] == ["as submitted"]
    assert not (job.program_folder / "__pycache__").exists()
