"""What the SageMaker trainer does on bad days: each fault ends in the right state, with one job paid for."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.common.errors import Conflict, JobFailed, Rejected, Unavailable
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob
from local.sagemaker.faults import Fault
from tests.checkout import ROOT
from tests.fixtures.local_aws import SageMakerLab, sagemaker_trainer

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, pathlib, time
hps = json.loads(os.environ["SM_HPS"])
print("training", flush=True)
time.sleep(float(hps.get("sleep", "0")))
while "until" in hps and not os.path.exists(hps["until"]):
    time.sleep(0.05)
if "fail" in hps:
    raise ValueError("bad data in column fee")
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("made")
"""
RESUMING = """
import os, pathlib, time
mark = pathlib.Path("/opt/ml/checkpoints/step")
resumed = mark.exists()
print("resumes" if resumed else "begins", flush=True)
mark.write_text("37")
time.sleep(0 if resumed else 60)
pathlib.Path(os.environ["SM_MODEL_DIR"], "model.txt").write_text("made")
"""


@pytest.fixture
def job(tmp_path: Path, desk: SageMakerLab) -> TrainingJob:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "train.py").write_text(PROGRAM)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "part-0.csv").write_text("a,b\n1,2\n")
    return TrainingJob(f"job-{desk.bucket[-12:]}", tmp_path / "program", {"train": tmp_path / "train"})


def jobs_of(desk: SageMakerLab, job: TrainingJob) -> list[str]:
    listed = desk.sagemaker.list_training_jobs(NameContains=job.name, SortOrder="Ascending")
    return [each["TrainingJobName"] for each in listed["TrainingJobSummaries"]]


def quiet(_line: str) -> None:
    return None


