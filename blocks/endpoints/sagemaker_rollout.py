"""One SageMaker endpoint on its way to a configuration: what is there is read first, then it is made, or waited for."""

import time
from collections.abc import Mapping
from typing import Any

from blocks.common.aws.clients import is_missing
from blocks.common.errors import Rejected, Unavailable

TRANSITIONAL_STATUSES = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
NO_CAPACITY_REASONS = ("InsufficientInstanceCapacity", "CapacityError", "insufficient capacity")


class EndpointRollout:
    """Errors are botocore's, but for those of the endpoint itself."""

    def __init__(
        self, client: Any, name: str, wait_seconds: float, poll_seconds: float, tags: Mapping[str, str]
    ) -> None:
        self._client, self._name = client, name
        self._tags = [{"Key": key, "Value": value} for key, value in tags.items()]
        self._deadline, self._poll = time.monotonic() + wait_seconds, poll_seconds

    def describe(self) -> Mapping[str, Any] | None:
        """Return the endpoint's description, or None when there is none."""
        from botocore.exceptions import ClientError

        try:
            return dict(self._client.describe_endpoint(EndpointName=self._name))
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    def update_to(self, config: str, deployment: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Make the endpoint serve a configuration, and return its description; nothing changes when it does.

        Raises:
            Rejected: it came back to what it served before, or was made anew with that; or a first release failed
                (and was removed).
            Unavailable: there is no capacity just now, or it takes too long.
        """
        found = self._wait_until_stable()
        if found is not None and found["EndpointStatus"] in ("Failed", "OutOfService"):
            self.delete()  # nothing else can be done with it, as AWS says
            found = None
        before = found["EndpointConfigName"] if found is not None else ""
        if found is None:
            self._create(config)
        elif found["EndpointConfigName"] != config or found["EndpointStatus"] != "InService":
            guard = {"DeploymentConfig": deployment} if deployment else {}
            self._client.update_endpoint(
                EndpointName=self._name,
                EndpointConfigName=config,
                RetainAllVariantProperties=True,  # what autoscaling has made of counts and weights
                **guard,
            )
        else:
            return found
        return self._check_update(config, before)

    def delete(self) -> None:
        """Delete the endpoint, when it is there, and wait until it is gone."""
        found = self._wait_until_stable()
        if found is not None:
            self._client.delete_endpoint(EndpointName=self._name)
        while found is not None:
            found = self._poll_again(found)

    def _check_update(self, config: str, before: str) -> Mapping[str, Any]:
        found = self._wait_until_stable()
        if found is None:
            raise Rejected(f"endpoint {self._name} was deleted while it was being changed")
        reason = found.get("FailureReason") or "SageMaker gives no reason; see the endpoint's log"
        if found["EndpointStatus"] == "InService" and found["EndpointConfigName"] == config:
            return found
        if any(sign in reason for sign in NO_CAPACITY_REASONS):
            raise Unavailable(f"endpoint {self._name}: {reason}")
        if found["EndpointStatus"] == "UpdateRollbackFailed":
            raise Rejected(f"endpoint {self._name} answers with the new AND the old version: {reason}; "
                           "restore the version before it")  # fmt: skip
        if found["EndpointStatus"] == "InService":
            raise Rejected(f"endpoint {self._name} serves {found['EndpointConfigName']} on, not {config}: {reason}")
        self.delete()
        if not before:
            raise Rejected(f"endpoint {self._name} did not come up: {reason}")
        self._create(before)
        again = self._wait_until_stable()
        status = again["EndpointStatus"] if again else "gone"
        raise Rejected(f"endpoint {self._name} was lost on its way to {config}: {reason}; it was made anew with "
                       f"{before}, and is {status}")  # fmt: skip

    def _create(self, config: str) -> None:
        self._client.create_endpoint(EndpointName=self._name, EndpointConfigName=config, Tags=self._tags)

    def _wait_until_stable(self) -> Mapping[str, Any] | None:
        """Return the endpoint's description once nothing moves any more."""
        found = self.describe()
        while found is not None and found["EndpointStatus"] in TRANSITIONAL_STATUSES:
            found = self._poll_again(found)
        return found

    def _poll_again(self, found: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if time.monotonic() > self._deadline:
            raise Unavailable(f"endpoint {self._name} is {found['EndpointStatus']} for longer than wait_seconds; "
                              "try again to wait on")  # fmt: skip
        time.sleep(self._poll)
        return self.describe()
