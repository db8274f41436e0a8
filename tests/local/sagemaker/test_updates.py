"""Endpoint updates of the local SageMaker: traffic shifting, the alarms that guard it, and rollback."""

import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.sagemaker.rollout import alarm_state, traffic_steps
from tests.fixtures.clocks import Clock
from tests.fixtures.local_aws import SPEED, SageMakerLab
from tests.waiting import wait_for

pytestmark = pytest.mark.slow


def canary(percent: int = 20, wait: int = 60, alarms: tuple[str, ...] = (), kind: str = "CANARY") -> dict[str, Any]:
    """Return a guarded deployment; at the tests' speed a wait of 60 s is one second."""
    size = "CanarySize" if kind == "CANARY" else "LinearStepSize"
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, size: {"Type": "CAPACITY_PERCENT", "Value": percent}}
    policy = {"TrafficRoutingConfiguration": routing, "TerminationWaitInSeconds": 0}
    watched = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}
    return {"BlueGreenUpdatePolicy": policy, **watched}


def alarm(desk: SageMakerLab, name: str, endpoint: str, **more: Any) -> str:
    """Create an alarm on the endpoint's errors, evaluated every minute: every second here."""
    desk.cloudwatch.put_metric_alarm(**{
        "AlarmName": name, "Namespace": "AWS/SageMaker", "MetricName": "Invocation5XXErrors", "Statistic": "Sum",
        "Period": 60, "EvaluationPeriods": 1, "Threshold": 0, "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "Dimensions": [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": "AllTraffic"}],
    } | more)  # fmt: skip
    return name


def test_an_update_loses_no_request(desk: SageMakerLab) -> None:
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
    wait_for(lambda: answers["old"])
    desk.sagemaker.update_endpoint(EndpointName="moving", EndpointConfigName="new")
    assert desk.settled("moving")["EndpointConfigName"] == "new"
    wait_for(lambda: answers["new"])
    ended.set()
    for thread in threads:
        thread.join()
    assert failures == [] and set(answers) == {"old", "new"}


def test_the_old_config_is_shown_and_no_other_update_begins_until_one_is_through(desk: SageMakerLab) -> None:
    for name in ("left", "right"):
        desk.config(name, desk.model(name, {}))
    desk.endpoint("turning", "left")
    desk.server.faults.add_from_json({"kind": "stuck", "match": "^turning$"})  # until the test has read it
    desk.sagemaker.update_endpoint(EndpointName="turning", EndpointConfigName="right")
    during = desk.sagemaker.describe_endpoint(EndpointName="turning")
    assert (during["EndpointStatus"], during["EndpointConfigName"]) == ("Updating", "left")
    with pytest.raises(ClientError, match="in-progress"):
        desk.sagemaker.update_endpoint(EndpointName="turning", EndpointConfigName="right")
    desk.server.faults.clear()
    assert desk.settled("turning")["EndpointConfigName"] == "right"


def test_a_canary_gets_its_share_then_everything(desk: SageMakerLab, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = desk.watched_by(Clock(), monkeypatch)
    for name in ("before", "after"):
        desk.config(name, desk.model(name, {}))
    desk.endpoint("bird", "before")
    desk.sagemaker.update_endpoint(EndpointName="bird", EndpointConfigName="after", DeploymentConfig=canary(50, 240))
    desk.until(lambda: desk.share("bird", 5), lambda seen: seen["after"] > 0)
    assert desk.share("bird")["before"] > 5
    clock.sleep(240 / SPEED)
    assert desk.settled("bird")["LastDeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert desk.share("bird", 10) == {"after": 10}


def test_an_alarm_over_real_metrics_rolls_a_canary_back_and_tells_the_topic(
    desk: SageMakerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.watched_by(Clock(), monkeypatch)  # would never end without the alarm
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

    desk.until(asked, lambda status: status == "InService")
    found = desk.sagemaker.describe_endpoint(EndpointName="guarded")
    assert found["EndpointConfigName"] == "good" and "guarded-5xx" in found["FailureReason"]
    assert desk.share("guarded", 10) == {"good": 10}
    told = desk.sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"]
    assert "ALARM: guarded-5xx" in told
    desk.until(lambda: desk.cloudwatch.describe_alarms(AlarmNames=[guard])["MetricAlarms"][0]["StateValue"],
               lambda state: state == "OK")  # fmt: skip


def test_a_rollback_that_fails_leaves_both_serving_and_says_so(
    desk: SageMakerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.watched_by(Clock(), monkeypatch)  # would never end without the alarm
    for name in ("first", "second"):
        desk.config(name, desk.model(name, {}))
    desk.endpoint("torn", "first")
    guard = alarm(desk, "torn-5xx", "torn")
    desk.server.faults.add_from_json({"kind": "rollback_fails", "match": "^torn$", "times": 1})
    desk.sagemaker.update_endpoint(
        EndpointName="torn", EndpointConfigName="second", DeploymentConfig=canary(50, 600, (guard,))
    )

    def failing() -> str:
        desk.cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[{
            "MetricName": "Invocation5XXErrors", "Value": 1, "Timestamp": datetime.now(UTC),
            "Dimensions": [{"Name": "EndpointName", "Value": "torn"}, {"Name": "VariantName", "Value": "AllTraffic"}],
        }])  # fmt: skip
        return str(desk.sagemaker.describe_endpoint(EndpointName="torn")["EndpointStatus"])

    assert desk.until(failing, lambda status: status != "Updating") == "UpdateRollbackFailed"
    assert set(desk.share("torn")) == {"first", "second"}


def test_an_update_that_cannot_start_leaves_the_old_fleet_serving(desk: SageMakerLab) -> None:
    desk.config("works", desk.model("works", {}))
    desk.config("broken", desk.model("broken", {"die": 0}))
    desk.endpoint("steady", "works")
    desk.sagemaker.update_endpoint(EndpointName="steady", EndpointConfigName="broken")
    found = desk.settled("steady")
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "works")
    assert "ping health check" in found["FailureReason"]
    desk.server.faults.add_from_json({"kind": "capacity", "match": "steady", "times": 1})
    desk.sagemaker.update_endpoint(EndpointName="steady", EndpointConfigName="works")
    assert "InsufficientInstanceCapacity" in desk.settled("steady")["FailureReason"]
    assert desk.ask("steady") == ["works"]


def test_weights_survive_an_update_that_retains_them(desk: SageMakerLab) -> None:
    desk.config("kept", desk.model("kept", {}))
    desk.endpoint("scaled", "kept")
    change = [{"VariantName": "AllTraffic", "DesiredWeight": 0.4, "DesiredInstanceCount": 3}]
    desk.sagemaker.update_endpoint_weights_and_capacities(EndpointName="scaled", DesiredWeightsAndCapacities=change)
    desk.sagemaker.update_endpoint(EndpointName="scaled", EndpointConfigName="kept", RetainAllVariantProperties=True)
    assert desk.settled("scaled")["ProductionVariants"][0]["CurrentInstanceCount"] == 3
    desk.sagemaker.update_endpoint(EndpointName="scaled", EndpointConfigName="kept")
    assert desk.settled("scaled")["ProductionVariants"][0]["CurrentInstanceCount"] == 1


def test_a_deployment_whose_guard_cannot_be_kept_is_refused(desk: SageMakerLab) -> None:
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
    assert traffic_steps(routing, 4) == pytest.approx(expected)


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
    assert alarm_state({**RULE, **rule}, periods) == state
