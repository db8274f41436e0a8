"""Fault injection: AWS failures that a test or a user switches on."""

import random
import re
import threading
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from local.sagemaker.errors import ApiError, validation_error

FaultKind = Literal["throttle", "capacity", "stuck", "rollback_fails", "delay", "interrupt", "error", "quota", "lost"]


@dataclass
class Fault:
    """One fault.

    | kind           | effect on operations, jobs and endpoints whose name matches `match` (a regular expression) |
    |----------------|-----------------------------------------------------------------------------------|
    | throttle       | the operation responds with ThrottlingException                                   |
    | error          | the operation responds with InternalFailure, status 500                           |
    | quota          | the operation responds with ResourceLimitExceeded                                 |
    | capacity       | there is no capacity for a job, an endpoint or an instance type                   |
    | stuck          | a job or an endpoint stays Starting, Creating, Updating until the fault is cleared |
    | interrupt      | a spot job's instance is reclaimed as soon as it trains                           |
    | lost           | the endpoint's next update leaves it Failed, without any container                |
    | rollback_fails | the endpoint's next rollback fails                                                |
    | delay          | Describe returns the state of `seconds` ago                                       |

    The fault happens `times` times (None: until cleared), each time with the given `probability`.
    """

    kind: FaultKind
    match: str = ""
    times: int | None = None
    probability: float = 1.0
    seconds: float = 0.0


class FaultInjector:
    """The active faults. Random numbers come from a fixed seed, so that tests are repeatable."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._random = random.Random(7)  # noqa: S311 - probabilities of faults, no secret
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._faults.append(fault)

    def add_from_json(self, described: Any) -> None:
        """Add a fault given as JSON. Raises ApiError when it is not valid."""
        try:
            fault = Fault(**described)
            re.compile(fault.match)
        except (TypeError, re.error) as cause:
            raise validation_error(f"{described!r} is not a fault: {cause}") from cause
        if fault.kind not in get_args(FaultKind):
            raise validation_error(f"there is no fault {fault.kind!r}; known are {', '.join(get_args(FaultKind))}")
        self.add(fault)

    def clear(self) -> None:
        """Remove all faults; jobs and endpoints that were stuck continue."""
        with self._lock:
            self._faults.clear()

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the active faults."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def fires(self, kind: FaultKind, name: str) -> bool:
        """Whether a fault of that kind applies to `name` now; each call uses up one of its `times`."""
        return self._take_fault(kind, name) is not None

    def describe_lag(self, name: str) -> float:
        """Return the delay of Describe for `name`, in seconds."""
        fault = self._take_fault("delay", name)
        return fault.seconds if fault else 0.0

    def raise_for_operation(self, operation: str) -> None:
        """Raise the error of a fault that applies to the operation."""
        if self.fires("throttle", operation):
            raise ApiError("ThrottlingException", "Rate exceeded")
        if self.fires("quota", operation):
            message = f"The account-level service limit for {operation} is 0. Please request a quota increase."
            raise ApiError("ResourceLimitExceeded", message)
        if self.fires("error", operation):
            raise ApiError("InternalFailure", "We encountered an internal error. Please try again.", 500)

    def _take_fault(self, kind: FaultKind, name: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.kind != kind or fault.times == 0 or not re.search(fault.match, name):
                    continue
                if fault.probability < 1 and self._random.random() >= fault.probability:
                    continue
                fault.times = None if fault.times is None else fault.times - 1
                return fault
        return None
