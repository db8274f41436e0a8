"""SageMaker training jobs: the request that starts one, and the meaning of its description. No calls, no server."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.common.aws.jobs import attempt_name
from blocks.common.jobs import NAME_PATTERN, JobStatus
from blocks.trainers.base import TrainingJob
from blocks.trainers.sagemaker import SageMakerTrainer
from blocks.trainers.sagemaker_requests import JobLocations, TrainingSettings, job_state, training_request

JOB = TrainingJob(
    "churn-1a2b", Path("models/churn"), {"train": Path("train")}, {"num_leaves": "15"},
    {"MLFLOW_RUN_ID": "r1", "RATCHET_COMMIT": "c1"}, max_seconds=600,
)  # fmt: skip
PLACES = JobLocations(
    "s3://b/t/inputs/c0de/", {"train": "s3://b/t/inputs/da7a/"}, "s3://b/t/models", "s3://b/t/ck/churn-1a2b"
)
PLAN: dict[str, Any] = {
    "role_arn": "arn:aws:iam::123456789012:role/jobs", "image": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ratchet:1",
    "instance_types": ("ml.m6i.large",), "volume_gb": 30, "keep_alive_seconds": 0,
    "subnets": (), "security_groups": (), "metrics": {}, "tags": {"team": "churn"},
}  # fmt: skip


def source(uri: str) -> dict[str, Any]:
    return {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}}


GOLDEN: dict[str, Any] = {
    "TrainingJobName": "churn-1a2b",
    "RoleArn": "arn:aws:iam::123456789012:role/jobs",
    "AlgorithmSpecification": {
        "TrainingImage": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/ratchet:1", "TrainingInputMode": "File",
    },
    "HyperParameters": {"num_leaves": "15"},
    "Environment": {"MLFLOW_RUN_ID": "r1", "RATCHET_COMMIT": "c1"},
    "InputDataConfig": [
        {"ChannelName": "train", "DataSource": source("s3://b/t/inputs/da7a/")},
        {"ChannelName": "code", "DataSource": source("s3://b/t/inputs/c0de/")},
    ],
    "OutputDataConfig": {"S3OutputPath": "s3://b/t/models"},
    "ResourceConfig": {"VolumeSizeInGB": 30, "InstanceType": "ml.m6i.large", "InstanceCount": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    "Tags": [
        {"Key": "team", "Value": "churn"}, {"Key": "ratchet:job", "Value": "churn-1a2b"},
        {"Key": "ratchet:run", "Value": "r1"}, {"Key": "ratchet:commit", "Value": "c1"},
    ],
}  # fmt: skip


def request(**plan: Any) -> dict[str, Any]:
    made = training_request(TrainingSettings(**PLAN | plan), JOB, JOB.name, PLACES)
    shape = botocore.session.get_session().get_service_model("sagemaker").shape_for("CreateTrainingJobRequest")
    report = ParamValidator().validate(made, shape)
    assert not report.has_errors(), report.generate_report()
    return made


def test_the_request_is_the_golden_one() -> None:
    assert request() == GOLDEN


def test_spot_comes_with_checkpoints_and_a_limit_of_waiting() -> None:
    made = request(spot=True, spot_wait_seconds=900)
    assert made["EnableManagedSpotTraining"] is True
    assert made["StoppingCondition"] == {"MaxRuntimeInSeconds": 600, "MaxWaitTimeInSeconds": 1500}
    assert made["CheckpointConfig"] == {"S3Uri": "s3://b/t/ck/churn-1a2b"}


def test_preferences_take_the_place_of_the_instance_type() -> None:
    resources = request(instance_types=("ml.m7i.large", "ml.m6i.large"), keep_alive_seconds=600)["ResourceConfig"]
    assert [each["InstanceType"] for each in resources["InstancePreferences"]] == ["ml.m7i.large", "ml.m6i.large"]
    assert "InstanceType" not in resources and resources["KeepAlivePeriodInSeconds"] == 600


def test_metrics_are_found_in_the_log_by_their_expressions() -> None:
    found = request(metrics={"validation:auc": "auc=([0-9.]+)"})["AlgorithmSpecification"]["MetricDefinitions"]
    assert found == [{"Name": "validation:auc", "Regex": "auc=([0-9.]+)"}]


def test_a_vpc_is_named_with_its_groups() -> None:
    made = request(subnets=("subnet-1",), security_groups=("sg-1",))
    assert made["VpcConfig"] == {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"spot": True, "instance_types": ["ml.m6i.large", "ml.m7i.large"]}, "on-demand instances only"),
        ({"subnets": ["subnet-1"]}, "must be set together"),
        ({"instance_types": []}, "at least 1"),
        ({"keep_alive_seconds": 21_601}, "21600"),
    ],
)
def test_a_trainer_that_sagemaker_would_refuse_is_refused_when_it_is_made(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SageMakerTrainer(bucket="b", role_arn="r", image="i", model_cache=Path("c"), **fields)


@settings(max_examples=50)
@given(
    st.text("ab9-", min_size=1, max_size=63).filter(NAME_PATTERN.fullmatch), st.integers(1, 1000), st.integers(1, 1000)
)
def test_attempts_have_names_that_sagemaker_takes_and_that_differ(name: str, one: int, other: int) -> None:
    assert NAME_PATTERN.fullmatch(attempt_name(name, one)) and attempt_name(name, 1) == name
    assert (attempt_name(name, one) == attempt_name(name, other)) is (one == other)


def described(status: str, secondary: str = "", **more: Any) -> dict[str, Any]:
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    limits = {"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}}
    return {"TrainingJobStatus": status, "SecondaryStatus": secondary or status, "CreationTime": at,
            "TrainingEndTime": at, **limits, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (described("InProgress", "Downloading"), JobStatus.in_progress, ""),
        (described("Completed"), JobStatus.completed, ""),
        (described("Stopping"), JobStatus.stopped, "stopped on request"),
        (described("Stopped"), JobStatus.stopped, "stopped on request"),
        (described("Stopped", "MaxRuntimeExceeded"), JobStatus.stopped, "limit of 60 s (max_seconds)"),
        (described("Stopped", "MaxWaitTimeExceeded"), JobStatus.stopped, "90 s for a spot instance"),
        (described("Failed", FailureReason="AlgorithmError: x"), JobStatus.failed, "AlgorithmError: x"),
        (described("Failed"), JobStatus.failed, "gives no reason"),
    ],
)
def test_a_description_is_read_as_what_it_means(found: dict[str, Any], status: JobStatus, reason: str) -> None:
    state = job_state("churn-1a2b", found)
    assert state.status is status and reason in state.reason and not state.transient


@pytest.mark.parametrize("reason", ["CapacityError: none", "InternalServerError: We encountered an internal error."])
def test_a_failure_of_awss_own_may_be_gone_in_a_moment(reason: str) -> None:
    assert job_state("churn-1a2b", described("Failed", FailureReason=reason)).transient


def test_the_budget_is_told_what_a_job_asks_for_at_most() -> None:
    fields = {
        "bucket": "b",
        "role_arn": PLAN["role_arn"],
        "image": PLAN["image"],
        "model_cache": Path("cache"),
        "region": "eu-west-1",
    }
    kinds = ["ml.m7i.large", "ml.m6i.large"]
    asked = SageMakerTrainer(**fields, instance_types=kinds, keep_alive_seconds=600).compute(3600)
    assert (asked.instance_types, asked.region, asked.instance_count) == (tuple(kinds), "eu-west-1", 1)
    assert (asked.max_seconds, asked.keep_alive_seconds, asked.spot) == (3600, 600, False)


def test_what_a_job_cost_is_known_from_its_billable_seconds() -> None:
    described = {
        "TrainingJobStatus": "Completed", "CreationTime": datetime(2026, 11, 25, tzinfo=UTC), "BillableTimeInSeconds": 90,
        "TrainingEndTime": datetime(2026, 11, 25, 0, 5, tzinfo=UTC), "ResourceConfig": {"InstanceType": "ml.m6i.large"},
        "WarmPoolStatus": {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 30},
    }  # fmt: skip
    state = job_state("churn-1", described)
    assert (state.billable_seconds, state.instance_type) == (120.0, "ml.m6i.large")
    del described["BillableTimeInSeconds"]
    assert job_state("churn-1", described).billable_seconds is None
