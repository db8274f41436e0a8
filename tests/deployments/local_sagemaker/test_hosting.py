"""Endpoints of the local SageMaker, as boto3 sees them: variants, updates, guards, batch transform."""

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from deployments.local_sagemaker.alarms import judge
from deployments.local_sagemaker.rollout import steps
from tests.local_aws import ROLE, Desk, variant


def canary(percent: int = 20, wait: int = 60, alarms: tuple[str, ...] = (), kind: str = "CANARY") -> dict[str, Any]:
    """A guarded deployment; at the tests' speed a wait of 60 s is one second."""
    size = "CanarySize" if kind == "CANARY" else "LinearStepSize"
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, size: {"Type": "CAPACITY_PERCENT", "Value": percent}}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}
    watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}
    return {"BlueGreenUpdatePolicy": policy, **watched}


def alarm(desk: Desk, name: str, endpoint: str, **more: Any) -> str:
    """An alarm on the endpoint's errors, looked at every minute: every second here."""
    desk.cloudwatch.put_metric_alarm(**{
        "AlarmName": name, "Namespace": "AWS/SageMaker", "MetricName": "Invocation5XXErrors", "Statistic": "Sum",
        "Period": 60, "EvaluationPeriods": 1, "Threshold": 0, "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}],
    } | more)  # fmt: skip
    return name


def share(desk: Desk, endpoint: str, count: int = 40) -> Counter[str]:
    return Counter(desk.ask(endpoint)[0] for _ in range(count))


def test_an_endpoint_answers_with_its_model_and_says_which_variant_it_was(desk: Desk) -> None:
    desk.config("plain", desk.model("plain", {"version": "3"}))
    assert desk.endpoint("plain", "plain")["EndpointStatus"] == "InService"
    answer = desk.runtime.invoke_endpoint(EndpointName="plain", Body=b"{}", ContentType="application/json")
    assert json.loads(answer["Body"].read()) == {"predictions": ["plain"]}
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert answer["CustomAttributes"].startswith("version=3;digest=")
    desk.sagemaker.delete_endpoint(EndpointName="plain")
    desk.sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="plain", WaiterConfig={"Delay": 1})
    with pytest.raises(ClientError, match="Endpoint plain of account"):
        desk.ask("plain")


def test_an_error_of_the_model_is_a_model_error_with_its_status(desk: Desk) -> None:
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
    desk: Desk, request: pytest.FixtureRequest, told: dict[str, Any], image: str
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


def test_variants_share_the_traffic_by_weight_and_can_be_asked_by_name(desk: Desk) -> None:
    desk.config("ab", desk.model("champion", {}), desk.model("challenger", {}), weights=(0.9, 0.1))
    desk.endpoint("ab", "ab")
    assert desk.ask("ab", TargetVariant="challenger") == ["challenger"]
    with pytest.raises(ClientError, match="Variant nobody not found"):
        desk.ask("ab", TargetVariant="nobody")
    assert 24 <= share(desk, "ab")["champion"] <= 40
    weights = [{"VariantName": "AllTraffic", "DesiredWeight": 0}, {"VariantName": "challenger", "DesiredWeight": 1}]
    desk.sagemaker.update_endpoint_weights_and_capacities(EndpointName="ab", DesiredWeightsAndCapacities=weights)
    assert share(desk, "ab", 10) == {"challenger": 10}
    shown = desk.sagemaker.describe_endpoint(EndpointName="ab")["ProductionVariants"]
    assert {each["VariantName"]: each["CurrentWeight"] for each in shown} == {"AllTraffic": 0, "challenger": 1}


def test_a_shadow_gets_copies_and_nobody_gets_its_answers(desk: Desk) -> None:
    shadow = [variant(desk.model("shadow", {"status": 500}), "shadow")]
    desk.config("shadowed", desk.model("seen", {}), ShadowProductionVariants=shadow)
    desk.endpoint("shadowed", "shadowed")
    assert share(desk, "shadowed", 10) == {"seen": 10}
    assert desk.sagemaker.describe_endpoint(EndpointName="shadowed")["ShadowProductionVariants"]


def test_an_update_loses_no_request_and_the_old_config_is_shown_until_it_is_through(desk: Desk) -> None:
    for name in ("old", "new"):
        desk.config(name, desk.model(name, {}))
    desk.endpoint("moving", "old")
    answers, failures, ended = Counter[str](), [], threading.Event()

    def load() -> None:
        while not ended.is_set():
            try:
                answers[desk.ask("moving")[0]] += 1
            except ClientError as error:
                failures.append(str(error))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    desk.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName="new")
    during = desk.sagemaker.describe_endpoint(EndpointName="moving")
    assert (during["EndpointStatus"], during["EndpointConfigName"]) == ("Updating", "old")
    with pytest.raises(ClientError, match="in-progress"):
        desk.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName="new")
    assert desk.settled("moving")["EndpointConfigName"] == "new"
    time.sleep(0.2)
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == [] and set(answers) == {"old", "new"}


