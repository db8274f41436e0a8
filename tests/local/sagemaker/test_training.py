"""Training jobs of the local SageMaker, called with boto3."""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from local.sagemaker import containers
from tests.fixtures.local_aws import SPEED, SageMakerLab, local_aws

pytestmark = pytest.mark.slow

SLEEPS = "import time; print('began', flush=True); time.sleep(60)"


def began(desk: SageMakerLab, name: str) -> None:
    desk.until(lambda: desk.log_of(name), bool)


def left_over(job: str) -> list[int]:
    """Return the processes that still have the job's name in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TRAINING_JOB_NAME") == job:
                found.append(process.pid)
    return found


def test_a_container_finds_what_the_contract_promises_and_what_it_makes_is_kept(desk: SageMakerLab) -> None:
    channel = {"S3DataType": "S3Prefix", "S3Uri": desk.put("data/a.csv", "1,2\n").rpartition("/")[0],
               "S3DataDistributionType": "FullyReplicated"}  # fmt: skip
    program = (
        "import json, os, pathlib\n"
        "base = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml'))\n"
        "config = {p.stem: json.loads(p.read_text()) for p in (base / 'input/config').iterdir()}\n"
        "(base / 'model/config.json').write_text(json.dumps(config))\n"
        "(base / 'output/data/rows.csv').write_text((base / 'input/data/train/a.csv').read_text())\n"
        "print('given', os.environ['GIVEN'], os.environ['TRAINING_JOB_NAME'], 'SECRET' in os.environ)\n"
    )
    desk.train("contract", program, HyperParameters={"rounds": "3"}, Environment={"GIVEN": "yes"},
               InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": channel}}])  # fmt: skip
    job = desk.trained("contract")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    assert desk.log_of("contract") == ["given yes contract False"]
    with tarfile.open(fileobj=io.BytesIO(desk.get(job["ModelArtifacts"]["S3ModelArtifacts"]))) as model:
        config = json.load(model.extractfile("config.json"))
    assert config["hyperparameters"] == {"rounds": "3"}
    assert config["inputdataconfig"]["train"]["TrainingInputMode"] == "File"
    assert config["resourceconfig"]["hosts"] == ["algo-1"]
    assert desk.get(f"s3://{desk.bucket}/models/contract/output/output.tar.gz")
    passed = [each["Status"] for each in job["SecondaryStatusTransitions"]]
    assert passed == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert job["BillableTimeInSeconds"] >= 1


def test_metrics_are_found_by_their_expressions(desk: SageMakerLab) -> None:
    wanted = [{"Name": "validation:auc", "Regex": "auc=([0-9.]+);"}, {"Name": "absent", "Regex": "loss=([0-9.]+)"}]
    desk.train("metrics", "print('auc=0.5;'); print('auc=0.75;')", algorithm={"MetricDefinitions": wanted})
    found = desk.trained("metrics")["FinalMetricDataList"]
    assert [(each["MetricName"], each["Value"]) for each in found] == [("validation:auc", 0.75)]
    desk.server.operations.aws.send_metrics()
    listed = desk.cloudwatch.list_metrics(Namespace="/aws/sagemaker/TrainingJobs")["Metrics"]
    assert "validation:auc" in [metric["MetricName"] for metric in listed]


def test_a_failure_says_what_the_container_wrote(desk: SageMakerLab) -> None:
    base = "import os, pathlib, sys; base = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml')); "
    desk.train("fails", base + "(base / 'output/failure').write_text('column fee is bad'); sys.exit(3)")
    job = desk.trained("fails")
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"] == "AlgorithmError: column fee is bad, exit code: 3"
    assert "S3ModelArtifacts" not in job.get("ModelArtifacts", {})


def test_an_image_or_a_channel_that_is_not_there_fails_the_job_and_is_named(desk: SageMakerLab) -> None:
    desk.train("no-image", "pass", algorithm={"TrainingImage": "111.dkr.ecr.us-east-1.amazonaws.com/other:1"})
    assert "Cannot find repository: other" in desk.trained("no-image")["FailureReason"]
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{desk.bucket}/nowhere/"}
    desk.train("no-data", "pass", InputDataConfig=[{"ChannelName": "train", "DataSource": {"S3DataSource": source}}])
    assert "No S3 objects found under S3 URL" in desk.trained("no-data")["FailureReason"]


def test_a_name_is_taken_for_ever(desk: SageMakerLab) -> None:
    desk.train("taken", "pass")
    desk.trained("taken")
    with pytest.raises(desk.sagemaker.exceptions.ResourceInUse, match="already existing"):
        desk.train("taken", "pass")


def test_a_stopped_job_is_asked_first_and_what_it_saved_is_kept(
    desk: SageMakerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("local.sagemaker.training.GRACE_SECONDS", 3_600 * SPEED)
    program = (
        "import os, pathlib, signal, sys, time\n"
        "base = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml'))\n"
        "def end(*_):\n    (base / 'model/partial').write_text('x'); print('saving'); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('began', flush=True)\ntime.sleep(60)\n"
    )
    desk.train("stopped", program)
    began(desk, "stopped")
    desk.sagemaker.stop_training_job(TrainingJobName="stopped")
    job = desk.trained("stopped")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert "saving" in desk.log_of("stopped") and job["ModelArtifacts"]["S3ModelArtifacts"]
    with pytest.raises(ClientError, match="not in a stoppable state"):
        desk.sagemaker.stop_training_job(TrainingJobName="stopped")


def test_a_job_above_its_time_is_stopped_and_leaves_nothing_running(desk: SageMakerLab) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    desk.train("slow", stubborn, StoppingCondition={"MaxRuntimeInSeconds": 1})
    job = desk.trained("slow")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert left_over("slow") == []


def test_a_spot_job_resumes_from_its_checkpoint(desk: SageMakerLab) -> None:
    program = (
        "import os, pathlib, time\n"
        "base = pathlib.Path(os.environ.get('SAGEMAKER_BASE_DIR', '/opt/ml'))\n"
        "mark = base / 'checkpoints/step'\n"
        "print('step', mark.read_text() if mark.exists() else 'none', flush=True)\n"
        "resumed = mark.exists(); mark.write_text('37')\n"
        "time.sleep(0 if resumed else 60)\n"
    )
    spot = {
        "EnableManagedSpotTraining": True,
        "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60},
        "CheckpointConfig": {"S3Uri": f"s3://{desk.bucket}/checkpoints/spot"},
    }
    desk.train("spot", program, **spot)
    began(desk, "spot")
    desk.server.operations.training.interrupt_spot("spot")
    job = desk.trained("spot")
    assert job["TrainingJobStatus"] == "Completed"
    said = [line for line in desk.log_of("spot") if line.startswith("step")]  # sometimes beside a message of `unshare`
    assert said == ["step none", "step 37"]
    assert "Interrupted" in [each["Status"] for each in job["SecondaryStatusTransitions"]]
    assert job["BillableTimeInSeconds"] <= job["TrainingTimeInSeconds"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds", id="spot without a limit of waiting"),
        pytest.param({"ResourceConfig": {"VolumeSizeInGB": 1, "InstanceType": "ml.m6i.large", "InstanceCount": 1,
                      "InstancePreferences": [{"InstanceType": "ml.m6i.large"}]}}, "mutually exclusive",
                     id="a type and preferences"),
        pytest.param({"ResourceConfig": {"VolumeSizeInGB": 1, "InstanceType": "ml.m6i.large", "InstanceCount": 2}},
                     "does not implement training on several instances", id="two instances"),
        pytest.param({"DebugHookConfig": {"S3OutputPath": "s3://b/k"}}, r"CreateTrainingJob\.DebugHookConfig",
                     id="a member that is not known here"),
        pytest.param({"ResourceConfig": {"VolumeSizeInGB": 1, "InstanceType": "ml.none", "InstanceCount": 1}},
                     "enum value set", id="an instance type that is none"),
        pytest.param({"RoleArn": "me"}, "RoleArn", id="a role that is none"),
        pytest.param({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "MaxRuntimeInSeconds", id="no time"),
    ],
)  # fmt: skip
def test_a_request_that_aws_or_we_cannot_serve_is_refused_with_its_reason(
    desk: SageMakerLab, change: dict[str, object], said: str
) -> None:
    with pytest.raises(ClientError, match=said):
        desk.train("refused", "pass", **change)
    with pytest.raises(ClientError, match="Requested resource not found"):
        desk.sagemaker.describe_training_job(TrainingJobName="refused")


def test_the_first_preferred_instance_type_with_capacity_is_taken(desk: SageMakerLab) -> None:
    preferred = [
        {"InstanceType": "ml.m7i.large", "InstanceCount": 1},
        {"InstanceType": "ml.m6i.large", "InstanceCount": 1},
    ]
    desk.server.faults.add_from_json({"kind": "capacity", "match": r"m7i\.large preferred"})
    desk.train("preferred", "pass", ResourceConfig={"InstancePreferences": preferred, "VolumeSizeInGB": 1})
    assert desk.trained("preferred")["ResourceConfig"]["SelectedInstanceType"] == "ml.m6i.large"


def test_faults_happen_as_told_and_end_when_cleared(desk: SageMakerLab) -> None:
    faults = desk.server.faults
    faults.add_from_json({"kind": "throttle", "match": "^Describe", "times": 2})
    for _ in range(2):
        with pytest.raises(ClientError, match="ThrottlingException"):
            desk.sagemaker.describe_training_job(TrainingJobName="faulty")
    faults.add_from_json({"kind": "capacity", "match": "no-room", "times": 1})
    desk.train("no-room", "pass")
    assert desk.trained("no-room")["FailureReason"].startswith("CapacityError")

    faults.add_from_json({"kind": "stuck", "match": "stays"})
    desk.train("stays", "pass")
    time.sleep(0.2)
    assert desk.sagemaker.describe_training_job(TrainingJobName="stays")["SecondaryStatus"] == "Starting"
    faults.clear()
    assert desk.trained("stays")["TrainingJobStatus"] == "Completed"

    faults.add_from_json({"kind": "delay", "match": "stays", "seconds": 86_400})
    late = desk.sagemaker.describe_training_job(TrainingJobName="stays")
    assert late["TrainingJobStatus"] == "InProgress"


def test_jobs_are_listed_in_pages_by_status_and_name(desk: SageMakerLab) -> None:
    for number in range(3):
        desk.train(f"listed-{number}", "pass")
        desk.trained(f"listed-{number}")
    pages = desk.sagemaker.get_paginator("list_training_jobs")
    found = pages.paginate(NameContains="listed-", StatusEquals="Completed", PaginationConfig={"PageSize": 2})
    names = [each["TrainingJobName"] for page in found for each in page["TrainingJobSummaries"]]
    assert names == ["listed-2", "listed-1", "listed-0"]


def test_tags_are_kept_and_changed(desk: SageMakerLab) -> None:
    arn = desk.train("tagged", "pass", Tags=[{"Key": "commit", "Value": "abc"}])["TrainingJobArn"]
    desk.sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "team", "Value": "churn"}])
    desk.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["commit"])
    assert desk.sagemaker.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "team", "Value": "churn"}]


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[SageMakerLab]:
    with local_aws(tmp_path / "plain", namespaces=False) as server:
        yield SageMakerLab(server)


def test_without_namespaces_a_container_is_told_of_its_folder(plain: SageMakerLab) -> None:
    program = "import os; print(os.path.isdir(os.environ['SAGEMAKER_BASE_DIR'] + '/input/config'))"
    plain.train("told", program)
    assert plain.trained("told")["TrainingJobStatus"] == "Completed"
    assert plain.log_of("told") == ["True"]
    plain.train("ended", SLEEPS)
    began(plain, "ended")
    plain.sagemaker.stop_training_job(TrainingJobName="ended")
    assert plain.trained("ended")["TrainingJobStatus"] == "Stopped"


@pytest.mark.skipif(not containers.namespaces_allowed(), reason="this kernel gives us no mount namespace")
def test_a_container_is_process_1_and_sees_its_folder_at_opt_ml(desk: SageMakerLab) -> None:
    desk.train("inside", "import os; print(os.getpid(), sorted(os.listdir('/opt/ml')), os.getcwd())")
    desk.trained("inside")
    assert desk.log_of("inside") == ["1 ['checkpoints', 'input', 'model', 'output'] /opt/ml"]


def test_what_a_container_started_ends_with_it(desk: SageMakerLab) -> None:
    program = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    desk.train("parent", program)
    assert desk.trained("parent")["TrainingJobStatus"] == "Completed"
    assert left_over("parent") == []
