"""A transform without machines: jobs run in memory, one step a look, and answer what they are told to."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pydantic import Field, PrivateAttr

from blocks.batch_inference.base import BatchInference, BatchInferenceJob, BatchInferenceJobState, RequestPart
from blocks.common.compute import Compute
from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.common.jobs import JobStatus


@dataclass
class _Attempt:
    job: BatchInferenceJob
    parts: list[RequestPart]
    end: JobStatus
    looks: int = 0
    stopped: bool = False


class FakeBatchInference(BatchInference):
    """Answers each row with `answer` of its values, the same way each time."""

    _block_type_name = "Ratchet transform: fake"
    _block_type_slug = "ratchet-transform-fake"

    poll_seconds: float = 0.001
    failing_attempts: int = Field(default=0, ge=0, description="How many attempts fail before one completes.")
    looks: int = Field(default=2, ge=0, description="How often a job is seen in progress before it ends.")
    transient: bool = Field(default=False, description="Whether a failure is one that the same job may survive.")
    reason: str = Field(default="the fake transform was told to fail", description="What a failure says.")
    fixed_compute: Compute = Field(default=Compute(), description="What a job asks for, its time apart: to be priced.")
    billable_seconds: float | None = Field(
        default=None, description="The seconds billed for a job that ended; None: not said."
    )

    _answer: Callable[[list[Any]], Any] = PrivateAttr(default_factory=lambda: _constant_prediction)
    _jobs: dict[str, _Attempt] = PrivateAttr(default_factory=dict)
    _started: list[str] = PrivateAttr(default_factory=list)

    def with_predictions(self, answer: Callable[[list[Any]], Any]) -> "FakeBatchInference":
        """Answer each row with what `answer` makes of its values, in the order of the request's columns."""
        self._answer = answer
        return self

    @property
    def started(self) -> tuple[str, ...]:
        """The names of all attempts that were started, in order."""
        return tuple(self._started)

    def compute(self, max_seconds: int) -> Compute:
        """Return `asks_for`, for at most that long."""
        return replace(self.fixed_compute, max_seconds=max_seconds)

    def submit(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> None:
        """Start the job, or attach to the one that is there; see `Transform.submit`."""
        there = self._jobs.get(job.name)
        if there is not None and (there.job.version, there.job.digest) != (job.version, job.digest):
            raise Conflict(f"job {job.name} exists for version {there.job.version}; give it another name")
        if there is not None and self.state(job.name).status in (
            JobStatus.in_progress,
            JobStatus.completed,
        ):
            return
        kept = there.parts if there is not None else list(parts)
        if not kept:
            raise Rejected(f"job {job.name} has no rows")
        end = JobStatus.failed if len(self._started) < self.failing_attempts else JobStatus.completed
        self._jobs[job.name] = _Attempt(job, kept, end)
        self._started.append(job.name)

    def state(self, name: str) -> BatchInferenceJobState:
        """Return what is known of the job, one step further than at the last look; see `Transform.state`."""
        attempt = self._attempt(name)
        if attempt.stopped:
            return BatchInferenceJobState(name, JobStatus.stopped, float(attempt.looks), "stopped on request")
        attempt.looks += 1
        if attempt.looks <= self.looks:
            return BatchInferenceJobState(name, JobStatus.in_progress, float(attempt.looks))
        failed = attempt.end is JobStatus.failed
        return BatchInferenceJobState(name, attempt.end, float(self.looks), self.reason if failed else "",
                              billable_seconds=self.billable_seconds, transient=failed and self.transient)  # fmt: skip

    def stop(self, name: str) -> None:
        """Stop the job unless it has ended; see `Transform.stop`."""
        attempt = self._attempt(name)
        attempt.stopped = attempt.stopped or attempt.looks <= self.looks

    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield what each part carried, and the answers to its rows; see `Transform.answers`."""
        for part in self._attempt(name).parts:
            rows = json.loads(part.request)["dataframe_split"]["data"]
            yield part.passthrough, json.dumps({"predictions": [self._answer(row) for row in rows]}).encode()

    def _attempt(self, name: str) -> _Attempt:
        if name not in self._jobs:
            raise NotFound(f"no transform job {name!r}; there are {sorted(self._jobs)}")
        return self._jobs[name]


def _constant_prediction(_row: list[Any]) -> float:
    return 0.5
