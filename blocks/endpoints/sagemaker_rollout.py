"""Update of one SageMaker endpoint: read its state, then create it, update it or wait."""

import time
from collections.abc import Mapping
from typing import Any

from blocks.common.aws.clients import is_missing
from blocks.common.errors import Rejected, Unavailable

TRANSITIONAL_STATUSES = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
NO_CAPACITY_REASONS = ("InsufficientInstanceCapacity", "CapacityError", "insufficient capacity")


class EndpointRollout:
    """Creates, updates and deletes one endpoint. Raises botocore's errors, and port errors about the endpoint."""

    def __init__(
        self, client: Any, name: str, wait_seconds: float, poll_seconds: float, tags: Mapping[str, str]
    ) -> None:
        self._client, self._name = client, name
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._deadline, self._poll = time.monotonic() + wait_seconds, poll_seconds

    def describe(self) -> Mapping[str, Any] | None:
        """Return the endpoint's description, or None if it does not exist."""
        from botocore.exceptions import ClientError

        try:
            return dict(self._client.describe_endpoint(EndpointName=self._name))
        except ClientError as error:
            if is_missing(error):
                return None
            raise

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
        reason = current.get("FailureReason") or "SageMaker gives no reason; see the endpoint's log"
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
        self._client.create_endpoint(EndpointName=self._name, EndpointConfigName=config, Tags=self._tags)

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
        time.sleep(self._poll)
        return self.describe()
