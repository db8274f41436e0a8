"""Training on SageMaker: the same program and container entry point, as a training job.

The first attempt has the job's name on SageMaker. SageMaker never releases a name, so further attempts get a number.
No state is kept here: it is read from SageMaker and S3 (`<prefix>/jobs/<name>.json` holds the digests of the job).
So a retry, on this machine or another, attaches to the running job, and the job is paid once.
"""

import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import Field, PrivateAttr, model_validator

from blocks.common.aws.clients import aws_client, error_code, is_missing, port_errors, region_name
from blocks.common.aws.job_logs import TrainingLogReader
from blocks.common.aws.jobs import attempt_name
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import COMPLETE_MARKER, S3Folders
from blocks.common.errors import Conflict, Corrupt, NotFound
from blocks.common.jobs import JobStatus
from blocks.records.collectable import Collectable
from blocks.records.compute import Compute
from blocks.trainers import job_checks as jobs
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState
from blocks.trainers.sagemaker_collectable import TrainingArtifacts
from blocks.trainers.sagemaker_requests import JobLocations, TrainingConfig, job_state, training_request
from runtime.digests import folder_digest


class SageMakerTrainer(Trainer):
    """Runs training programs as SageMaker training jobs. `max_memory_mb` is ignored: the instance limits the memory."""

    _block_type_name = "Ratchet trainer (SageMaker)"
    _block_type_slug = "ratchet-trainer-sagemaker"

    bucket: str = Field(description="Existing bucket for programs, training rows, models and checkpoints.")
    prefix: str = Field(default="training", description="Key prefix in the bucket.")
    role_arn: str = Field(description="ARN of the role that jobs run as.")
    image: str = Field(description="URI of the container image in ECR, preferably by digest.")
    instance_types: list[str] = Field(
        default=["ml.m6i.large"], min_length=1, max_length=5,
        description="Instance types in order of preference; the first with capacity is used.",
    )  # fmt: skip
    volume_gb: int = Field(default=30, gt=0, description="Size of the instance's disk, in GB.")
    spot: bool = Field(default=False, description="Whether to train on spot instances, with checkpoints in S3.")
    spot_wait_seconds: int = Field(
        default=3600, ge=0, description="Seconds that a spot job may wait for an instance, beyond the job's own limit."
    )
    keep_alive_seconds: int = Field(
        default=0,
        ge=0,
        le=21_600,
        description="Seconds that the instance stays allocated, and billed, for the next job.",
    )
    subnets: list[str] = Field(default=[], description="Subnets of the VPC that jobs run in; empty: no VPC.")
    security_groups: list[str] = Field(default=[], description="Security groups, with subnets.")
    metrics: dict[str, str] = Field(
        default={}, max_length=40,
        description="CloudWatch metrics by name: a regular expression whose one group finds the value in the log.",
    )  # fmt: skip
    tags: dict[str, str] = Field(default={}, description="Tags of every job, such as cost centre and team.")
    region: str | None = Field(default=None, description="AWS region; None: boto3's default.")
    endpoint_url: str | None = Field(default=None, description="Endpoint URL of the local SageMaker; None: AWS.")
    model_cache: Path = Field(description="Local folder that receives the models of completed jobs.")
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two polls of a job.")

    _attempts: dict[str, int] = PrivateAttr(default_factory=dict)
    _logs: dict[str, TrainingLogReader] = PrivateAttr(default_factory=dict)
    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind_of_capacity(self) -> Self:
        if self.spot and len(self.instance_types) > 1:
            raise ValueError(
                "spot needs exactly one instance type: SageMaker has preferences for on-demand instances only"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups must be set together")
        return self

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
        jobs.check_job(job)
        content = jobs.content_digests(job)
        with port_errors(f"submitting job {job.name}"):
            number, latest = self._latest(job.name)
            recorded = self._folders.get_json(self._record_key(job.name))
            if latest is not None and recorded is None:
                raise Conflict(f"job {job.name} exists on SageMaker, and is not of {self._folders.url(self.prefix)}; "
                               "give it another name")  # fmt: skip
            if latest is not None and recorded is not None:
                jobs.check_same_content(job.name, recorded, content)
                if job_state(job.name, latest).status in (JobStatus.in_progress, JobStatus.completed):
                    return
            if recorded != content:
                self._folders.put_json(self._record_key(job.name), content)
            self._create(job, number + 1)

    def state(self, name: str) -> TrainingJobState:
        """Return the state of the job; see `Trainer.state`. The model of a completed job is downloaded."""
        with port_errors(f"describing job {name}"):
            description = self._require_description(name)
            state = job_state(name, description)
            if state.status is not JobStatus.completed:
                return state
            model = self._model(description["TrainingJobName"], description["ModelArtifacts"]["S3ModelArtifacts"])
            return replace(state, model_folder=model)

    def logs(self, name: str, offset: int = 0) -> tuple[list[str], int]:
        """Return the log lines of the job's latest attempt after the first `offset` lines."""
        with port_errors(f"reading the log of job {name}"):
            attempt = self._require_description(name)["TrainingJobName"]
            if attempt not in self._logs:
                self._logs[attempt] = TrainingLogReader(self._client("logs"), attempt)
            lines = self._logs[attempt].lines_after(offset)
            return lines, offset + len(lines)

    def stop(self, name: str) -> None:
        """Request the stop of the job; it counts as stopped from then on, and ends within two minutes."""
        from botocore.exceptions import ClientError

        with port_errors(f"stopping job {name}"):
            description = self._require_description(name)
            if description["TrainingJobStatus"] != "InProgress":
                return
            try:
                self._client("sagemaker").stop_training_job(TrainingJobName=description["TrainingJobName"])
            except ClientError as error:
                if error_code(error) != "ValidationException":  # it has just ended by itself
                    raise

    def run(self, job: TrainingJob, on_log_line: Callable[[str], None], poll_seconds: float = 0.0) -> TrainingJobState:
        """Submit, follow the log and wait; see `Trainer.run`."""
        return super().run(job, on_log_line, poll_seconds or self.poll_seconds)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the outputs of all jobs and their shared inputs, whatever the model."""
        with port_errors("listing the artifacts of training jobs"):
            return self._training_artifacts.collectables()

    def size_bytes(self, key: str) -> int:
        """Return the bytes in S3; see `ArtifactOwner.size_bytes`."""
        with port_errors(f"measuring {key}"):
            return self._training_artifacts.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete an output or an input; see `ArtifactOwner.delete_collectables`."""
        with port_errors(f"deleting {key}"):
            self._training_artifacts.delete_collectables(key)

    @property
    def _training_artifacts(self) -> TrainingArtifacts:
        s3, url = self._client("s3"), self._folders.url
        outputs = S3Artifacts(s3, self.bucket, f"{self.prefix}/models", "training-output", depth=1)
        inputs = S3Artifacts(
            s3, self.bucket, f"{self.prefix}/inputs", "training-input", depth=1, complete_marker=COMPLETE_MARKER
        )
        return TrainingArtifacts(
            outputs, inputs, self._client("sagemaker"), models_url=url(f"{self.prefix}/models"),
            inputs_url=url(f"{self.prefix}/inputs/"), cache=self.model_cache.resolve(),
        )  # fmt: skip

    def _create(self, job: TrainingJob, number: int) -> None:
        from botocore.exceptions import ClientError

        name = attempt_name(job.name, number)
        try:
            self._client("sagemaker").create_training_job(
                **training_request(self._training_config, job, name, self._upload_inputs(job))
            )
        except ClientError as error:
            if error_code(error) != "ResourceInUse":  # otherwise another process was first, and its job is used
                raise
        self._attempts[job.name] = number

    def _upload_inputs(self, job: TrainingJob) -> JobLocations:
        """Upload program and channels to S3, each below its digest, and return all locations."""
        program = self._upload_folder(job.program_folder, jobs.program_files(job.program_folder))
        channels = {name: self._upload_folder(folder, _files(folder)) for name, folder in job.channels.items()}
        checkpoints = self._folders.url(f"{self.prefix}/checkpoints/{job.name}")
        return JobLocations(program, channels, self._folders.url(f"{self.prefix}/models"), checkpoints)

    def _upload_folder(self, folder: Path, files: list[Path]) -> str:
        return self._folders.upload_folder(folder, files, f"{self.prefix}/inputs/{folder_digest(folder, files)}")

    def _latest(self, name: str) -> tuple[int, Mapping[str, Any] | None]:
        """Return number and description of the job's latest attempt, or 0 and None."""
        number = self._attempts.get(name, 1)
        latest = self._describe(attempt_name(name, number))
        if latest is None:
            return 0, None
        while _has_failed(latest) and (later := self._describe(attempt_name(name, number + 1))) is not None:
            number, latest = number + 1, later
        self._attempts[name] = number
        return number, latest

    def _require_description(self, name: str) -> Mapping[str, Any]:
        _, latest = self._latest(name)
        if latest is None:
            raise NotFound(f"no training job {name!r} on SageMaker in this account and region")
        return latest

    def _describe(self, attempt: str) -> Mapping[str, Any] | None:
        from botocore.exceptions import ClientError

        if not jobs.NAME_PATTERN.fullmatch(attempt):
            return None
        try:
            return dict(self._client("sagemaker").describe_training_job(TrainingJobName=attempt))
        except ClientError as error:
            if is_missing(error):
                return None
            raise

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

    def _record_key(self, name: str) -> str:
        return f"{self.prefix}/jobs/{name}.json"

    @property
    def _training_config(self) -> TrainingConfig:
        return TrainingConfig(
            role_arn=self.role_arn, image=self.image, instance_types=tuple(self.instance_types),
            volume_gb=self.volume_gb, spot_wait_seconds=self.spot_wait_seconds if self.spot else None,
            keep_alive_seconds=self.keep_alive_seconds, subnets=tuple(self.subnets),
            security_groups=tuple(self.security_groups), metrics=self.metrics, tags=self.tags,
        )  # fmt: skip

    @property
    def _folders(self) -> S3Folders:
        return S3Folders(self._client("s3"), self.bucket)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = aws_client(service, self.region, self.endpoint_url)
        return self._clients[service]


def _has_failed(description: Mapping[str, Any]) -> bool:
    return description["TrainingJobStatus"] in ("Failed", "Stopped", "Stopping")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
