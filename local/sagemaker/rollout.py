"""Blue/green updates: traffic shifts to the new fleet in steps, and is rolled back when an alarm fires."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local.sagemaker.alarms import Alarms
from local.sagemaker.errors import NotImplementedLocally, validation_error
from local.sagemaker.faults import FaultInjector
from local.sagemaker.fleet import Fleet
from local.sagemaker.records import Record

POLL_SECONDS = 0.1
ALL_AT_ONCE: Mapping[str, Any] = {
    "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
}


class RolledBack(Exception):
    """The update was rolled back: the old fleet has all traffic again; the text says why."""


class RollbackFailed(Exception):
    """The rollback failed: both fleets have a share of the traffic."""


class Rollout:
    """One update of one endpoint. `clock` returns seconds, for bake times and the time limit."""

    def __init__(
        self, endpoint: Record, old: Sequence[Fleet], new: Fleet, alarms: Alarms, faults: FaultInjector, speed: float,
        ended: threading.Event, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._endpoint, self._old, self._new = endpoint, old, new
        self._alarms, self._faults, self._speed, self._ended = alarms, faults, speed, ended
        self._clock = clock

    def run(self, deployment: Mapping[str, Any]) -> None:
        """Shift the traffic in the steps of the deployment.

        Raises:
            RolledBack: an alarm fired, or the update took too long; the old fleet has all traffic again.
            RollbackFailed: the same, with the fault `rollback_fails`.
        """
        policy = deployment.get("BlueGreenUpdatePolicy") or ALL_AT_ONCE["BlueGreenUpdatePolicy"]
        routing = policy["TrafficRoutingConfiguration"]
        alarms = [each["AlarmName"] for each in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", ())]
        limit = self._clock() + policy.get("MaximumExecutionTimeoutInSeconds", 28_800) / self._speed
        for share in traffic_steps(routing, self._instances()):
            self._shift_traffic(share)
            wait_seconds = routing["WaitIntervalInSeconds"] if share < 1 else policy.get("TerminationWaitInSeconds", 0)
            self._bake(wait_seconds / self._speed, alarms, limit)

    def _bake(self, seconds: float, alarms: Sequence[str], limit: float) -> None:
        end = self._clock() + seconds
        while True:
            if fired := self._alarms.in_alarm(alarms):
                self._roll_back(f"Deployment rolled back: the alarm(s) {', '.join(fired)} went into ALARM")
            if self._clock() > limit:
                self._roll_back("Deployment rolled back: it took longer than MaximumExecutionTimeoutInSeconds")
            if self._ended.is_set() or self._clock() >= end:
                return
            self._ended.wait(min(POLL_SECONDS, max(end - self._clock(), 0.0)))

    def _roll_back(self, reason: str) -> None:
        if self._faults.fires("rollback_fails", self._endpoint.name):
            raise RollbackFailed(f"{reason}; and the rollback failed")
        self._shift_traffic(0.0)
        raise RolledBack(reason)

    def _shift_traffic(self, share: float) -> None:
        self._new.traffic_share = share
        old_shares = [fleet.traffic_share for fleet in self._old]
        for fleet in self._old:
            relative = fleet.traffic_share / sum(old_shares) if sum(old_shares) else 1 / len(old_shares)
            fleet.traffic_share = (1.0 - share) * relative

    def _instances(self) -> int:
        return sum(variant.instances or 1 for variant in self._new.production.values())


def traffic_steps(routing: Mapping[str, Any], instances: int) -> list[float]:
    """Return the traffic shares of the new fleet, one per step."""
    if routing["Type"] == "ALL_AT_ONCE":
        return [1.0]
    size = routing["CanarySize"] if routing["Type"] == "CANARY" else routing["LinearStepSize"]
    part = size["Value"] / (100 if size["Type"] == "CAPACITY_PERCENT" else instances)
    if routing["Type"] == "CANARY":
        return [min(part, 1.0), 1.0]
    shares = [part * step for step in range(1, int(1 / part) + 1)]
    return [*(share for share in shares if share < 1 - 1e-9), 1.0]


def check_deployment(deployment: Mapping[str, Any], live: Record, config: Record, alarms: Alarms) -> None:
    """Refuse a deployment that AWS would refuse, or whose alarms cannot be evaluated here."""
    if not deployment:
        return
    if deployment.get("RollingUpdatePolicy"):
        raise NotImplementedLocally("DeploymentConfig.RollingUpdatePolicy")
    names = [{variant["VariantName"] for variant in each["ProductionVariants"]} for each in (live, config)]
    if names[0] != names[1]:
        raise validation_error(
            "The new endpoint configuration must have the same variant names as the one in service when a "
            f"DeploymentConfig is given: {sorted(names[0])}, {sorted(names[1])}."
        )
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    size = {"CANARY": "CanarySize", "LINEAR": "LinearStepSize"}.get(routing.get("Type", ""))
    if size and size not in routing:
        raise validation_error(f"{size} is required for traffic routing of type {routing['Type']}.")
    if size and routing[size]["Type"] == "CAPACITY_PERCENT" and not 1 <= routing[size]["Value"] <= 50:
        raise validation_error(f"{size} must be at most 50 percent of the capacity; it is {routing[size]['Value']}.")
    names_of_alarms = [each["AlarmName"] for each in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", ())]
    alarms.check_supported(names_of_alarms)
