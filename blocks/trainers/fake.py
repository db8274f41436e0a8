"""A trainer without processes: jobs run in memory, one step a look, and end as the knobs say."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, PrivateAttr

from blocks.common.compute import Compute
from blocks.common.errors import NotFound
from blocks.common.jobs import JobStatus
from blocks.trainers import jobs
from blocks.trainers.base import JobState, Trainer, TrainingJob


@dataclass
class _Attempt:
    job: TrainingJob
    content: dict[str, str]
    end: JobStatus
    looks: int = 0
    stopped: bool = False


class FakeTrainer(Trainer):
    """Trains nothing, the same way each time; a completed job's model folder holds its hyperparameters."""

    _block_type_name = "Ratchet trainer: fake"
    _block_type_slug = "ratchet-trainer-fake"

    root: Path = Field(description="Folder that receives the model folders.")
    fail_first: int = Field(default=0, ge=0, description="How many attempts fail before one completes.")
    looks: int = Field(default=2, ge=0, description="How often a job is seen in progress before it ends.")
    transient: bool = Field(default=False, description="Whether a failure is one that the same job may survive.")
    reason: str = Field(default="the fake trainer was told to fail", description="What a failure says.")
    asks_for: Compute = Field(default=Compute(), description="What a job asks for, its time apart: to be priced.")
    billed: float | None = Field(default=None, description="The seconds billed for a job that ended; None: not said.")
    lines: list[str] = Field(default=["fake training"], description="The log of every job.")

    _jobs: dict[str, _Attempt] = PrivateAttr(default_factory=dict)
    _started: list[str] = PrivateAttr(default_factory=list)

    @property
    def started(self) -> tuple[str, ...]:
        """The names of all attempts that were started, in order: a job that was adopted is not in it twice."""
        return tuple(self._started)

    def compute(self, max_seconds: int) -> Compute:
        """Return `asks_for`, for at most that long."""
        return replace(self.asks_for, max_seconds=max_seconds)

    def submit(self, job: TrainingJob) -> None:
        """Start the job, or attach to the one that is there; see `Trainer.submit`."""
        jobs.check(job)
        content, there = jobs.content(job), self._jobs.get(job.name)
        if there is not None:
            jobs.refuse_other(job.name, there.content, content)
            if self.state(job.name).status in (JobStatus.in_progress, JobStatus.completed):
                return
        end = JobStatus.failed if len(self._started) < self.fail_first else JobStatus.completed
        self._jobs[job.name] = _Attempt(job, content, end)
        self._started.append(job.name)

    def state(self, name: str) -> JobState:
        """Return what is known of the job, one step further than at the last look; see `Trainer.state`."""
        attempt = self._attempt(name)
        if attempt.stopped:
            return JobState(name, JobStatus.stopped, float(attempt.looks), "stopped on request")
        attempt.looks += 1
        if attempt.looks <= self.looks:
            return JobState(name, JobStatus.in_progress, float(attempt.looks))
        if attempt.end is JobStatus.failed:
            return JobState(name, JobStatus.failed, float(self.looks), self.reason, transient=self.transient,
                            billable_seconds=self.billed)  # fmt: skip
        model = self._model(attempt.job)
        return JobState(name, JobStatus.completed, float(self.looks), model=model, billable_seconds=self.billed)

    def logs(self, name: str, position: int = 0) -> tuple[list[str], int]:
        """Return the lines after `position`; see `Trainer.logs`."""
        self._attempt(name)
        return self.lines[position:], len(self.lines)

    def stop(self, name: str) -> None:
        """Stop the job unless it has ended; see `Trainer.stop`."""
        attempt = self._attempt(name)
        attempt.stopped = attempt.stopped or attempt.looks <= self.looks

    def _attempt(self, name: str) -> _Attempt:
        if name not in self._jobs:
            raise NotFound(f"no training job {name!r}; there are {sorted(self._jobs)}")
        return self._jobs[name]

    def _model(self, job: TrainingJob) -> Path:
        folder = self.root / job.name / "model"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hyperparameters.json").write_text(json.dumps(dict(job.hyperparameters), sort_keys=True))
        return folder
