"""The cloud port's contract, over SageMaker's adapter (moto's S3, endpoints and metrics) and the fake.

moto completes every job at once and cannot stop one. For jobs, botocore's stub responds; it checks request and
response against the service's own model.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from blocks.cloud_cleanup.base import ENVIRONMENT_TAG, FLOW_RUN_TAG, RUN_TAG, CloudCleanup
from blocks.cloud_cleanup.fake import FakeCloudCleanup
from blocks.cloud_cleanup.sagemaker import SageMakerCleanup
from blocks.common.errors import Rejected, Unavailable
from blocks.records.cloud import Checkpoints, PaidEndpoint
from local.sagemaker.faults import Fault
from tests.fixtures.batch_inference import a_job, parts, sagemaker_transform
from tests.fixtures.local_aws import SageMakerLab

REGION, BUCKET = "us-east-1", "lake"
NOW = datetime.now(UTC)
ROLE = "arn:aws:iam::123456789012:role/jobs"


@dataclass(frozen=True)
class Bench:
    """A cloud with two endpoints of `production` (churn with 7 requests; idle with 2 instances) and one of another."""

    cloud: CloudCleanup


def fake_bench() -> Bench:
    cloud = FakeCloudCleanup(region=REGION)
    for environment, name, count, requests in (("production", "churn", 1, 7.0), ("production", "idle", 2, 0.0)):
        cloud.add(environment, PaidEndpoint(name, f"{name}-1", "ml.m5.large", {"a": count}, NOW, requests))
    cloud.add("other", PaidEndpoint("theirs", "theirs-1", "ml.m5.large", {"a": 1}, NOW, 0.0))
    cloud.add(
        "production",
        Checkpoints("churn-1", 12, NOW, ("training/checkpoints/churn-1/a", "training/checkpoints/churn-1/b")),
    )
    return Bench(cloud)


def sagemaker_bench() -> Bench:
    sagemaker, s3 = boto3.client("sagemaker", REGION), boto3.client("s3", REGION)
    for environment, name, count in (("production", "churn", 1), ("production", "idle", 2), ("other", "theirs", 1)):
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "image"})
        variant = {"VariantName": "a", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": count}
        sagemaker.create_endpoint_config(EndpointConfigName=f"{name}-1", ProductionVariants=[variant])
        tags = [{"Key": ENVIRONMENT_TAG, "Value": environment}]
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=f"{name}-1", Tags=tags)
    dimensions = [{"Name": "EndpointName", "Value": "churn"}, {"Name": "VariantName", "Value": "a"}]
    for value in (3.0, 4.0):
        boto3.client("cloudwatch", REGION).put_metric_data(
            Namespace="AWS/SageMaker",
            MetricData=[{"MetricName": "Invocations", "Dimensions": dimensions, "Value": value, "Timestamp": NOW}],
        )
    s3.create_bucket(Bucket=BUCKET)
    for key in (
        "training/checkpoints/churn-1/a",
        "training/checkpoints/churn-1/b",
        "training/checkpoints/stray",
        "raw/churn-1/c",
    ):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"123456")
    return Bench(SageMakerCleanup(region=REGION, bucket=BUCKET))


@pytest.fixture(
    params=[pytest.param(sagemaker_bench, id="sagemaker", marks=pytest.mark.slow), pytest.param(fake_bench, id="fake")]
)
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with mock_aws():
        yield request.param()


def endpoints(bench: Bench, environment: str = "production") -> dict[str, PaidEndpoint]:
    return {each.name: each for each in bench.cloud.endpoints(environment, NOW - timedelta(hours=2))}


def test_endpoints_are_those_of_the_environment_with_their_requests(bench: Bench) -> None:
    found = endpoints(bench)
    assert {name: (each.instance_count, each.requests) for name, each in found.items()} == {
        "churn": (1, 7.0),
        "idle": (2, 0.0),
    }
    assert (found["idle"].endpoint_config, found["idle"].instance_type) == ("idle-1", "ml.m5.large")
    assert abs(found["idle"].in_service_since - NOW) < timedelta(hours=13)  # moto writes local times without a zone
    assert set(endpoints(bench, "other")) == {"theirs"}


def test_scaling_down_leaves_one_instance_of_each_variant(bench: Bench) -> None:
    bench.cloud.scale_down(endpoints(bench)["idle"])
    assert endpoints(bench)["idle"].instance_count == 1


def test_a_deleted_endpoint_is_gone_once_and_its_configuration_stays(bench: Bench) -> None:
    for _ in range(2):
        bench.cloud.delete_endpoint("idle")
    assert set(endpoints(bench)) == {"churn"}
    if isinstance(bench.cloud, SageMakerCleanup):
        config = boto3.client("sagemaker", REGION).describe_endpoint_config(EndpointConfigName="idle-1")
        assert config["ProductionVariants"][0]["ModelName"] == "idle"


def test_checkpoints_are_listed_by_job_and_removed_alone(bench: Bench) -> None:
    (left,) = bench.cloud.checkpoints()
    assert (left.job, left.size_bytes, len(left.keys)) == ("churn-1", 12, 2)
    for _ in range(2):
        bench.cloud.delete_checkpoints(left)
    assert bench.cloud.checkpoints() == ()
    if isinstance(bench.cloud, SageMakerCleanup):
        kept = boto3.client("s3", REGION).list_objects_v2(Bucket=BUCKET)["Contents"]
        assert [file["Key"] for file in kept] == ["raw/churn-1/c", "training/checkpoints/stray"]


def test_an_account_without_jobs_has_none(bench: Bench) -> None:
    assert bench.cloud.training_jobs("production") == () == bench.cloud.batch_inference_jobs("production")


@pytest.mark.parametrize(
    ("tags", "own", "in_own_account"),
    [
        ({ENVIRONMENT_TAG: "production"}, True, True),
        ({ENVIRONMENT_TAG: "aws"}, False, False),
        ({RUN_TAG: "run-1"}, False, True),
        ({"team": "growth"}, False, False),
        ({}, False, False),
    ],
    ids=["named", "another's", "of Ratchet", "somebody's", "untagged"],
)
def test_only_what_bears_a_tag_of_ratchet_is_the_environment_s(
    tags: dict[str, str], own: bool, in_own_account: bool
) -> None:
    for include_unassigned, expected in ((False, own), (True, in_own_account)):
        cloud = SageMakerCleanup(region=REGION, bucket=BUCKET, include_unassigned=include_unassigned)
        assert cloud._belongs_to(tags, "production") is expected


def stubbed() -> tuple[SageMakerCleanup, Stubber]:
    client = boto3.client("sagemaker", REGION, aws_access_key_id="testing", aws_secret_access_key="testing")  # noqa: S106 - no secret
    cloud, stub = SageMakerCleanup(region=REGION, bucket=BUCKET), Stubber(client)
    cloud._clients["sagemaker"] = client
    stub.activate()
    return cloud, stub


def arn(name: str) -> str:
    return f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}"


def listed(stub: Stubber, tags: dict[str, dict[str, str]]) -> None:
    """Respond as SageMaker does while these jobs run, with these tags; `churn-1` is described."""
    summaries = [
        {"TrainingJobName": name, "TrainingJobArn": arn(name), "CreationTime": NOW, "TrainingJobStatus": "InProgress"}
        for name in tags
    ]
    stub.add_response("list_training_jobs", {"TrainingJobSummaries": summaries}, {"StatusEquals": "InProgress"})
    for name, own in tags.items():
        answer = {"Tags": [{"Key": key, "Value": value} for key, value in own.items()]}
        stub.add_response("list_tags", answer, {"ResourceArn": arn(name)})
        if own.get(ENVIRONMENT_TAG) == "production":
            stub.add_response("describe_training_job", described(name), {"TrainingJobName": name})


def described(name: str) -> dict[str, Any]:
    return {
        "TrainingJobName": name, "TrainingJobArn": arn(name), "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training", "CreationTime": NOW, "ModelArtifacts": {"S3ModelArtifacts": "s3://lake/model"},
        "AlgorithmSpecification": {"TrainingInputMode": "File"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }  # fmt: skip


def test_jobs_are_those_of_the_environment_with_who_asked_for_them() -> None:
    cloud, stub = stubbed()
    own = {ENVIRONMENT_TAG: "production", FLOW_RUN_TAG: "flow-1", RUN_TAG: "run-1"}
    listed(stub, {"churn-1": own, "theirs": {ENVIRONMENT_TAG: "aws"}, "a-person-s": {}})
    (job,) = cloud.training_jobs("production")
    assert (job.name, job.flow_run_id, job.instance_type, job.instance_count) == ("churn-1", "flow-1", "ml.m5.large", 2)
    assert (job.started, job.max_seconds, job.run_id) == (NOW, 600, "run-1")
    stub.assert_no_pending_responses()


ANSWERS = {
    "ended already": ("ValidationException", "The request was rejected because the training job is in status Stopped and cannot be stopped", None),
    "not there": ("ResourceNotFound", "Requested resource not found.", None),
    "throttled": ("ThrottlingException", "Rate exceeded", Unavailable),
    "not allowed": ("AccessDeniedException", "not authorized to perform: sagemaker:StopTrainingJob", Rejected),
}  # fmt: skip


@pytest.mark.parametrize(("code", "text", "error"), ANSWERS.values(), ids=ANSWERS)
def test_stopping_a_job_that_has_ended_is_no_error_and_others_are(
    code: str, text: str, error: type[Exception] | None
) -> None:
    cloud, stub = stubbed()
    stub.add_client_error("stop_training_job", code, text, expected_params={"TrainingJobName": "churn-1"})
    if error is None:
        cloud.stop_training_job("churn-1")
        return
    with pytest.raises(error, match="StopTrainingJob churn-1 in us-east-1"):
        cloud.stop_training_job("churn-1")


def test_a_job_is_stopped_by_its_name() -> None:
    cloud, stub = stubbed()
    stub.add_response("stop_training_job", {}, {"TrainingJobName": "churn-1"})
    cloud.stop_training_job("churn-1")
    stub.assert_no_pending_responses()


def test_transform_jobs_that_run_are_found_by_their_tags_and_stopped(
    desk: SageMakerLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the local SageMaker, with jobs started by the transform adapter."""
    desk.server.faults.add(Fault("stuck", match=desk.bucket[-8:]))
    for environment in ("production", "aws"):
        job = a_job(tmp_path / environment, f"price-score-{environment}-{desk.bucket[-8:]}")
        sagemaker_transform(desk, tags={ENVIRONMENT_TAG: environment}).submit(replace(job, run_id="run-1"), parts())
    cloud = SageMakerCleanup(region=REGION, bucket=desk.bucket, endpoint_url=desk.server.url)
    (found,) = cloud.batch_inference_jobs("production")
    assert found.name.startswith("price-score-production") and (found.run_id, found.instance_count) == ("run-1", 1)
    for _ in range(2):
        cloud.stop_batch_inference_job(found.name)
    assert cloud.batch_inference_jobs("production") == () and len(cloud.batch_inference_jobs("aws")) == 1
