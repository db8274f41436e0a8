"""The protocol of the local SageMaker: what it reports about itself, what it refuses, and its documentation."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import httpx
import psutil
import pytest
from botocore.exceptions import ClientError

from local.sagemaker import shapes
from local.sagemaker.operations import OPERATIONS, fidelity_table
from local.sagemaker.settings import PROJECT_IMAGE, read_images
from tests.checkout import ROOT
from tests.fixtures.command_line import ratchet
from tests.fixtures.local_aws import KEYS, SageMakerLab
from tests.waiting import wait_for

DOCUMENT = ROOT / "docs" / "local-sagemaker.md"


def test_the_documentation_shows_the_fidelity_of_every_operation() -> None:
    assert fidelity_table() in DOCUMENT.read_text()


def test_every_operation_of_the_table_is_one_of_aws_with_these_members(desk: SageMakerLab) -> None:
    handlers = set(desk.server.operations.handlers)
    assert handlers | {"InvokeEndpoint"} == set(OPERATIONS)
    for name, fidelity in OPERATIONS.items():
        service = shapes.service_model("sagemaker-runtime" if name == "InvokeEndpoint" else "sagemaker")
        members = set(service.operation_model(name).input_shape.members)
        assert fidelity.members <= members, f"{name}: {fidelity.members - members}"


def test_every_other_operation_of_aws_is_refused_by_its_name(desk: SageMakerLab) -> None:
    others = set(shapes.service_model().operation_names) - set(OPERATIONS)
    assert len(others) > 300
    for name in sorted(others)[::40]:
        headers = {"X-Amz-Target": f"SageMaker.{name}"}
        answer = httpx.post(desk.server.url, headers=headers, content=b"{}", trust_env=False)
        assert answer.status_code == 400 and f"does not implement {name};" in answer.json()["message"]


def test_what_other_services_of_sagemaker_would_do_is_refused_too(desk: SageMakerLab) -> None:
    metrics = boto3.client("sagemaker-metrics", endpoint_url=desk.server.url, **KEYS)
    with pytest.raises(ClientError, match="does not implement"):
        metrics.batch_put_metrics(TrialComponentName="a", MetricData=[{"MetricName": "m", "Timestamp": 1, "Value": 1}])
    with pytest.raises(ClientError, match="does not implement"):
        desk.runtime.invoke_endpoint_async(EndpointName="e", InputLocation="s3://b/k")
    with pytest.raises(ClientError, match="does not implement InvokeEndpoint with Target-Model"):
        desk.runtime.invoke_endpoint(EndpointName="e", Body=b"", TargetModel="m.tar.gz")


def test_another_region_is_refused_with_the_remedy(desk: SageMakerLab) -> None:
    keys = {**KEYS, "region_name": "eu-central-1"}
    with pytest.raises(ClientError, match="--region eu-central-1"):
        boto3.client("sagemaker", endpoint_url=desk.server.url, **keys).list_models()


def test_a_web_page_cannot_start_a_job(desk: SageMakerLab) -> None:
    headers = {"X-Amz-Target": "SageMaker.CreateTrainingJob"}
    for more in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        answer = httpx.post(desk.server.url, headers={**headers, **more}, content=b"{}", trust_env=False)
        assert answer.status_code == 403
    faults = httpx.post(f"{desk.server.url}/_local/faults", headers={"Origin": "http://evil.example"}, content=b"{}")
    assert faults.status_code == 403


def test_the_page_and_the_command_list_what_there_is(desk: SageMakerLab) -> None:
    desk.train("shown-job", "pass")
    desk.trained("shown-job")
    assert "shown-job" in httpx.get(f"{desk.server.url}/_local", trust_env=False).text
    listed = ratchet("sagemaker", "list", "--url", desk.server.url)
    assert listed.exit_code == 0 and "shown-job  Completed" in listed.stdout
    for url in ("", "localhost:8000"):
        refused = ratchet("sagemaker", "list", "--url", url)
        assert refused.exit_code == 2 and url in refused.stderr
        assert "set AWS_ENDPOINT_URL to the address that `sagemaker serve` printed" in refused.stderr


def test_faults_are_set_seen_and_cleared_over_http(desk: SageMakerLab) -> None:
    url = f"{desk.server.url}/_local/faults"
    assert httpx.post(url, json={"kind": "throttle", "match": "List"}, trust_env=False).json()[0]["kind"] == "throttle"
    with pytest.raises(ClientError, match="Rate exceeded"):
        desk.sagemaker.list_models()
    assert httpx.delete(url, trust_env=False).json() == []
    wrong = httpx.post(url, json={"kind": "earthquake"}, trust_env=False)
    assert wrong.status_code == 400 and "known are throttle" in wrong.json()["message"]


def test_images_are_read_from_a_file_and_a_mistake_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images.toml"
    path.write_text('[[image]]\npattern = "mine"\ntrain = ["python", "t.py"]\nenvironment = {A = 1}\n')
    images = read_images(path)
    assert images[0].train == ("python", "t.py") and images[0].environment == {"A": "1"} and images[-1] == PROJECT_IMAGE
    for wrong in ("nothing", '[[image]]\ntrain = ["x"]', '[[image]]\npattern = "a"\ntrain = "python t.py"'):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"images\.toml: images cannot be read"):
            read_images(path)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["asked", "killed"])
def test_a_server_that_ends_leaves_no_container_behind(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "local.sagemaker", "--state", str(tmp_path), "--bucket", "left-over"]
    images = tmp_path / "images.toml"
    images.write_text(
        f'[[image]]\npattern = "tiny"\ntrain = ["{sys.executable}", "-c", "import time; time.sleep(63.5)"]\n'
    )
    process = subprocess.Popen([*command, "--images", str(images)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "AWS_DEFAULT_REGION": "us-east-1"})  # fmt: skip
    assert process.stdout
    try:
        url = process.stdout.readline().split()[3]
        client = boto3.client("sagemaker", endpoint_url=url, **KEYS)
        client.create_training_job(
            TrainingJobName="left", RoleArn="arn:aws:iam::123456789012:role/local-sagemaker",
            AlgorithmSpecification={"TrainingImage": "tiny", "TrainingInputMode": "File"},
            OutputDataConfig={"S3OutputPath": "s3://left-over/out"}, StoppingCondition={"MaxRuntimeInSeconds": 60},
            ResourceConfig={"InstanceType": "ml.m6i.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        )  # fmt: skip
        wait_for(lambda: left_over("sleep(63.5)"))
        process.send_signal(how)
        process.wait(60)
        wait_for(lambda: not left_over("sleep(63.5)"))
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def left_over(words: str) -> list[int]:
    found = psutil.process_iter(["cmdline"])
    return [each.pid for each in found if each.info["cmdline"] and words in each.info["cmdline"][-1]]
