"""Shared parts of the job ports: job states, the stop of a job whose wait is interrupted, and errors of failed jobs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from blocks.common.errors import JobFailed, TransientError, Unavailable

NAME_PATTERN = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")
"""SageMaker's rule for the names of jobs; such a name is also safe as a folder's name."""


class JobStatus(StrEnum):
    """Status of a job. `stopped` is a failure: nothing that the job wrote may be used."""

    in_progress = "InProgress"
    completed = "Completed"
    failed = "Failed"
    stopped = "Stopped"


@dataclass(frozen=True)
class JobState:
    """Current state of a job.

    Attributes:
        name: the job's name.
        status: the job's status.
        seconds: run time until now or until the end.
        reason: why it failed; "" if it did not.
        billable_seconds: seconds that the service bills for each instance, warm pool included; None if unknown.
        instance_type: the instance type that ran it; "" if unknown, or on this machine.
        transient: whether the service caused the failure (such as no capacity), so that the same job may succeed.
    """

    name: str
    status: JobStatus
    seconds: float = 0.0
    reason: str = ""
    billable_seconds: float | None = None
    instance_type: str = ""
    transient: bool = False


JobStateT = TypeVar("JobStateT", bound=JobState)


@contextmanager
def stop_if_interrupted(stop: Callable[[], None]) -> Iterator[None]:
    """Stop the job if the wait for it is interrupted (a cancelled flow, a signal), so that nothing is left running.

    A TransientError does not stop the job: the retry attaches to it.
    """
    try:
        yield
    except TransientError:
        raise
    except BaseException:
        stop()
        raise


def require_completed(job_kind: str, job: JobStateT) -> JobStateT:
    """Return the state of a job that completed; `job_kind` names the job in the message.

    Raises:
        Unavailable: the service caused the failure; try again.
        JobFailed: the job failed or was stopped; the message gives the reason.
    """
    if job.status is JobStatus.completed:
        return job
    error = Unavailable if job.transient else JobFailed
    raise error(f"{job_kind} {job.name} {job.status.value.lower()}: {job.reason}")
