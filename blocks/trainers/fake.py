"""A fake trainer: jobs live in memory, advance one step per status poll, and end as configured."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, PrivateAttr

from blocks.common.errors import NotFound
from blocks.common.jobs import JobStatus
from blocks.records.compute import Compute
from blocks.trainers import job_checks as jobs
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState


@dataclass
class _Attempt:
    job: TrainingJob
    content: dict[str, str]
    end: JobStatus
    polls: int = 0
    stopped: bool = False


class FakeTrainer(Trainer):
    """Trains nothing, deterministically; a completed job's model folder holds its hyperparameters."""

    _block_type_name = "Ratchet trainer (fake)"
    _block_type_slug = "ratchet-trainer-fake"

    root: Path = Field(description="Folder that receives the model folders.")
    failing_attempts: int = Field(default=0, ge=0, description="Number of attempts that fail before one completes.")
    polls_in_progress: int = Field(default=2, ge=0, description="Number of polls that return in progress.")
    transient: bool = Field(default=False, description="Whether a failure is transient.")
    reason: str = Field(default="this fake is configured to fail", description="Reason of a failure.")
    fixed_compute: Compute = Field(default=Compute(), description="Compute of every job, apart from its time.")
    billable_seconds: float | None = Field(default=None, description="Billed seconds of a job that ended.")
    lines: list[str] = Field(default=["fake training"], description="The log of every job.")

    _jobs: dict[str, _Attempt] = PrivateAttr(default_factory=dict)
    _started: list[str] = PrivateAttr(default_factory=list)

    @property
    def started(self) -> tuple[str, ...]:
        """The names of all attempts that were started, in order; attaching to a job starts none."""
        return tuple(self._started)

    def compute(self, max_seconds: int) -> Compute:
        """Return `fixed_compute` with this time limit."""
        return replace(self.fixed_compute, max_seconds=max_seconds)

    def submit(self, job: TrainingJob) -> None:
        """Start the job, or attach to the running one; see `Trainer.submit`."""
        content, existing = jobs.content_digests(job, jobs.checked_program(job)), self._jobs.get(job.name)
        if existing is not None:
            jobs.check_same_content(job.name, existing.content, content)
            if self.state(job.name).status in (JobStatus.in_progress, JobStatus.completed):
                return
        end = JobStatus.failed if len(self._started) < self.failing_attempts else JobStatus.completed
        self._jobs[job.name] = _Attempt(job, content, end)
        self._started.append(job.name)

    def state(self, name: str) -> TrainingJobState:
        """Return the state of the job, one step further than at the last poll; see `Trainer.state`."""
        attempt, seconds = self._attempt(name), float(self.polls_in_progress)
        if attempt.stopped:
            return TrainingJobState(name, JobStatus.stopped, float(attempt.polls), "stopped on request")
        attempt.polls += 1
        if attempt.polls <= self.polls_in_progress:
            return TrainingJobState(name, JobStatus.in_progress, float(attempt.polls))
        if attempt.end is JobStatus.failed:
            return TrainingJobState(name, JobStatus.failed, seconds, self.reason,
                                    transient=self.transient, billable_seconds=self.billable_seconds)  # fmt: skip
        model = self._model(attempt.job)
        return TrainingJobState(name, JobStatus.completed, seconds,
                                model_folder=model, billable_seconds=self.billable_seconds)  # fmt: skip

    def logs(self, name: str, offset: int = 0) -> tuple[list[str], int]:
        """Return the lines after `offset`; see `Trainer.logs`."""
        self._attempt(name)
        return self.lines[offset:], len(self.lines)

    def stop(self, name: str) -> None:
        """Stop the job unless it has ended; see `Trainer.stop`."""
        attempt = self._attempt(name)
        attempt.stopped = attempt.stopped or attempt.polls <= self.polls_in_progress

    def _attempt(self, name: str) -> _Attempt:
        if name not in self._jobs:
            raise NotFound(f"no training job {name!r}; there are {sorted(self._jobs)}")
        return self._jobs[name]

    def _model(self, job: TrainingJob) -> Path:
        folder = self.root / job.name / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hyperparameters.json").write_text(json.dumps(dict(job.hyperparameters), sort_keys=True))
        return folder
