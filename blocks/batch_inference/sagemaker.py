"""Batch predictions on SageMaker: the same container as an endpoint's, for as long as there are rows.

A job's first attempt bears its name on SageMaker; names are taken for ever there, so the next ones bear a number.
Nothing is remembered here: rows, answers and which job they belong to are read from S3, the rest from SageMaker.
So a retry, on this machine or another, attaches to the job that runs, and it is paid once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from pydantic import Field, PrivateAttr

from blocks.batch_inference import sagemaker_requests as requests
from blocks.batch_inference.base import BatchInference, BatchInferenceJob, BatchInferenceJobState, RequestPart
from blocks.batch_inference.sagemaker_store import BatchInferenceStore, StagedRequests
from blocks.common.aws.clients import aws_client, error_code, is_missing, port_errors, region_name
from blocks.common.aws.job_names import attempt_name
from blocks.common.aws.log_tail import last_log_lines
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.collectable import Collectable
from blocks.common.compute import Compute
from blocks.common.errors import NotFound
from blocks.common.jobs import JobStatus

LOG_GROUP = "/aws/sagemaker/TransformJobs"
REUSABLE_STATUSES = (JobStatus.in_progress, JobStatus.completed)


class SageMakerBatchInference(BatchInference):
    """Runs batch transform jobs; keeps their rows and answers in a bucket."""

    _block_type_name = "Ratchet transform (SageMaker)"
    _block_type_slug = "ratchet-transform-sagemaker"

    bucket: str = Field(description="Bucket for rows and answers; it exists.")
    prefix: str = Field(default="transforms", description="Where in the bucket they lie.")
    role_arn: str = Field(description="ARN of the role that containers run as.")
    image: str = Field(description="URI of the container image in ECR, best by digest.")
    instance_type: str = Field(default="ml.m5.large", description="Instance type of the jobs.")
    instance_count: int = Field(default=1, gt=0, le=100, description="How many instances share a job's rows.")
    response_timeout_seconds: int = Field(
        default=600, gt=0, le=3600, description="How long an answer to one part may take."
    )
    trusted_keys: list[str] = Field(default=[], description="Public keys whose models are loaded.")
    tags: dict[str, str] = Field(default={}, description="Tags of every job, such as its environment.")
    region: str | None = Field(default=None, description="AWS region; boto3's own choice when none.")
    endpoint_url: str | None = Field(default=None, description="Another address than AWS: the local SageMaker's.")

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def compute(self, max_seconds: int) -> Compute:
        """Return the instances, for the job's limit."""
        return Compute((self.instance_type,), region_name(self.region), self.instance_count, max_seconds)

    def submit(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> None:
        """Start the job, or attach to the one that is there; see `Transform.submit`.

        Raises:
            Unavailable: AWS is busy, or has no capacity: try again.
            Rejected: a quota, a right or the request itself is the matter.
        """
        with port_errors(f"submitting job {job.name}"):
            staged = self._store.stage(job, parts)
            number, there = self._latest(job.name)
            if there is not None and self._is_reusable(staged, number, there):
                return
            self._create(job, staged, number + 1)

    def state(self, name: str) -> BatchInferenceJobState:
        """Return what is known of the job's latest attempt; why one failed, its container says best, in its log."""
        with port_errors(f"looking at job {name}"):
            _, described = self._require_description(name)
            state = requests.job_state(name, described)
            if state.status is JobStatus.failed and not state.transient:
                words = last_log_lines(self._client("logs"), LOG_GROUP, f"{described['TransformJobName']}/")
                state = replace(state, reason="\n".join([state.reason, *words]))
            return state

    def stop(self, name: str) -> None:
        """Ask SageMaker to stop the job; it counts as stopped from then on."""
        from botocore.exceptions import ClientError

        with port_errors(f"stopping job {name}"):
            _, described = self._require_description(name)
            if described["TransformJobStatus"] != "InProgress":
                return
            try:
                self._client("sagemaker").stop_transform_job(TransformJobName=described["TransformJobName"])
            except ClientError as error:
                if error_code(error) != "ValidationException":  # it has just ended by itself
                    raise

    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield what each part carried, and its answer as the container gave it; see `Transform.answers`."""
        with port_errors(f"reading the answers of job {name}"):
            number, _ = self._require_description(name)
            staged = self._store.staged(name)
            if staged is None:
                raise NotFound(f"no rows are kept for job {name} below {self._store.url(self.prefix)}")
            yield from self._store.responses(staged, number)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return what all jobs left, whatever the model; one that runs holds its own. See `ArtifactOwner.kept`."""
        with port_errors("listing what transform jobs left"):
            things = self._prefixes.collectables()
            return tuple(
                replace(each, keep_reason="it is running") if self._is_running(each.key) else each for each in things
            )

    def size_bytes(self, key: str) -> int:
        """Return the bytes in S3; see `ArtifactOwner.size`."""
        with port_errors(f"measuring {key}"):
            return self._prefixes.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Remove rows, answers and the model's copy from S3, and SageMaker's name for it; see `ArtifactOwner.discard`."""
        with port_errors(f"removing {key}"):
            self._prefixes.delete_collectables(key, ("staged.json",))
            stem = requests.model_name_prefix(key.partition(":")[2])
            pages = self._client("sagemaker").get_paginator("list_models").paginate(NameContains=stem)
            for name in [str(model["ModelName"]) for page in pages for model in page["Models"]]:
                if name.startswith(stem) and len(name) == len(stem) + requests.MODEL_DIGEST_LENGTH:
                    self._client("sagemaker").delete_model(ModelName=name)

    def _is_running(self, key: str) -> bool:
        _, described = self._latest(key.partition(":")[2])
        return described is not None and described["TransformJobStatus"] in ("InProgress", "Stopping")

    @property
    def _prefixes(self) -> S3Artifacts:
        return S3Artifacts(self._client("s3"), self.bucket, self.prefix, "transform", depth=1)

    def _is_reusable(self, staged: StagedRequests, number: int, described: Mapping[str, Any]) -> bool:
        """Whether an attempt answers, or has answered, the rows that are kept; a sweep may have removed its answers."""
        source = described["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        status = requests.job_state("", described).status
        if status not in REUSABLE_STATUSES or source != self._store.url(staged.requests_prefix):
            return False
        return status is JobStatus.in_progress or self._store.has_all_responses(staged, number)

    def _create(self, job: BatchInferenceJob, staged: StagedRequests, number: int) -> None:
        from botocore.exceptions import ClientError

        name, store = attempt_name(job.name, number), self._store
        model = requests.model_request(self._config, job, store.url(f"{staged.folder}/model/"))
        self._make_model(model)
        asked = requests.transform_request(
            self._config,
            job,
            name,
            model["ModelName"],
            store.url(staged.requests_prefix),
            store.url(staged.responses_prefix(number)),
        )
        try:
            self._client("sagemaker").create_transform_job(**asked)
        except ClientError as error:
            if error_code(error) != "ResourceInUse":  # else another process was first: its job is ours
                raise

    def _make_model(self, request: dict[str, Any]) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client("sagemaker").create_model(**request)
        except ClientError as error:
            if "already exist" not in str(error):  # else an earlier attempt made it: its name is of its content
                raise

    def _latest(self, name: str) -> tuple[int, Mapping[str, Any] | None]:
        """Return number and description of the job's latest attempt, or 0 and None."""
        number, found = 0, None
        while (later := self._describe(attempt_name(name, number + 1))) is not None:
            number, found = number + 1, later
        return number, found

    def _require_description(self, name: str) -> tuple[int, Mapping[str, Any]]:
        number, found = self._latest(name)
        if found is None:
            raise NotFound(f"no transform job {name!r} on SageMaker in this account and region")
        return number, found

    def _describe(self, attempt: str) -> Mapping[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return dict(self._client("sagemaker").describe_transform_job(TransformJobName=attempt))
        except ClientError as error:
            if is_missing(error):
                return None
            raise

    @property
    def _config(self) -> requests.BatchInferenceConfig:
        return requests.BatchInferenceConfig(
            self.role_arn, self.image, self.instance_type, self.instance_count, self.response_timeout_seconds,
            tuple(self.trusted_keys), self.tags,
        )  # fmt: skip

    @property
    def _store(self) -> BatchInferenceStore:
        s3 = self._client("s3")
        return BatchInferenceStore(S3Folders(s3, self.bucket), s3, self.bucket, self.prefix)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = aws_client(service, self.region, self.endpoint_url)
        return self._clients[service]