def test_calls_that_are_throttled_only_take_longer(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    desk.server.faults.add(Fault("throttle", probability=0.3))
    assert sagemaker_trainer(desk, tmp_path, poll_seconds=0.5).run(job, quiet).status is JobStatus.completed
    desk.server.faults.clear()
    assert jobs_of(desk, job) == [job.name]


def test_an_outage_while_waiting_leaves_the_job_and_the_retry_attaches(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    trainer = sagemaker_trainer(desk, tmp_path, patient=False)
    longer = replace(job, hyperparameters={"until": str(tmp_path / "go")})

    def outage(line: str) -> None:
        desk.server.faults.add(Fault("error", match="DescribeTrainingJob"))

    with pytest.raises(Unavailable, match="internal error"):
        trainer.run(longer, outage)
    desk.server.faults.clear()
    assert trainer.state(job.name).status is JobStatus.in_progress
    (tmp_path / "go").touch()
    assert trainer.run(longer, quiet).status is JobStatus.completed
    assert jobs_of(desk, job) == [job.name]


def test_no_capacity_is_tried_again_and_is_another_job(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    trainer = sagemaker_trainer(desk, tmp_path)
    desk.server.faults.add(Fault("capacity", match=job.name, times=1))
    with pytest.raises(Unavailable, match="CapacityError"):
        trainer.run(job, quiet)
    assert trainer.run(job, quiet).status is JobStatus.completed
    assert jobs_of(desk, job) == [job.name, f"{job.name}-2"]


def test_a_quota_is_not_tried_again_and_names_the_remedy(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    desk.server.faults.add(Fault("quota", match="CreateTrainingJob"))
    with pytest.raises(Rejected, match="service limit.*Service Quotas"):
        sagemaker_trainer(desk, tmp_path).run(job, quiet)


def test_an_image_that_is_not_there_is_not_tried_again(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    with pytest.raises(JobFailed, match="Cannot find repository: elsewhere"):
        sagemaker_trainer(desk, tmp_path, image="elsewhere:1").run(job, quiet)


def test_the_reason_of_a_failure_is_the_programs_traceback(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    with pytest.raises(JobFailed, match="(?s)Traceback.*ValueError: bad data in column fee.*exit code: 1"):
        sagemaker_trainer(desk, tmp_path).run(replace(job, hyperparameters={"fail": "1"}), quiet)


def test_a_job_above_its_time_says_so(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    with pytest.raises(JobFailed, match=r"stopped: ran longer than its limit of 1 s \(max_seconds\)"):
        sagemaker_trainer(desk, tmp_path).run(replace(job, hyperparameters={"sleep": "60"}, max_seconds=1), quiet)


def test_a_job_that_is_stuck_can_be_stopped_and_is_started_anew(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    trainer = sagemaker_trainer(desk, tmp_path)
    desk.server.faults.add(Fault("stuck", match=job.name))
    trainer.submit(job)
    trainer.stop(job.name)
    assert trainer.state(job.name).status is JobStatus.stopped
    desk.server.faults.clear()
    assert trainer.run(job, quiet).status is JobStatus.completed


def test_an_answer_that_lags_behind_does_not_start_a_second_job(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    trainer = sagemaker_trainer(desk, tmp_path)
    desk.server.faults.add(Fault("delay", match=job.name, seconds=0.4))
    assert trainer.run(job, quiet).status is JobStatus.completed
    assert sagemaker_trainer(desk, tmp_path / "elsewhere").run(job, quiet).status is JobStatus.completed
    assert jobs_of(desk, job) == [job.name]


SUBMITTER = """
import sys
from pathlib import Path
from blocks.trainers.base import TrainingJob
from blocks.trainers.sagemaker import SageMakerTrainer
folder, url, bucket, name = Path(sys.argv[1]), *sys.argv[2:]
trainer = SageMakerTrainer(bucket=bucket, endpoint_url=url, region="us-east-1", image="ratchet:1", poll_seconds=0.05,
    role_arn="arn:aws:iam::123456789012:role/local-sagemaker", model_cache=folder / "cache")
job = TrainingJob(name, folder / "program", {"train": folder / "train"}, {"sleep": "2"})
trainer.run(job, lambda line: print(line, flush=True))
"""


@pytest.mark.slow
def test_a_submitter_that_is_killed_leaves_a_job_that_the_next_one_attaches_to(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    command = [sys.executable, "-c", SUBMITTER, str(tmp_path), desk.server.url, desk.bucket, job.name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "training\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = replace(job, hyperparameters={"sleep": "2"})
    lines: list[str] = []
    assert sagemaker_trainer(desk, tmp_path).run(again, lines.append).status is JobStatus.completed
    assert lines == ["training"], "the whole log is shown again to who attaches"
    assert jobs_of(desk, job) == [job.name]


def test_submissions_at_once_train_once(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    trainers = [sagemaker_trainer(desk, tmp_path / str(number)) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        states = list(pool.map(lambda trainer: trainer.run(job, quiet), trainers))
    assert {state.status for state in states} == {JobStatus.completed}
    assert jobs_of(desk, job) == [job.name]


def test_a_spot_job_that_loses_its_instance_resumes(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    if not desk.server.operations.containers.namespaces:
        pytest.skip("the program writes to /opt/ml/checkpoints, which needs a mount namespace")
    (job.program_folder / "train.py").write_text(RESUMING)
    trainer, lines = sagemaker_trainer(desk, tmp_path, spot=True), []

    def follow(line: str) -> None:
        lines.append(line)
        if line == "begins":
            desk.server.operations.training.interrupt_spot(job.name)

    assert trainer.run(job, follow).status is JobStatus.completed
    assert lines == ["begins", "resumes"]
    described = desk.sagemaker.describe_training_job(TrainingJobName=job.name)
    assert described["EnableManagedSpotTraining"] and described["StoppingCondition"]["MaxWaitTimeInSeconds"] == 7200


def test_a_job_of_somebody_else_is_not_taken_for_ours(desk: SageMakerLab, tmp_path: Path, job: TrainingJob) -> None:
    desk.train(job.name, "pass")
    with pytest.raises(Conflict, match="give it another name"):
        sagemaker_trainer(desk, tmp_path).submit(job)


def test_credentials_region_and_an_address_that_nobody_answers_are_named(
    desk: SageMakerLab, tmp_path: Path, job: TrainingJob
) -> None:
    with pytest.raises(Rejected, match="--region eu-west-1"):
        sagemaker_trainer(desk, tmp_path, region="eu-west-1").submit(job)
    nowhere = sagemaker_trainer(desk, tmp_path, region="not a region")
    with pytest.raises(Rejected, match="region"):
        nowhere.submit(job)
