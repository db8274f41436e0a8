"""Requests that deploy a release on SageMaker: no calls, no server."""

import re
from dataclasses import replace
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.endpoints import sagemaker_requests as requests
from blocks.endpoints.base import GoldenExample
from blocks.endpoints.sagemaker import SageMakerEndpoint
from blocks.endpoints.sagemaker_release_store import StoredRelease
from blocks.endpoints.sagemaker_rollout import RolloutSettings, alarm_requests, deployment_config
from tests.fixtures.sagemaker_endpoints import HOSTING

SESSION = botocore.session.get_session()
PATTERN = SESSION.get_service_model("sagemaker").shape_for("ModelName").metadata["pattern"]
KEPT = StoredRelease("churn", "3", "d" * 64, GoldenExample("{}", "[1]"), "s3://b/releases/churn/3/d/model/")
GUARD = RolloutSettings(
    canary_percent=20, bake_seconds=300, max_error_rate=0.01, max_latency_ms=250.0, alarms=["own-alarm"]
)


def valid(operation: str, request: dict[str, Any], service: str = "sagemaker") -> dict[str, Any]:
    shape = SESSION.get_service_model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    return request


def test_a_model_is_served_from_its_files_as_they_lie() -> None:
    container = valid("CreateModel", requests.model_request(KEPT, HOSTING))["PrimaryContainer"]
    assert container["ModelDataSource"]["S3DataSource"] == {
        "S3Uri": "s3://b/releases/churn/3/d/model/", "S3DataType": "S3Prefix", "CompressionType": "None",
    }  # fmt: skip
    assert container["Environment"]["RATCHET_MODEL_DIGEST"] == KEPT.digest


def test_a_configuration_has_one_variant_whose_name_never_changes() -> None:
    variants = valid("CreateEndpointConfig", requests.config_request(KEPT, HOSTING))["ProductionVariants"]
    assert [each["VariantName"] for each in variants] == ["AllTraffic"]
    assert (variants[0]["InstanceType"], variants[0]["InitialInstanceCount"]) == ("ml.m6i.large", 2)
    serverless = HOSTING.model_copy(update={"serverless_memory_mb": 2048})
    variant = valid("CreateEndpointConfig", requests.config_request(KEPT, serverless))["ProductionVariants"][0]
    assert (
        variant["ServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 5} and "InstanceType" not in variant
    )


def test_an_update_is_a_canary_that_alarms_watch() -> None:
    found = deployment_config("churn", GUARD)
    valid("UpdateEndpoint", {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": found})
    routing = found["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]
    assert routing == {"Type": "CANARY", "WaitIntervalInSeconds": 300,
                       "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 20}}  # fmt: skip
    names = [each["AlarmName"] for each in found["AutoRollbackConfiguration"]["Alarms"]]
    assert names == ["churn-Invocation5XXErrors", "churn-ModelLatency", "own-alarm"]
    all_at_once = deployment_config("churn", GUARD.model_copy(update={"canary_percent": 0}))["BlueGreenUpdatePolicy"]
    assert all_at_once["TrafficRoutingConfiguration"]["Type"] == "ALL_AT_ONCE"
    assert all_at_once["TerminationWaitInSeconds"] == 300, "the old fleet stands by while the alarms watch"


def test_alarms_watch_the_share_of_errors_and_the_mean_latency_in_microseconds() -> None:
    errors, latency = alarm_requests("my_churn", GUARD)
    for alarm in (errors, latency):
        valid("PutMetricAlarm", alarm, "cloudwatch")
        assert {each["Name"]: each["Value"] for each in alarm["Dimensions"]} == {
            "EndpointName": "my-churn", "VariantName": "AllTraffic",
        }  # fmt: skip
    assert (errors["Statistic"], errors["Threshold"]) == ("Average", 0.01)
    assert latency["Threshold"] == 250_000
    assert alarm_requests("churn", GUARD.model_copy(update={"bake_seconds": 0})) == []


@settings(max_examples=50)
@given(st.text("ab9_", min_size=1, max_size=63).filter(lambda name: name[0] not in "_" and name[-1] != "_"),
       st.text("12.a_-", min_size=1, max_size=64))  # fmt: skip
def test_names_are_those_that_sagemaker_takes(endpoint: str, version: str) -> None:
    name = requests.release_name(replace(KEPT, endpoint=endpoint, version=version), HOSTING)
    assert len(name) <= 63 and re.fullmatch(PATTERN, name)


@pytest.mark.parametrize("change", [{"version": "4"}, {"digest": "e" * 64}, {"endpoint": "other"}])
def test_whatever_differs_has_another_name(change: dict[str, str]) -> None:
    name = requests.release_name(KEPT, HOSTING)
    assert requests.release_name(replace(KEPT, **change), HOSTING) != name
    assert requests.release_name(KEPT, HOSTING.model_copy(update={"image": "ratchet:2"})) != name


def test_what_the_container_says_of_itself_is_read() -> None:
    assert requests.parse_custom_attributes("version=3;digest=abc") == {"version": "3", "digest": "abc"}
    assert requests.parse_custom_attributes("") == {}


def test_the_budget_is_told_what_an_endpoint_asks_for_at_most() -> None:
    fields = {"bucket": "b", "role_arn": "arn:aws:iam::123456789012:role/jobs", "image": "i", "region": "eu-west-1"}
    asked = SageMakerEndpoint(**fields, instance_type="ml.m5.large", instance_count=2, max_instances=6).compute("churn")
    assert (asked.instance_type, asked.region, asked.instance_count, asked.hours_per_month) == (
        "ml.m5.large",
        "eu-west-1",
        6,
        730,
    )
    serverless = SageMakerEndpoint(**fields, serverless_memory_mb=2048).compute("churn")
    assert not serverless.instance_type.startswith("ml."), "no table prices it, so it is refused"
