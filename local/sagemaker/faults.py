"""Faults on demand: what AWS does to people on bad days, as a list that a test or a person sets."""

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

    | kind           | what happens to that in whose name `match` (a regular expression) is found        |
    |----------------|-----------------------------------------------------------------------------------|
    | throttle       | the operation is answered with ThrottlingException                                |
    | error          | the operation is answered with InternalFailure, status 500                        |
    | quota          | the operation is answered with ResourceLimitExceeded                              |
    | capacity       | a job, an endpoint or an instance type finds no capacity                          |
    | stuck          | a job or an endpoint stays Starting, Creating, Updating until the fault is cleared |
    | interrupt      | a spot job's instance is taken away, as soon as it trains                         |
    | lost           | the endpoint's next update leaves it Failed: nothing answers any more             |
    | rollback_fails | the endpoint's next rollback fails                                                |
    | delay          | Describe answers as of `seconds` ago                                              |

    It happens `times` times (None: until cleared), each time with the chance `probability`.
    """

    kind: FaultKind
    match: str = ""
    times: int | None = None
    probability: float = 1.0
    seconds: float = 0.0


class FaultInjector:
    """The faults that are set. Chances are drawn from one seed, so that a test sees the same ones again."""

    def __init__(self, seed: int = 7) -> None:
        self._faults: list[Fault] = []
        self._random = random.Random(seed)  # noqa: S311 - chances of faults, no secret
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Set a fault."""
        with self._lock:
            self._faults.append(fault)

    def add_from_json(self, described: Any) -> None:
        """Set a fault given as JSON. Raises Refused when it is none."""
        try:
            fault = Fault(**described)
            re.compile(fault.match)
        except (TypeError, re.error) as cause:
            raise validation_error(f"{described!r} is no fault: {cause}") from cause
        if fault.kind not in get_args(FaultKind):
            raise validation_error(f"there is no fault {fault.kind!r}; there are {', '.join(get_args(FaultKind))}")
        self.add(fault)

    def clear(self) -> None:
        """Forget all faults: what was stuck goes on."""
        with self._lock:
            self._faults.clear()

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the faults that are set."""
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def fires(self, kind: FaultKind, name: str) -> bool:
        """Whether a fault of that kind happens to `name` now; one with `times` is used up by it."""
        return self._take_fault(kind, name) is not None

    def describe_lag(self, name: str) -> float:
        """Return by how many seconds Describe lags for `name`."""
        found = self._take_fault("delay", name)
        return found.seconds if found else 0.0

    def raise_for_operation(self, operation: str) -> None:
        """Raise what the operation is to be answered with."""
        if self.fires("throttle", operation):
            raise ApiError("ThrottlingException", "Rate exceeded")
        if self.fires("quota", operation):
            said = f"The account-level service limit for {operation} is 0. Please request a quota increase."
            raise ApiError("ResourceLimitExceeded", said)
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
