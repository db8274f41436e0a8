"""The trainer port: runs one training program by the SageMaker container contract, somewhere."""

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect.blocks.core import Block

from blocks.common.collectable import ArtifactOwner
from blocks.common.compute import Compute
from blocks.common.jobs import JobStatus, require_completed, stop_if_interrupted


@dataclass(frozen=True)
class TrainingJob:
    """Everything that a training run needs. Two jobs that are equal make the same model.

    `name` is derived by the caller from the work, so that a retry finds the job that is there.
    `program_folder` is the folder that holds `train.py`. `channels` are folders of input files by channel name.
    Hyperparameters reach the program as text, as on SageMaker.
    """

    name: str
    program_folder: Path
    channels: Mapping[str, Path]
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    max_seconds: int = 3600
    max_memory_mb: int | None = None


@dataclass(frozen=True)
class TrainingJobState:
    """What is known of a job now. `model_folder` is a local folder once it completed; `reason` says why it failed.

    `billable_seconds` is what the service bills for each instance, a warm pool's seconds included; None when it
    has not said. `instance_type` is the one that ran it, "" when it has not said, or on this machine.
    `transient` marks a failure that is the service's own (no capacity just now): the same job may well succeed.
    """

    name: str
    status: JobStatus
    seconds: float = 0.0
    reason: str = ""
    model_folder: Path | None = None
    billable_seconds: float | None = None
    instance_type: str = ""
    transient: bool = False


class Trainer(ArtifactOwner, Block):
    """Runs training programs. Submitting the same job twice runs it once."""

    @abstractmethod
    def compute(self, max_seconds: int) -> Compute:
        """Return what a job of at most `max_seconds` will ask for, so that it can be priced before it is submitted.

        Nothing is asked of a service. An adapter that pays says the most that `submit` may ask for.
        """

    @abstractmethod
    def submit(self, job: TrainingJob) -> None:
        """Start the job, or attach to the one of that name that is running or has completed.

        A job of that name which failed or was stopped is started anew.

        Raises:
            Conflict: a job of that name exists with other content.
            NotFound: `program` holds no `train.py`, or a channel's folder does not exist.
        """

    @abstractmethod
    def state(self, name: str) -> TrainingJobState:
        """Return what is known of the job. Raises NotFound when there is none of that name."""

    @abstractmethod
    def logs(self, name: str, offset: int = 0) -> tuple[list[str], int]:
        """Return the whole log lines after `offset` and the position to ask from next time."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop the job and everything it started; no error when it has ended already."""

    def run(self, job: TrainingJob, on_log_line: Callable[[str], None], poll_seconds: float = 0.2) -> TrainingJobState:
        """Submit, hand each log line to `on_log_line` as it comes, wait, and return the state of the completed job.

        Whatever ends the wait early (a cancelled flow, an interrupt) stops the job: nothing is left running. A
        service that does not answer for a while does not end it: who tries again attaches to the job that runs.

        Raises:
            TransientError: the service did not answer, or failed by itself; try again.
            JobFailed: the job failed, was stopped, or hit its limit of time or memory. The message carries
                the program's own last words.
        """
        self.submit(job)
        position = 0
        with stop_if_interrupted(lambda: self.stop(job.name)):
            while True:
                state = self.state(job.name)
                lines, position = self.logs(job.name, position)
                for line in lines:
                    on_log_line(line)
                if state.status is not JobStatus.in_progress:
                    break
                time.sleep(poll_seconds)
        return require_completed("training job", state)
