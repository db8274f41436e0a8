"""Batch inference on SageMaker: transform jobs in the same container as an endpoint.

The first attempt has the job's name on SageMaker. SageMaker never releases a name, so further attempts get a number.
No state is kept here: rows, responses and their job are read from S3, the rest from SageMaker. So a retry, on this
machine or another, attaches to the running job, and the job is paid once.
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
from blocks.common.aws.job_logs import last_log_lines
from blocks.common.aws.jobs import attempt_name
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import NotFound
from blocks.common.jobs import JobStatus
from blocks.records.collectable import Collectable
from blocks.records.compute import Compute

LOG_GROUP = "/aws/sagemaker/TransformJobs"
REUSABLE_STATUSES = (JobStatus.in_progress, JobStatus.completed)


class SageMakerBatchInference(BatchInference):
    """Runs batch transform jobs; stores their rows and responses in a bucket."""

    _block_type_name = "Ratchet batch inference (SageMaker)"
    _block_type_slug = "ratchet-batch-inference-sagemaker"

    bucket: str = Field(description="Existing bucket for rows and responses.")
    prefix: str = Field(default="batch-inference", description="Key prefix in the bucket.")
    role_arn: str = Field(description="ARN of the role that containers run as.")
    image: str = Field(description="URI of the container image in ECR, preferably by digest.")
    instance_type: str = Field(default="ml.m5.large", description="Instance type of the jobs.")
    instance_count: int = Field(default=1, gt=0, le=100, description="Number of instances that share a job's rows.")
    response_timeout_seconds: int = Field(
        default=600, gt=0, le=3600, description="Timeout of the response to one part, in seconds."
    )
    trusted_keys: list[str] = Field(
        default=[], description="Public keys; only models signed by one of them are loaded."
    )
    tags: dict[str, str] = Field(default={}, description="Tags of every job, such as its environment.")
    region: str | None = Field(default=None, description="AWS region; None: boto3's default.")
    endpoint_url: str | None = Field(default=None, description="Endpoint URL of the local SageMaker; None: AWS.")

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def compute(self, max_seconds: int) -> Compute:
        """Return the configured instances with this time limit."""
        return Compute((self.instance_type,), region_name(self.region), self.instance_count, max_seconds)

    def submit(self, job: BatchInferenceJob, parts: Iterable[RequestPart]) -> None:
        """Start the job, or attach to the running one; see `BatchInference.submit`.

        Raises:
            Unavailable: AWS is busy, or has no capacity; try again.
            Rejected: a quota, a permission or the request itself is wrong.
        """
        with port_errors(f"submitting job {job.name}"):
            staged = self._store.stage(job, parts)
            number, latest = self._latest(job.name)
            if latest is not None and self._is_reusable(staged, number, latest):
                return
            self._create(job, staged, number + 1)

    def state(self, name: str) -> BatchInferenceJobState:
        """Return the state of the job's latest attempt; the reason of a failure includes the end of its log."""
        with port_errors(f"describing job {name}"):
            _, description = self._require_description(name)
            state = requests.job_state(name, description)
            if state.status is JobStatus.failed and not state.transient:
                lines = last_log_lines(self._client("logs"), LOG_GROUP, f"{description['TransformJobName']}/")
                state = replace(state, reason="\n".join([state.reason, *lines]))
            return state

    def stop(self, name: str) -> None:
        """Request the stop of the job; it counts as stopped from then on."""
        from botocore.exceptions import ClientError

        with port_errors(f"stopping job {name}"):
            _, description = self._require_description(name)
            if description["TransformJobStatus"] != "InProgress":
                return
            try:
                self._client("sagemaker").stop_transform_job(TransformJobName=description["TransformJobName"])
            except ClientError as error:
                if error_code(error) != "ValidationException":  # it has just ended by itself
                    raise

    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield the passthrough columns and the response of each part; see `BatchInference.responses`."""
        with port_errors(f"reading the responses of job {name}"):
            number, _ = self._require_description(name)
            staged = self._store.staged(name)
            if staged is None:
                raise NotFound(f"no rows are stored for job {name} below {self._store.url(self.prefix)}")
            yield from self._store.responses(staged, number)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the artifacts of all jobs, whatever the model; those of a running job have a keep reason."""
        with port_errors("listing the artifacts of transform jobs"):
            return tuple(
                replace(each, keep_reason="it is running") if self._is_running(each.key) else each
                for each in self._prefixes.collectables()
            )

    def size_bytes(self, key: str) -> int:
        """Return the bytes in S3; see `ArtifactOwner.size_bytes`."""
        with port_errors(f"measuring {key}"):
            return self._prefixes.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete rows, responses and the model's copy from S3, and the SageMaker model.

        See `ArtifactOwner.delete_collectables`.
        """
        with port_errors(f"deleting {key}"):
            self._prefixes.delete_collectables(key, ("staged.json",))
            stem = requests.model_name_prefix(key.partition(":")[2])
            pages = self._client("sagemaker").get_paginator("list_models").paginate(NameContains=stem)
            for name in [str(model["ModelName"]) for page in pages for model in page["Models"]]:
                if name.startswith(stem) and len(name) == len(stem) + requests.MODEL_DIGEST_LENGTH:
                    self._client("sagemaker").delete_model(ModelName=name)

    def _is_running(self, key: str) -> bool:
        _, description = self._latest(key.partition(":")[2])
        return description is not None and description["TransformJobStatus"] in ("InProgress", "Stopping")

    @property
    def _prefixes(self) -> S3Artifacts:
        return S3Artifacts(self._client("s3"), self.bucket, self.prefix, "batch-inference", depth=1)

    def _is_reusable(self, staged: StagedRequests, number: int, description: Mapping[str, Any]) -> bool:
        """Return whether an attempt predicts, or has predicted, the stored rows.

        Garbage collection may have deleted its responses; then it is not reusable.
        """
        source = description["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        status = requests.job_state("", description).status
        if status not in REUSABLE_STATUSES or source != self._store.url(staged.requests_prefix):
            return False
        return status is JobStatus.in_progress or self._store.has_all_responses(staged, number)

    def _create(self, job: BatchInferenceJob, staged: StagedRequests, number: int) -> None:
        from botocore.exceptions import ClientError

        name, store = attempt_name(job.name, number), self._store
        model = requests.model_request(self._config, job, store.url(f"{staged.folder}/model/"))
        self._make_model(model)
        request = requests.transform_request(
            self._config,
            job,
            name,
            model["ModelName"],
            store.url(staged.requests_prefix),
            store.url(staged.responses_prefix(number)),
        )
        try:
            self._client("sagemaker").create_transform_job(**request)
        except ClientError as error:
            if error_code(error) != "ResourceInUse":  # otherwise another process was first, and its job is used
                raise

    def _make_model(self, request: dict[str, Any]) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client("sagemaker").create_model(**request)
        except ClientError as error:
            if "already exist" not in str(error):  # otherwise it has the same content: its name is a hash of it
                raise

    def _latest(self, name: str) -> tuple[int, Mapping[str, Any] | None]:
        """Return number and description of the job's latest attempt, or 0 and None."""
        number, latest = 0, None
        while (later := self._describe(attempt_name(name, number + 1))) is not None:
            number, latest = number + 1, later
        return number, latest

    def _require_description(self, name: str) -> tuple[int, Mapping[str, Any]]:
        number, latest = self._latest(name)
        if latest is None:
            raise NotFound(f"no transform job {name!r} on SageMaker in this account and region")
        return number, latest

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
