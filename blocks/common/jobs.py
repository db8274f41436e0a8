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


class Ended(Protocol):
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


State = TypeVar("State", bound=Ended)


@contextmanager
def waiting(stop: Callable[[], None]) -> Iterator[None]:
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


def completed(kind: str, state: State) -> State:
    """Return the state of a job that completed; `kind` is what the message calls it.

    Raises:
        Unavailable: the service failed by itself; try again.
        JobFailed: the job failed or was stopped; the message carries the reason.
    """
    if state.status is JobStatus.completed:
        return state
    error = Unavailable if state.transient else JobFailed
    raise error(f"{kind} {state.name} {state.status.value.lower()}: {state.reason}")
