"""Training on SageMaker: the same program and container entry point, as a training job.

No state is kept here: it is read from SageMaker and S3 (`<prefix>/jobs/<name>.json` holds the digests of the job).
So a retry, on this machine or another, attaches to the running job, and the job is paid once.
"""

import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from blocks.common.aws.clients import AwsClients, port_errors, region_name
from blocks.common.aws.jobs import SageMakerJobs, TrainingLogReader, attempt_name
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import COMPLETE_MARKER, S3Folders
from blocks.common.errors import Conflict, Corrupt, Rejected
from blocks.common.jobs import JobStatus
from blocks.records.collectable import Collectable
from blocks.records.compute import Compute
from blocks.trainers import job_checks as jobs
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState
from blocks.trainers.sagemaker_requests import JobLocations, TrainingSettings, job_state, training_request
from runtime.digests import folder_digest


class SageMakerTrainer(TrainingSettings, AwsClients, Trainer):
    """Runs training programs as SageMaker training jobs. `max_memory_mb` is ignored: the instance limits the memory."""

    _block_type_name = "Ratchet trainer (SageMaker)"
    _block_type_slug = "ratchet-trainer-sagemaker"

    bucket: str = Field(description="Existing bucket for programs, training rows, models and checkpoints.")
    prefix: str = Field(default="training", description="Key prefix in the bucket.")
    model_cache: Path = Field(description="Local folder that receives the models of completed jobs.")
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two polls of a job.")

    _attempts: dict[str, int] = PrivateAttr(default_factory=dict)
    _logs: dict[str, TrainingLogReader] = PrivateAttr(default_factory=dict)

    def compute(self, max_seconds: int) -> Compute:
        """Return the instances for the job's limit and the warm pool; waiting for spot capacity is not billed."""
        return Compute(
            tuple(self.instance_types), region_name(self.region), 1, max_seconds, self.keep_alive_seconds, self.spot
        )

    def submit(self, job: TrainingJob) -> None:
        """Start the job, or attach to the running one; see `Trainer.submit`.

        Raises:
            Unavailable: AWS is busy, or has no capacity; try again.
            Rejected: a quota, a permission or the request itself is wrong.
        """
        program = jobs.checked_program(job)
        content = jobs.content_digests(job, program)
        with port_errors(f"submitting job {job.name}"):
            number, latest = self._jobs.latest(job.name)
            record_key = f"{self.prefix}/jobs/{job.name}.json"
            recorded = self._folders.get_json(record_key)
            if latest is not None and recorded is None:
                raise Conflict(f"job {job.name} exists on SageMaker, and is not of {self._folders.url(self.prefix)}; "
                               "give it another name")  # fmt: skip
            if latest is not None and recorded is not None:
                jobs.check_same_content(job.name, recorded, content)
                if job_state(job.name, latest).status in (JobStatus.in_progress, JobStatus.completed):
                    return
            if recorded != content:
                self._folders.put_json(record_key, content)
            name, locations = attempt_name(job.name, number + 1), self._upload_inputs(job, program)
            self._jobs.create(training_request(self, job, name, locations))

    def state(self, name: str) -> TrainingJobState:
        """Return the state of the job; see `Trainer.state`. The model of a completed job is downloaded."""
        with port_errors(f"describing job {name}"):
            _, description = self._jobs.require_latest(name)
            state = job_state(name, description)
            if state.status is not JobStatus.completed:
                return state
            model = self._model(description["TrainingJobName"], description["ModelArtifacts"]["S3ModelArtifacts"])
            return replace(state, model_folder=model)

    def logs(self, name: str, offset: int = 0) -> tuple[list[str], int]:
        """Return the log lines of the job's latest attempt after the first `offset` lines."""
        with port_errors(f"reading the log of job {name}"):
            attempt = self._jobs.require_latest(name)[1]["TrainingJobName"]
            if attempt not in self._logs:
                self._logs[attempt] = TrainingLogReader(self._client("logs"), attempt)
            lines = self._logs[attempt].lines_after(offset)
            return lines, offset + len(lines)

    def stop(self, name: str) -> None:
        """Request the stop of the job; it counts as stopped from then on, and ends within two minutes."""
        with port_errors(f"stopping job {name}"):
            self._jobs.stop(name)

    def run(self, job: TrainingJob, on_log_line: Callable[[str], None], poll_seconds: float = 0.0) -> TrainingJobState:
        """Submit, follow the log and wait; see `Trainer.run`."""
        return super().run(job, on_log_line, poll_seconds or self.poll_seconds)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the outputs of all jobs (`training-output:<attempt>`) and their shared inputs, whatever the model.

        The output of a running job has a keep reason and depends on its inputs. All others can be recreated: models
        are in the registry, rows are in the lake.
        """
        with port_errors("listing the artifacts of training jobs"):
            running = {str(job["TrainingJobName"]): job for job in self._running_jobs()}
            needs = {name: self._inputs_of(job) for name, job in running.items()}
            reason = "it is running"
            outputs = self._artifacts("training-output").collectables("", dict.fromkeys(running, reason), needs)
            existing = {output.key for output in outputs}
            empty = [Collectable(f"training-output:{name}", f"job {name}", job["CreationTime"], needs[name], reason)
                     for name, job in running.items() if f"training-output:{name}" not in existing]  # fmt: skip
            return (*outputs, *empty, *self._artifacts("training-input").collectables())

    def size_bytes(self, key: str) -> int:
        """Return the bytes in S3; see `ArtifactOwner.size_bytes`."""
        with port_errors(f"measuring {key}"):
            return self._artifacts(key).size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete an output and the downloaded copy of its model, or an input."""
        with port_errors(f"deleting {key}"):
            self._artifacts(key).delete_collectables(key)
        kind, _, attempt = key.partition(":")
        if kind == "training-output":
            shutil.rmtree(self.model_cache.resolve() / attempt, ignore_errors=True)

    def _artifacts(self, key: str) -> S3Artifacts:
        kind = key.partition(":")[0]
        if kind == "training-output":
            return S3Artifacts(self._folders, f"{self.prefix}/models", kind, depth=1)
        if kind == "training-input":
            root = f"{self.prefix}/inputs"
            return S3Artifacts(self._folders, root, kind, depth=1, complete_marker=COMPLETE_MARKER)
        raise Rejected(f"{key!r} is not a training output or input; it was not deleted")

    def _running_jobs(self) -> Iterator[Mapping[str, Any]]:
        """Yield the jobs in progress that write their output to this prefix."""
        sagemaker = self._client("sagemaker")
        for status in ("InProgress", "Stopping"):
            pages = sagemaker.get_paginator("list_training_jobs").paginate(StatusEquals=status)
            for name in [str(job["TrainingJobName"]) for page in pages for job in page["TrainingJobSummaries"]]:
                job = sagemaker.describe_training_job(TrainingJobName=name)
                if job["OutputDataConfig"]["S3OutputPath"] == self._folders.url(f"{self.prefix}/models"):
                    yield job

    def _inputs_of(self, job: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the keys of a job's inputs."""
        inputs = self._folders.url(f"{self.prefix}/inputs/")
        urls = [channel["DataSource"]["S3DataSource"]["S3Uri"] for channel in job.get("InputDataConfig", ())]
        own = (url.removeprefix(inputs).strip("/") for url in urls if url.startswith(inputs))
        return tuple(f"training-input:{digest}" for digest in own)

    def _upload_inputs(self, job: TrainingJob, program: Mapping[str, bytes]) -> JobLocations:
        """Upload program and channels to S3, each below its digest, and return all locations."""
        with tempfile.TemporaryDirectory(prefix="program-") as folder:
            jobs.write_program(program, Path(folder))
            uploaded = self._upload_folder(Path(folder))
        channels = {name: self._upload_folder(folder) for name, folder in job.channels.items()}
        checkpoints = self._folders.url(f"{self.prefix}/checkpoints/{job.name}")
        return JobLocations(uploaded, channels, self._folders.url(f"{self.prefix}/models"), checkpoints)

    def _upload_folder(self, folder: Path) -> str:
        return self._folders.upload_folder(folder, f"{self.prefix}/inputs/{folder_digest(folder)}")

    def _model(self, attempt: str, url: str) -> Path:
        """Return the folder of a completed job's model; download it unless it is cached."""
        folder = self.model_cache.resolve() / attempt / "model"
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch-") as temporary:
            packed = Path(temporary) / "model.tar.gz"
            self._folders.download(url, packed)
            try:
                with tarfile.open(packed, "r:gz") as tar:
                    tar.extractall(Path(temporary) / "model", filter="data")
            except tarfile.TarError as cause:
                raise Corrupt(f"{url} is not a .tar.gz of a model: {cause}") from cause
            try:
                (Path(temporary) / "model").rename(folder)
            except OSError:
                if not folder.is_dir():  # otherwise another process was first
                    raise
        return folder

    @property
    def _jobs(self) -> SageMakerJobs:
        return SageMakerJobs(self._client("sagemaker"), "training", self._attempts)

    @property
    def _folders(self) -> S3Folders:
        return S3Folders(self._client("s3"), self.bucket)
