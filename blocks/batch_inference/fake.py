"""A fake for batch inference: jobs live in memory, advance one step per status poll, and end as configured."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pydantic import Field, PrivateAttr

from blocks.batch_inference.base import BatchInference, BatchInferenceJob, RequestPart
from blocks.common.errors import Conflict, NotFound, Rejected
from blocks.common.jobs import JobState, JobStatus
from blocks.records.compute import Compute


@dataclass
class _Attempt:
    job: BatchInferenceJob
    parts: list[RequestPart]
    end: JobStatus
    polls: int = 0
    stopped: bool = False


class FakeBatchInference(BatchInference):
    """Predicts each row by a given function of its values; deterministic."""

    _block_type_name = "Ratchet batch inference (fake)"
    _block_type_slug = "ratchet-batch-inference-fake"

    poll_seconds: float = 0.001
    failing_attempts: int = Field(default=0, ge=0, description="Number of attempts that fail before one completes.")
    polls_until_done: int = Field(default=2, ge=0, description="Number of polls that return in progress.")
    transient: bool = Field(default=False, description="Whether a failure is transient.")
    reason: str = Field(default="this fake is configured to fail", description="Reason of a failure.")
    fixed_compute: Compute = Field(default=Compute(), description="Compute of every job, apart from its time.")
    billable_seconds: float | None = Field(default=None, description="Billed seconds of a job that ended.")

    _predict_row: Callable[[list[Any]], Any] = PrivateAttr(default_factory=lambda: lambda _row: 0.5)
    _jobs: dict[str, _Attempt] = PrivateAttr(default_factory=dict)
    _started: list[str] = PrivateAttr(default_factory=list)

    def with_predictions(self, predict_row: Callable[[list[Any]], Any]) -> "FakeBatchInference":
        """Predict each row by this function of its values, in the order of the request's columns."""
        self._predict_row = predict_row
        return self

    @property
    def started(self) -> tuple[str, ...]:
        """The names of all attempts that were started, in order."""
        return tuple(self._started)

    def compute(self, max_seconds: int) -> Compute:
        """Return `fixed_compute` with this time limit."""
        return replace(self.fixed_compute, max_seconds=max_seconds)

    def submit(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> None:
        """Start the job, or attach to the running one; see `BatchInference.submit`."""
        existing = self._jobs.get(job.name)
        if existing is not None and (existing.job.version, existing.job.digest) != (job.version, job.digest):
            raise Conflict(f"job {job.name} exists for version {existing.job.version}; give it another name")
        if existing is not None and self.state(job.name).status in (JobStatus.in_progress, JobStatus.completed):
            return
        stored = existing.parts if existing is not None else list(parts)
        if not stored:
            raise Rejected(f"job {job.name} has no rows")
        end = JobStatus.failed if len(self._started) < self.failing_attempts else JobStatus.completed
        self._jobs[job.name] = _Attempt(job, stored, end)
        self._started.append(job.name)

    def state(self, name: str) -> JobState:
        """Return the state of the job, one step further than at the last poll; see `BatchInference.state`."""
        attempt = self._attempt(name)
        if attempt.stopped:
            return JobState(name, JobStatus.stopped, float(attempt.polls), "stopped on request")
        attempt.polls += 1
        if attempt.polls <= self.polls_until_done:
            return JobState(name, JobStatus.in_progress, float(attempt.polls))
        failed = attempt.end is JobStatus.failed
        seconds = float(self.polls_until_done)
        return JobState(name, attempt.end, seconds, self.reason if failed else "",
                              billable_seconds=self.billable_seconds, transient=failed and self.transient)  # fmt: skip

    def stop(self, name: str) -> None:
        """Stop the job unless it has ended; see `BatchInference.stop`."""
        attempt = self._attempt(name)
        attempt.stopped = attempt.stopped or attempt.polls <= self.polls_until_done

    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield the passthrough columns and the predictions of each part; see `BatchInference.responses`."""
        for part in self._attempt(name).parts:
            rows = json.loads(part.request)["dataframe_split"]["data"]
            yield part.passthrough, json.dumps({"predictions": [self._predict_row(row) for row in rows]}).encode()

    def _attempt(self, name: str) -> _Attempt:
        if name not in self._jobs:
            raise NotFound(f"no transform job {name!r}; there are {sorted(self._jobs)}")
        return self._jobs[name]