def test_a_canary_gets_its_share_then_everything(desk: Desk) -> None:
    for name in ("before", "after"):
        desk.config(name, desk.model(name, {}))
    desk.endpoint("bird", "before")
    desk.sagemaker.update_endpoint(EndpointName="bird", EndpointConfigName="after", DeploymentConfig=canary(50))
    desk.until(lambda: share(desk, "bird", 5), lambda seen: seen["after"] > 0)
    assert share(desk, "bird")["before"] > 5
    assert desk.settled("bird")["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert share(desk, "bird", 10) == {"after": 10}


def test_an_alarm_over_real_metrics_rolls_a_canary_back_and_tells_the_topic(desk: Desk) -> None:
    desk.config("good", desk.model("good", {}))
    desk.config("bad", desk.model("bad", {"status": 500}))
    desk.endpoint("guarded", "good")
    topic = desk.sns.create_topic(Name="alerts")["TopicArn"]
    queue = desk.sqs.create_queue(QueueName="alerts")["QueueUrl"]
    arn = desk.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    desk.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    guard = alarm(desk, "guarded-5xx", "guarded", AlarmActions=[topic])
    desk.sagemaker.update_endpoint(
        EndpointName="guarded", EndpointConfigName="bad", DeploymentConfig=canary(50, 600, (guard,))
    )

    def asked() -> str:
        with suppress(desk.runtime.exceptions.ModelError):
            desk.ask("guarded")
        return str(desk.sagemaker.describe_endpoint(EndpointName="guarded")["EndpointStatus"])

    desk.until(asked, lambda status: status == "InService", 8)
    found = desk.sagemaker.describe_endpoint(EndpointName="guarded")
    assert found["EndpointConfigName"] == "good" and "guarded-5xx" in found["FailureReason"]
    assert share(desk, "guarded", 10) == {"good": 10}
    told = desk.sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"]
    assert "ALARM: guarded-5xx" in told
    desk.until(lambda: desk.cloudwatch.describe_alarms(AlarmNames=[guard])["MetricAlarms"][0]["StateValue"],
               lambda state: state == "OK", 8)  # fmt: skip


def test_a_rollback_that_fails_leaves_both_serving_and_says_so(desk: Desk) -> None:
    for name in ("first", "second"):
        desk.config(name, desk.model(name, {}))
    desk.endpoint("torn", "first")
    guard = alarm(desk, "torn-5xx", "torn")
    desk.cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[{
        "MetricName": "Invocation5XXErrors", "Value": 1, "Timestamp": datetime.now(UTC),
        "Dimensions": [{"Name": "EndpointName", "Value": "torn"}, {"Name": "VariantName", "Value": "AllTraffic"}],
    }])  # fmt: skip
    desk.server.faults.add_described({"kind": "rollback_fails", "match": "^torn$", "times": 1})
    desk.sagemaker.update_endpoint(
        EndpointName="torn", EndpointConfigName="second", DeploymentConfig=canary(50, 600, (guard,))
    )
    assert desk.settled("torn")["EndpointStatus"] == "UpdateRollbackFailed"
    assert set(share(desk, "torn")) == {"first", "second"}


def test_an_update_that_cannot_start_leaves_the_old_fleet_serving(desk: Desk) -> None:
    desk.config("works", desk.model("works", {}))
    desk.config("broken", desk.model("broken", {"die": 0}))
    desk.endpoint("steady", "works")
    desk.sagemaker.update_endpoint(EndpointName="steady", EndpointConfigName="broken")
    found = desk.settled("steady")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "works")
    assert "ping health check" in found["FailureReason"]
    desk.server.faults.add_described({"kind": "capacity", "match": "steady", "times": 1})
    desk.sagemaker.update_endpoint(EndpointName="steady", EndpointConfigName="works")
    assert "InsufficientInstanceCapacity" in desk.settled("steady")["FailureReason"]
    assert desk.ask("steady") == ["works"]


