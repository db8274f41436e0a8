"""Changing `environment` is all: the flows that ran on folders and processes run on S3 and SageMaker."""

from pathlib import Path

import pytest

from deployments.stack import Stack
from tests.aws_story import staging, tell
from tests.local_aws import Desk

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_same_story_through_s3_a_training_job_and_a_sagemaker_endpoint(
    stack: Stack, desk: Desk, tmp_path: Path
) -> None:
    staging(stack, desk.server.url, desk.bucket)
    told = tell("cloud", "staging", tmp_path)
    assert all(abs(sum(row) - 1) < 1e-9 for row in told.predictions)
    kept = desk.s3.list_objects_v2(Bucket=desk.bucket, Delimiter="/")["CommonPrefixes"]
    assert {each["Prefix"] for each in kept} >= {"lake/", "training/", "releases/"}
    job = desk.sagemaker.list_training_jobs(NameContains="cloud-")["TrainingJobSummaries"][0]
    tags = desk.sagemaker.list_tags(ResourceArn=job["TrainingJobArn"])["Tags"]
    assert {"ratchet:job", "ratchet:run", "ratchet:commit", "ratchet:data"} <= {tag["Key"] for tag in tags}
    assert desk.sagemaker.describe_endpoint(EndpointName="cloud")["EndpointStatus"] == "InService"
