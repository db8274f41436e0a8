"""Update of one SageMaker endpoint, monitored by alarms: read its state, then create it, update it or wait."""

import time
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from blocks.common.aws.clients import response_or_none
from blocks.common.aws.jobs import failure_reason, tag_list
from blocks.common.errors import Rejected, Unavailable
from blocks.endpoints.sagemaker_requests import VARIANT, endpoint_name

TRANSITIONAL_STATUSES = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
NO_CAPACITY_REASONS = ("InsufficientInstanceCapacity", "CapacityError", "insufficient capacity")
ALARM_PERIOD_SECONDS = 60


class RolloutSettings(BaseModel):
    """How an update is monitored: canary share, observation time, and the alarms that roll it back."""

    canary_percent: int = Field(
        default=0, ge=0, le=50, description="Percentage of the traffic that goes to an update first; 0: all at once."
    )
    bake_seconds: int = Field(
        default=0, ge=0, le=3600, description="Seconds that alarms observe an update before it is final."
    )
    max_error_rate: float = Field(
        default=0.0, ge=0, lt=1, description="5xx error rate above which an update is rolled back."
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="Mean latency above which an update is rolled back."
    )
    alarms: list[str] = Field(default=[], max_length=8, description="Other CloudWatch alarms that roll back an update.")
    tags: dict[str, str] = Field(default={}, description="Tags of every endpoint, such as its environment.")
    update_timeout_seconds: float = Field(
        default=3600.0, gt=0, description="Timeout of an update, including the observation."
    )
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two polls of an update.")


def deployment_config(endpoint: str, settings: RolloutSettings) -> dict[str, Any]:
    """Return the `DeploymentConfig` of an update: a canary with alarms, or all at once."""
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": settings.bake_seconds}
    if settings.canary_percent:
        size = {"Type": "CAPACITY_PERCENT", "Value": settings.canary_percent}
        routing = {"Type": "CANARY", "WaitIntervalInSeconds": settings.bake_seconds, "CanarySize": size}
    deployment: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 0 if settings.canary_percent else settings.bake_seconds,
        }
    }
    if names := [alarm["AlarmName"] for alarm in alarm_requests(endpoint, settings)] + list(settings.alarms):
        deployment["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in names]}
    return deployment


def alarm_requests(endpoint: str, settings: RolloutSettings) -> list[dict[str, Any]]:
    """Return the arguments of `put_metric_alarm`: the rate of 5xx responses, and the mean latency."""
    if not settings.bake_seconds:
        return []
    limits = {"Invocation5XXErrors": settings.max_error_rate}
    if settings.max_latency_ms is not None:
        limits["ModelLatency"] = settings.max_latency_ms * 1000  # the metric is in microseconds
    name = endpoint_name(endpoint)
    dimensions = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": VARIANT}]
    return [
        {
            "AlarmName": f"{name}-{metric}",
            "AlarmDescription": f"Rolls back an update of the endpoint {name}",
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Dimensions": dimensions,
            "Statistic": "Average",
            "Period": ALARM_PERIOD_SECONDS,
            "EvaluationPeriods": 1,
            "Threshold": limit,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        }
        for metric, limit in limits.items()
    ]


class EndpointRollout:
    """Creates, updates and deletes one endpoint. Raises botocore's errors, and port errors about the endpoint."""

    def __init__(self, client: Any, name: str, settings: RolloutSettings) -> None:
        self._client, self._name, self._settings = client, name, settings
        self._deadline = time.monotonic() + settings.update_timeout_seconds

    def describe(self) -> Mapping[str, Any] | None:
        """Return the endpoint's description, or None if it does not exist."""
        found: Mapping[str, Any] | None = response_or_none(self._client.describe_endpoint, EndpointName=self._name)
        return found

    def update_to(self, config: str, deployment: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Make the endpoint serve a configuration, and return its description; do nothing if it does already.

        Raises:
            Rejected: the update was rolled back to the previous configuration, or the endpoint had to be recreated
                with it; or a first release failed (and was deleted).
            Unavailable: there is no capacity now, or the update takes too long.
        """
        current = self._wait_until_stable()
        if current is not None and current["EndpointStatus"] in ("Failed", "OutOfService"):
            self.delete()  # AWS allows nothing else for such an endpoint
            current = None
        before = current["EndpointConfigName"] if current is not None else ""
        if current is None:
            self._create(config)
        elif current["EndpointConfigName"] != config or current["EndpointStatus"] != "InService":
            guard = {"DeploymentConfig": deployment} if deployment else {}
            self._client.update_endpoint(
                EndpointName=self._name,
                EndpointConfigName=config,
                RetainAllVariantProperties=True,  # the counts and weights that autoscaling has set
                **guard,
            )
        else:
            return current
        return self._check_update(config, before)

    def delete(self) -> None:
        """Delete the endpoint if it exists, and wait until it is deleted."""
        current = self._wait_until_stable()
        if current is not None:
            self._client.delete_endpoint(EndpointName=self._name)
        while current is not None:
            current = self._poll_again(current)

    def _check_update(self, config: str, before: str) -> Mapping[str, Any]:
        current = self._wait_until_stable()
        if current is None:
            raise Rejected(f"endpoint {self._name} was deleted while it was being updated")
        reason = failure_reason(current)
        if current["EndpointStatus"] == "InService" and current["EndpointConfigName"] == config:
            return current
        if any(text in reason for text in NO_CAPACITY_REASONS):
            raise Unavailable(f"endpoint {self._name}: {reason}")
        if current["EndpointStatus"] == "UpdateRollbackFailed":
            raise Rejected(f"endpoint {self._name} serves the new AND the old version: {reason}; "
                           "roll back to the previous version")  # fmt: skip
        if current["EndpointStatus"] == "InService":
            problem = f"endpoint {self._name} still serves {current['EndpointConfigName']}, not {config}"
            raise Rejected(f"{problem}: {reason}")
        self.delete()
        if not before:
            raise Rejected(f"endpoint {self._name} did not start: {reason}")
        self._create(before)
        recreated = self._wait_until_stable()
        status = recreated["EndpointStatus"] if recreated else "deleted"
        raise Rejected(f"endpoint {self._name} failed while updating to {config}: {reason}; it was recreated with "
                       f"{before}, and is {status}")  # fmt: skip

    def _create(self, config: str) -> None:
        self._client.create_endpoint(
            EndpointName=self._name, EndpointConfigName=config, Tags=tag_list(self._settings.tags)
        )

    def _wait_until_stable(self) -> Mapping[str, Any] | None:
        """Return the endpoint's description once its status no longer changes by itself."""
        current = self.describe()
        while current is not None and current["EndpointStatus"] in TRANSITIONAL_STATUSES:
            current = self._poll_again(current)
        return current

    def _poll_again(self, current: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if time.monotonic() > self._deadline:
            status = current["EndpointStatus"]
            raise Unavailable(f"endpoint {self._name} is {status} for longer than update_timeout_seconds; "
                              "try again to continue waiting")  # fmt: skip
        time.sleep(self._settings.poll_seconds)
        return self.describe()