def test_weights_survive_an_update_that_retains_them(desk: Desk) -> None:
    desk.config("kept", desk.model("kept", {}))
    desk.endpoint("scaled", "kept")
    change = [{"VariantName": "AllTraffic", "DesiredWeight": 0.4, "DesiredInstanceCount": 3}]
    desk.sagemaker.update_endpoint_weights_and_capacities(EndpointName="scaled", DesiredWeightsAndCapacities=change)
    desk.sagemaker.update_endpoint(EndpointName="scaled", EndpointConfigName="kept", RetainAllVariantProperties=True)
    assert desk.settled("scaled")["ProductionVariants"][0]["CurrentInstanceCount"] == 3
    desk.sagemaker.update_endpoint(EndpointName="scaled", EndpointConfigName="kept")
    assert desk.settled("scaled")["ProductionVariants"][0]["CurrentInstanceCount"] == 1


def test_a_deployment_whose_guard_cannot_be_kept_is_refused(desk: Desk) -> None:
    desk.config("one", desk.model("one", {}))
    desk.config("other", "one", "one")
    desk.endpoint("careful", "one")

    def refused(said: str, config: str = "one", **deployment: Any) -> None:
        with pytest.raises(ClientError, match=said):
            desk.sagemaker.update_endpoint(
                EndpointName="careful", EndpointConfigName=config, DeploymentConfig=deployment
            )

    refused("Could not find alarm", **canary(alarms=("nobody",)))
    metric = {"Id": "m", "Expression": "1+1", "ReturnData": True}
    desk.cloudwatch.put_metric_alarm(AlarmName="math", EvaluationPeriods=1, Threshold=1, Metrics=[metric],
                                     ComparisonOperator="GreaterThanThreshold")  # fmt: skip
    refused("metric math", **canary(alarms=("math",)))
    refused("at most 50 percent", **canary(60))
    refused("same variant names", "other", **canary())
    size = {"Type": "CAPACITY_PERCENT", "Value": 20}
    refused("RollingUpdatePolicy", RollingUpdatePolicy={"MaximumBatchSize": size, "WaitIntervalInSeconds": 60})


def test_a_model_that_an_endpoint_needs_has_to_be_there(desk: Desk) -> None:
    with pytest.raises(ClientError, match="could not find Model"):
        desk.config("nothing", "no-such-model")
    with pytest.raises(ClientError, match="could not find EndpointConfig"):
        desk.sagemaker.create_endpoint(EndpointName="nothing", EndpointConfigName="no-such-config")
    with pytest.raises(ClientError, match="multi-model"):
        primary = {"Image": "tiny", "Mode": "MultiModel", "ModelDataUrl": "s3://b/k"}
        desk.sagemaker.create_model(ModelName="multi", PrimaryContainer=primary, ExecutionRoleArn=ROLE)


def test_batch_transform_answers_every_object_beside_its_name(desk: Desk) -> None:
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


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("ALL_AT_ONCE", None, [1.0]),
        ("CANARY", ("CAPACITY_PERCENT", 20), [0.2, 1.0]),
        ("CANARY", ("INSTANCE_COUNT", 1), [0.25, 1.0]),
        ("LINEAR", ("CAPACITY_PERCENT", 25), [0.25, 0.5, 0.75, 1.0]),
        ("LINEAR", ("CAPACITY_PERCENT", 30), [0.3, 0.6, 0.9, 1.0]),
    ],
)
def test_traffic_is_shifted_in_the_steps_of_the_policy(kind: str, size: Any, expected: list[float]) -> None:
    named = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(kind, "")
    routing = {"Type": kind} | ({named: {"Type": size[0], "Value": size[1]}} if size else {})
    assert steps(routing, 4) == pytest.approx(expected)


RULE = {"ComparisonOperator": "GreaterThanThreshold", "Threshold": 5, "EvaluationPeriods": 3}


@pytest.mark.parametrize(
    ("rule", "periods", "state"),
    [
        ({}, [6, 7, 8], "ALARM"),
        ({}, [6, 7, 5], "OK"),
        ({"DatapointsToAlarm": 2}, [6, 1, 8], "ALARM"),
        ({}, [None, None, None], "INSUFFICIENT_DATA"),
        ({"TreatMissingData": "notBreaching"}, [None, None, None], "OK"),
        ({"TreatMissingData": "breaching"}, [None, None, None], "ALARM"),
        ({"TreatMissingData": "ignore"}, [None, None, None], None),
        ({"TreatMissingData": "notBreaching"}, [9, None, 9], "OK"),
        ({"ComparisonOperator": "LessThanThreshold"}, [1, 2, 3], "ALARM"),
    ],
)
def test_an_alarm_is_judged_by_its_last_periods(rule: dict[str, Any], periods: list[Any], state: str | None) -> None:
    assert judge({**RULE, **rule}, periods) == state
