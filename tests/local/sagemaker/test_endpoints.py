"""Endpoints of the local SageMaker, called with boto3: variants, shadows, errors, batch transform."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.local_aws import ROLE, SageMakerLab, variant

pytestmark = pytest.mark.slow


def test_an_endpoint_answers_with_its_model_and_says_which_variant_it_was(desk: SageMakerLab) -> None:
    desk.config("alone", desk.model("alone", {"version": "3"}))
    assert desk.endpoint("alone", "alone")["EndpointStatus"] == "InService"
    answer = desk.runtime.invoke_endpoint(EndpointName="alone", Body=b"{}", ContentType="application/json")
    assert json.loads(answer["Body"].read()) == {"predictions": ["alone"]}
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"].startswith("version=3;digest=")
    desk.sagemaker.delete_endpoint(EndpointName="alone")
    desk.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="alone", WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError, match="Endpoint alone of account"):
        desk.ask("alone")


def test_an_error_of_the_model_is_a_model_error_with_its_status(desk: SageMakerLab) -> None:
    desk.config("strict", desk.model("strict", {"requests": {"known": [1]}}))
    desk.endpoint("strict", "strict")
    with pytest.raises(desk.runtime.exceptions.ModelError) as caught:
        desk.ask("strict")
    assert caught.value.response["OriginalStatusCode"] == 400
    assert "does not know" in caught.value.response["OriginalMessage"]
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 424


@pytest.mark.parametrize(
    ("told", "image"), [({"ping": 500}, "tiny"), ({"die": 0}, "tiny"), ({}, "nobody-has-this")],
    ids=["unhealthy", "ends at once", "no such image"],
)  # fmt: skip
def test_an_endpoint_that_does_not_become_healthy_fails_and_says_why(
    desk: SageMakerLab, request: pytest.FixtureRequest, told: dict[str, Any], image: str
) -> None:
    name = f"sick-{abs(hash(request.node.name)) % 10**6}"
    one = variant(desk.model(name, told, image)) | {"ContainerStartupHealthCheckTimeoutInSeconds": 60}
    desk.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[one])
    desk.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    if told.get("ping"):
        time.sleep(0.3)
        assert desk.sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"] == "Creating"
        desk.sagemaker.delete_endpoint(EndpointName=name)
        return
    found = desk.settled(name)
    assert found["EndpointStatus"] == "Failed"
    assert ("ping health check" if image == "tiny" else "Cannot find repository") in found["FailureReason"]


def test_variants_share_the_traffic_by_weight_and_can_be_asked_by_name(desk: SageMakerLab) -> None:
    desk.config("ab", desk.model("champion", {}), desk.model("challenger", {}), weights=(0.9, 0.1))
    desk.endpoint("ab", "ab")
    assert desk.ask("ab", TargetVariant="challenger") == ["challenger"]
    with pytest.raises(ClientError, match="Variant nobody not found"):
        desk.ask("ab", TargetVariant="nobody")
    assert 24 <= desk.share("ab")["champion"] <= 40
    weights = [{"VariantName": "AllTraffic", "DesiredWeight": 0}, {"VariantName": "challenger", "DesiredWeight": 1}]
    desk.sagemaker.update_endpoint_weights_and_capacities(EndpointName="ab", DesiredWeightsAndCapacities=weights)
    assert desk.share("ab", 10) == {"challenger": 10}
    shown = desk.sagemaker.describe_endpoint(EndpointName="ab")["ProductionVariants"]
    assert {each["VariantName"]: each["CurrentWeight"] for each in shown} == {"AllTraffic": 0, "challenger": 1}


def test_a_shadow_gets_copies_and_nobody_gets_its_answers(desk: SageMakerLab) -> None:
    shadow = [variant(desk.model("shadow", {"status": 500}), "shadow")]
    desk.config("shadowed", desk.model("seen", {}), ShadowProductionVariants=shadow)
    desk.endpoint("shadowed", "shadowed")
    assert desk.share("shadowed", 10) == {"seen": 10}
    assert desk.sagemaker.describe_endpoint(EndpointName="shadowed")["ShadowProductionVariants"]


def test_a_model_that_an_endpoint_needs_has_to_be_there(desk: SageMakerLab) -> None:
    with pytest.raises(ClientError, match="could not find Model"):
        desk.config("nothing", "no-such-model")
    with pytest.raises(ClientError, match="could not find EndpointConfig"):
        desk.sagemaker.create_endpoint(EndpointName="nothing", EndpointConfigName="no-such-config")
    with pytest.raises(ClientError, match="multi-model"):
        primary = {"Image": "tiny", "Mode": "MultiModel", "ModelDataUrl": "s3://b/k"}
        desk.sagemaker.create_model(ModelName="multi", PrimaryContainer=primary, ExecutionRoleArn=ROLE)


def test_batch_transform_answers_every_object_beside_its_name(desk: SageMakerLab) -> None:
    desk.model("batch", {"requests": {"1\n": ["one"], "2\n": ["two"], "1\n2\n": ["both"]}})
    desk.put("in/a.csv", "1\n2\n")

    def transform(name: str, **source: Any) -> dict[str, Any]:
        prefix = {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{desk.bucket}/in/"}}}
        output = {"S3OutputPath": f"s3://{desk.bucket}/{name}"} | source.pop("output", {})
        desk.sagemaker.create_transform_job(
            TransformJobName=name, ModelName="batch", TransformInput={**prefix, "ContentType": "text/csv", **source},
            TransformOutput=output, TransformResources={"InstanceType": "ml.m5.large", "InstanceCount": 1},
            BatchStrategy="SingleRecord",
        )  # fmt: skip
        return desk.until(lambda: desk.sagemaker.describe_transform_job(TransformJobName=name),
                          lambda job: job["TransformJobStatus"] != "InProgress")  # fmt: skip

    assert transform("whole")["TransformJobStatus"] == "Completed"
    assert json.loads(desk.get(f"s3://{desk.bucket}/whole/a.csv.out")) == {"predictions": ["both"]}
    transform("lines", SplitType="Line", output={"AssembleWith": "Line"})
    lines = desk.get(f"s3://{desk.bucket}/lines/a.csv.out").decode().splitlines()
    assert [json.loads(line)["predictions"] for line in lines] == [["one"], ["two"]]
    desk.put("in/b.csv", "unknown")
    failed = transform("fails")
    assert failed["TransformJobStatus"] == "Failed" and "does not know" in failed["FailureReason"]
