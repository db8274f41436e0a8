"""Paid jobs, whatever they do: where one stands, and what its end means to who waits for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol, TypeVar

from blocks.common.errors import JobFailed, TransientError, Unavailable


class JobStatus(StrEnum):
    """Where a job stands. `stopped` is a failure: nothing that it made until then may be used."""

    in_progress = "InProgress"
    completed = "Completed"
    failed = "Failed"
    stopped = "Stopped"


class EndedJob(Protocol):
    """What is read here of the state of a job that has ended."""

    @property
    def name(self) -> str:
        """The job's name."""

    @property
    def status(self) -> JobStatus:
        """How it ended."""

    @property
    def reason(self) -> str:
        """Why it failed, "" when it did not."""

    @property
    def transient(self) -> bool:
        """Whether the failure was the service's own, and the same job may well succeed."""


EndedJobT = TypeVar("EndedJobT", bound=EndedJob)


@contextmanager
def stop_if_interrupted(stop: Callable[[], None]) -> Iterator[None]:
    """Stop the job when the wait for it ends early, by a cancelled flow or an interrupt: nothing is left running.

    A service that does not answer for a while does not end it: who tries again attaches to the job that runs.
    """
    try:
        yield
    except TransientError:
        raise
    except BaseException:
        stop()
        raise


def require_completed(job_kind: str, job: EndedJobT) -> EndedJobT:
    """Return the state of a job that completed; `job_kind` is what the message calls it.

    Raises:
        Unavailable: the service failed by itself; try again.
        JobFailed: the job failed or was stopped; the message carries the reason.
    """
    if job.status is JobStatus.completed:
        return job
    error = Unavailable if job.transient else JobFailed
    raise error(f"{job_kind} {job.name} {job.status.value.lower()}: {job.reason}")
