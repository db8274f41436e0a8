"""The transform port: many rows predicted by one model version on paid machines, by the container's `/invocations`."""

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from prefect.blocks.core import Block
from pydantic import Field

from blocks.common.collectable import ArtifactOwner
from blocks.common.compute import Compute
from blocks.common.errors import JobFailed
from blocks.common.jobs import JobStatus, require_completed, stop_if_interrupted


@dataclass(frozen=True)
class BatchInferenceJob:
    """One model version that is to answer some rows.

    `name` is derived by the caller from rows and version, so that a retry finds the job that is there.
    `run_id` is the id of the tracked run that pays for it, which a service may show with the job.
    `model_folder` is the exact artifact (an MLflow model folder, its signature beside it as `model.sig`) of that `digest`.
    """

    name: str
    model_folder: Path
    version: str
    digest: str
    max_seconds: int
    run_id: str = ""


@dataclass(frozen=True)
class RequestPart:
    """Some rows: JSON as posted to `/invocations`, and what is joined to the answers, a row each in the same order.

    What is carried is given back as it was, and is not shown to the model.
    """

    request: bytes
    passthrough: pa.Table


@dataclass(frozen=True)
class BatchInferenceJobState:
    """What is known of a job now; the members mean what those of `blocks.trainers.base.TrainingJobState` do."""

    name: str
    status: JobStatus
    seconds: float = 0.0
    reason: str = ""
    billable_seconds: float | None = None
    instance_type: str = ""
    transient: bool = False


class BatchInference(ArtifactOwner, Block):
    """Predicts many rows. Submitting the same job twice predicts and pays once."""

    rows_per_second: float = Field(
        default=13_000.0, gt=0, description="How many rows a second all instances predict together."
    )
    startup_seconds: float = Field(default=300.0, ge=0, description="How long it takes until they predict.")
    local_rows_per_second: float = Field(
        default=30_000.0, gt=0, description="How many rows a second a flow run predicts where it runs."
    )
    max_usd_per_hour_saved: float = Field(
        default=1.0, ge=0, description="What one hour less of waiting for predictions may cost, in US dollars."
    )
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two looks at a job.")

    @abstractmethod
    def compute(self, max_seconds: int) -> Compute:
        """Return what a job of at most `max_seconds` will ask for, so that it can be priced. No service is asked."""

    @abstractmethod
    def submit(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> None:
        """Start the job, or attach to the one of that name that is running or has completed.

        The parts are asked for only where none are kept for that name. A job that failed or was stopped is started
        anew, on the parts that are kept.

        Raises:
            Conflict: a job of that name exists for another model version.
            Rejected: there are no parts, or the service refuses the request.
        """

    @abstractmethod
    def state(self, name: str) -> BatchInferenceJobState:
        """Return what is known of the job. Raises NotFound when there is none of that name."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Ask for the job's end; no error when it has ended already."""

    @abstractmethod
    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield, for each part of a completed job in order, what it carried and the body of its answer.

        Raises:
            Corrupt: an answer is not there.
        """

    def run(
        self, job: BatchInferenceJob, parts: Iterable[RequestPart], log: Callable[[str], None]
    ) -> BatchInferenceJobState:
        """Submit, wait, and return the state of the completed job.

        Whatever ends the wait early (a cancelled flow, an interrupt) stops the job. A service that does not answer
        for a while does not: who tries again attaches to the job that runs. SageMaker knows no limit of time for
        such jobs, so who waits stops one that takes longer than `max_seconds`.

        Raises:
            TransientError: the service did not answer, or failed by itself; try again.
            JobFailed: the job failed, was stopped, or took too long; the message carries the reason.
        """
        self.submit(job, parts)
        with stop_if_interrupted(lambda: self.stop(job.name)):
            state = self._wait_until_ended(job, log)
        return require_completed("transform job", state)

    def _wait_until_ended(self, job: BatchInferenceJob, log: Callable[[str], None]) -> BatchInferenceJobState:
        log(f"transform job {job.name} is submitted")
        while (state := self.state(job.name)).status is JobStatus.in_progress:
            if state.seconds > job.max_seconds:
                raise JobFailed(f"transform job {job.name} took longer than {job.max_seconds} s and was stopped")
            time.sleep(self.poll_seconds)
        log(f"transform job {job.name} is {state.status.value} after {state.seconds:.0f} s")
        return state
