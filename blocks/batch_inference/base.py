"""The batch inference port: predictions for many rows by one model version on paid machines.

The rows are sent to the container's `/invocations`.
"""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from prefect.blocks.core import Block
from pydantic import Field

from blocks.common.collectable import ArtifactOwner
from blocks.common.errors import JobFailed
from blocks.common.jobs import JobState, JobStatus, require_completed, stop_if_interrupted
from blocks.records.compute import Compute


@dataclass(frozen=True)
class BatchInferenceJob:
    """A batch inference job: one model version that predicts some rows.

    The caller derives `name` from rows and version, so that a retry finds the running job.
    `run_id` is the id of the tracking run that the cost belongs to; a service may show it with the job.
    `model_folder` is the exact artifact with that `digest`: an MLflow model folder, with `model.sig` beside it.
    """

    name: str
    model_folder: Path
    version: str
    digest: str
    max_seconds: int
    run_id: str = ""


@dataclass(frozen=True)
class RequestPart:
    """One request: its JSON body for `/invocations`, and columns that are returned unchanged beside the predictions.

    `passthrough` has one row per request row in the same order; the model does not see it.
    """

    request: bytes
    passthrough: pa.Table


class BatchInference(ArtifactOwner, Block):
    """Predicts many rows. A job that is submitted twice runs, and is paid, once."""

    rows_per_second: float = Field(default=13_000.0, gt=0, description="Rows per second of all instances together.")
    startup_seconds: float = Field(default=300.0, ge=0, description="Seconds until the instances predict.")
    local_rows_per_second: float = Field(
        default=30_000.0, gt=0, description="Rows per second that a flow run predicts on its own machine."
    )
    max_usd_per_hour_saved: float = Field(
        default=1.0,
        ge=0,
        description="Value of one saved hour of waiting in US dollars; decides between flow run and paid machines.",
    )
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two polls of a job.")

    @abstractmethod
    def compute(self, max_seconds: int) -> Compute:
        """Return the compute of a job of at most `max_seconds`, so that it can be priced. No service is called."""

    @abstractmethod
    def submit(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> None:
        """Start the job, or attach to the one of that name that is running or completed.

        The parts are read only if none are stored for that name. A job that failed or was stopped starts again, with
        the stored parts.

        Raises:
            Conflict: a job of that name exists for another model version.
            Rejected: there are no parts, or the service refuses the request.
        """

    @abstractmethod
    def state(self, name: str) -> JobState:
        """Return the state of the job. Raises NotFound if there is no job of that name."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Request the stop of the job; no error if it has ended already."""

    @abstractmethod
    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield the passthrough columns and the response body of each part of a completed job, in order.

        Raises:
            Corrupt: a response is missing.
        """

    def run(self, job: BatchInferenceJob, parts: Iterable[RequestPart], log: Callable[[str], None]) -> JobState:
        """Submit, wait, and return the state of the completed job.

        An interrupted wait (a cancelled flow, a signal) stops the job. A TransientError does not: the retry attaches to
        the running job. SageMaker has no time limit for such jobs, so this call stops one that takes longer than
        `max_seconds`.

        Raises:
            TransientError: the service did not respond, or caused the failure; try again.
            JobFailed: the job failed, was stopped, or took too long; the message gives the reason.
        """
        self.submit(job, parts)
        with stop_if_interrupted(lambda: self.stop(job.name)):
            state = self._wait_until_ended(job, log)
        return require_completed("transform job", state)

    def _wait_until_ended(self, job: BatchInferenceJob, log: Callable[[str], None]) -> JobState:
        log(f"transform job {job.name} is submitted")
        while (state := self.state(job.name)).status is JobStatus.in_progress:
            if state.seconds > job.max_seconds:
                raise JobFailed(f"transform job {job.name} took longer than {job.max_seconds} s and was stopped")
            time.sleep(self.poll_seconds)
        log(f"transform job {job.name} is {state.status.value} after {state.seconds:.0f} s")
        return state
