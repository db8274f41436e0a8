"""Blue/green updates, and the alarms that roll them back: traffic shifts to the new fleet in steps.

moto stores the CloudWatch alarms, and this module sets their state from the metrics. An alarm over one metric and a
plain statistic is evaluated as CloudWatch documents it: the last periods, how many of them breach, and how a missing
period counts. Periods are divided by the server's speed. A change of state publishes to the SNS topics among the
alarm's actions.
"""

import logging
import operator
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from local.sagemaker.aws import AwsClients
from local.sagemaker.errors import NotImplementedLocally, validation_error
from local.sagemaker.faults import FaultInjector
from local.sagemaker.fleet import Fleet
from local.sagemaker.records import Record

_log = logging.getLogger("local-sagemaker.alarms")

EVALUATION_SECONDS, POLL_SECONDS = 0.5, 0.1
"""Seconds between two evaluations of all alarms, and between two checks of those of an update."""
COMPARISONS = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
ACTIONS = {"ALARM": "AlarmActions", "OK": "OKActions", "INSUFFICIENT_DATA": "InsufficientDataActions"}
ALL_AT_ONCE: Mapping[str, Any] = {
    "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}}
}


class Alarms:
    """Evaluates all alarms periodically, and immediately when an update needs it."""

    def __init__(self, aws: AwsClients, speed: float) -> None:
        self._aws, self._speed = aws, speed
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._evaluate_repeatedly, daemon=True, name="alarms")

    def start(self) -> None:
        """Start the periodic evaluation."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the periodic evaluation."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def check_supported(self, names: Sequence[str]) -> None:
        """Refuse alarms that do not exist, or that have a kind that is not evaluated here."""
        alarms = {alarm["AlarmName"]: alarm for alarm in self._describe(names)}
        for name in names:
            if name not in alarms:
                raise validation_error(f'Could not find alarm "{name}".')
            if not is_supported(alarms[name]):
                raise NotImplementedLocally(f"alarm {name}: metric math, anomaly detection or extended statistics")

    def in_alarm(self, names: Sequence[str]) -> list[str]:
        """Evaluate these alarms now and return the names of those in state ALARM."""
        if not names:
            return []
        self.evaluate(names)
        return [alarm["AlarmName"] for alarm in self._describe(names) if alarm["StateValue"] == "ALARM"]

    def evaluate(self, names: Sequence[str] | None = None) -> None:
        """Set the state of the alarms (None: all) from the current metrics."""
        with self._lock:
            self._aws.send_metrics()
            for alarm in self._describe(names):
                if is_supported(alarm):
                    self._update_state(alarm, datetime.now(UTC))

    def _evaluate_repeatedly(self) -> None:
        while not self._stopping.wait(EVALUATION_SECONDS):
            try:
                self.evaluate()
            except Exception:
                if not self._stopping.is_set():  # else moto is shutting down
                    _log.exception("the alarms could not be evaluated; trying again in %s s", EVALUATION_SECONDS)

    def _describe(self, names: Sequence[str] | None) -> list[dict[str, Any]]:
        if names is not None and not names:
            return []
        selection = {} if names is None else {"AlarmNames": list(names)}
        return list(self._aws.cloudwatch.describe_alarms(**selection)["MetricAlarms"])

    def _update_state(self, alarm: Mapping[str, Any], now: datetime) -> None:
        periods = self._periods(alarm, now)
        state = alarm_state(alarm, periods)
        if state == alarm["StateValue"] or state is None:
            return
        reason = f"{alarm['Statistic']} of the last {len(periods)} periods: {periods}, threshold {alarm['Threshold']}"
        self._aws.cloudwatch.set_alarm_state(AlarmName=alarm["AlarmName"], StateValue=state, StateReason=reason)
        for action in alarm.get(ACTIONS[state], ()) if alarm.get("ActionsEnabled", True) else ():
            if ":sns:" in action:
                subject = f"{state}: {alarm['AlarmName']}"[:100]
                self._aws.sns.publish(TopicArn=action, Subject=subject, Message=reason)

    def _periods(self, alarm: Mapping[str, Any], now: datetime) -> list[float | None]:
        """Return the statistic of each of the last periods, oldest first; None for a period without data."""
        seconds = alarm["Period"] / self._speed
        count = alarm["EvaluationPeriods"]
        start = now - timedelta(seconds=seconds * count)
        datapoints = self._aws.cloudwatch.get_metric_statistics(
            Namespace=alarm["Namespace"], MetricName=alarm["MetricName"], Dimensions=alarm.get("Dimensions", []),
            StartTime=start - timedelta(seconds=1), EndTime=now + timedelta(seconds=2), Period=1,
            Statistics=["Sum", "SampleCount", "Minimum", "Maximum"],
        )["Datapoints"]  # fmt: skip
        parts: list[list[Any]] = [[] for _ in range(count)]
        for datum in datapoints:
            place = int((datum["Timestamp"] - start).total_seconds() // seconds)
            if -1 <= place <= count:  # timestamps have whole seconds: accept those just outside as well
                parts[min(max(place, 0), count - 1)].append(datum)
        return [statistic(alarm["Statistic"], part) for part in parts]


def is_supported(alarm: Mapping[str, Any]) -> bool:
    """Whether an alarm has a kind that is evaluated here."""
    return bool(alarm.get("MetricName") and alarm.get("Statistic") and alarm["ComparisonOperator"] in COMPARISONS)


def statistic(name: str, data: Sequence[Mapping[str, Any]]) -> float | None:
    """Return Sum, SampleCount, Average, Minimum or Maximum of the data of one period; None without data."""
    if not data:
        return None
    total, count = sum(each["Sum"] for each in data), sum(each["SampleCount"] for each in data)
    lowest, highest = min(each["Minimum"] for each in data), max(each["Maximum"] for each in data)
    values = {"Sum": total, "SampleCount": count, "Average": total / count, "Minimum": lowest, "Maximum": highest}
    return float(values[name])


def alarm_state(alarm: Mapping[str, Any], periods: Sequence[float | None]) -> str | None:
    """Return the alarm's new state, or None when it does not change."""
    breaches = COMPARISONS[alarm["ComparisonOperator"]]
    missing = alarm.get("TreatMissingData", "missing")
    filled = {"breaching": True, "notBreaching": False}.get(missing)
    known = [breaches(value, alarm["Threshold"]) if value is not None else filled for value in periods]
    counted = [each for each in known if each is not None]
    if not counted:
        return None if missing == "ignore" else "INSUFFICIENT_DATA"
    needed = alarm.get("DatapointsToAlarm") or alarm["EvaluationPeriods"]
    return "ALARM" if sum(counted) >= min(needed, len(counted) if missing == "missing" else needed) else "OK"


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
