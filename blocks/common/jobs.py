"""Shared parts of the job ports: job status, the stop of a job whose wait is interrupted, and errors of failed jobs."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol, TypeVar

from blocks.common.errors import JobFailed, TransientError, Unavailable

NAME_PATTERN = re.compile(r"[A-Za-z0-9](-*[A-Za-z0-9]){0,62}")
"""SageMaker's rule for the names of jobs; such a name is also safe as a folder's name."""


class JobStatus(StrEnum):
    """Status of a job. `stopped` is a failure: nothing that the job wrote may be used."""

    in_progress = "InProgress"
    completed = "Completed"
    failed = "Failed"
    stopped = "Stopped"


class EndedJob(Protocol):
    """The state of a job that has ended, as far as this module reads it."""

    @property
    def name(self) -> str:
        """The job's name."""

    @property
    def status(self) -> JobStatus:
        """The final status."""

    @property
    def reason(self) -> str:
        """Why it failed; "" if it did not."""

    @property
    def transient(self) -> bool:
        """Whether the service caused the failure, so that the same job may succeed."""


EndedJobT = TypeVar("EndedJobT", bound=EndedJob)


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


def require_completed(job_kind: str, job: EndedJobT) -> EndedJobT:
    """Return the state of a job that completed; `job_kind` names the job in the message.

    Raises:
        Unavailable: the service caused the failure; try again.
        JobFailed: the job failed or was stopped; the message gives the reason.
    """
    if job.status is JobStatus.completed:
        return job
    error = Unavailable if job.transient else JobFailed
    raise error(f"{job_kind} {job.name} {job.status.value.lower()}: {job.reason}")
