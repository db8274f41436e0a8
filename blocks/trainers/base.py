"""The trainer port: runs one training program by the SageMaker container contract."""

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect.blocks.core import Block

from blocks.common.collectable import ArtifactOwner
from blocks.common.jobs import JobState, JobStatus, require_completed, stop_if_interrupted
from blocks.records.compute import Compute


@dataclass(frozen=True)
class TrainingJob:
    """A training job with all its inputs. Two equal jobs produce the same model.

    The caller derives `name` from the content, so that a retry finds the running job.
    `program_folder` is the folder with `train.py`. `channels` are folders of input files by channel name.
    The program gets hyperparameters as text, as on SageMaker.
    """

    name: str
    program_folder: Path
    channels: Mapping[str, Path]
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    max_seconds: int = 3600
    max_memory_mb: int | None = None


@dataclass(frozen=True)
class TrainingJobState(JobState):
    """Current state of a training job; `model_folder` is the local folder of the model, once the job completed."""

    model_folder: Path | None = None

    @property
    def mlflow_folder(self) -> Path | None:
        """The folder of the MLflow model: `model_folder`, or `model` in it, no link; None without a model."""
        folders = [self.model_folder, self.model_folder / "model"] if self.model_folder else []
        if any(folder.is_symlink() for folder in folders):  # the program wrote them
            return None
        return next((folder for folder in folders if (folder / "MLmodel").is_file()), None)


class Trainer(ArtifactOwner, Block):
    """Runs training programs. A job that is submitted twice runs once."""

    @abstractmethod
    def compute(self, max_seconds: int) -> Compute:
        """Return the compute that a job of at most `max_seconds` will use, so that it can be priced first.

        No service is called. A paid adapter returns the maximum that `submit` may request.
        """

    @abstractmethod
    def submit(self, job: TrainingJob) -> None:
        """Start the job, or attach to the one of that name that is running or completed.

        A job of that name that failed or was stopped is started again.

        Raises:
            Conflict: a job of that name exists with other content.
            NotFound: `program_folder` has no `train.py`, or a channel's folder does not exist.
        """

    @abstractmethod
    def state(self, name: str) -> TrainingJobState:
        """Return the state of the job. Raises NotFound if there is no job of that name."""

    @abstractmethod
    def logs(self, name: str, offset: int = 0) -> tuple[list[str], int]:
        """Return the complete log lines after `offset`, and the offset for the next call."""

    @abstractmethod
    def stop(self, name: str) -> None:
        """Stop the job and all its processes; no error if it has ended already."""

    def run(self, job: TrainingJob, on_log_line: Callable[[str], None], poll_seconds: float = 0.2) -> TrainingJobState:
        """Submit, pass each log line to `on_log_line`, wait, and return the state of the completed job.

        An interrupted wait (a cancelled flow, a signal) stops the job, so that nothing is left running. A
        TransientError does not stop it: the retry attaches to the running job.

        Raises:
            TransientError: the service did not respond, or caused the failure; try again.
            JobFailed: the job failed, was stopped, or reached its limit of time or memory. The message has the
                program's last log lines.
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
