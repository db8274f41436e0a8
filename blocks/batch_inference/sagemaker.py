"""Batch inference on SageMaker: transform jobs in the same container as an endpoint.

No state is kept here: rows, responses and their job are read from S3, the rest from SageMaker. So a retry, on this
machine or another, attaches to the running job, and the job is paid once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from pydantic import Field, PrivateAttr

from blocks.batch_inference.base import BatchInference, BatchInferenceJob, RequestPart
from blocks.batch_inference.sagemaker_store import MAX_PAYLOAD_MB, BatchInferenceStore, StagedRequests
from blocks.common.aws.clients import AwsClients, port_errors, region_name
from blocks.common.aws.jobs import (
    JOB_STATUSES,
    SageMakerJobs,
    attempt_name,
    failure_reason,
    is_transient,
    last_log_lines,
    tag_list,
)
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import NotFound
from blocks.common.jobs import JobState, JobStatus
from blocks.records.collectable import Collectable
from blocks.records.compute import Compute
from runtime.digests import text_digest

LOG_GROUP = "/aws/sagemaker/TransformJobs"
CONTENT_TYPE = "application/json"
MODEL_DIGEST_LENGTH = 12
"""Number of hexadecimal digits at the end of a model's name."""


class SageMakerBatchInference(AwsClients, BatchInference):
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

    _attempts: dict[str, int] = PrivateAttr(default_factory=dict)

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
            number, latest = self._jobs.latest(job.name)
            if latest is None or not self._is_reusable(staged, number, latest):
                self._create(job, staged, number + 1)

    def state(self, name: str) -> JobState:
        """Return the state of the job's latest attempt; the reason of a failure includes the end of its log."""
        with port_errors(f"describing job {name}"):
            _, description = self._jobs.require_latest(name)
            state = job_state(name, description)
            if state.status is JobStatus.failed and not state.transient:
                lines = last_log_lines(self._client("logs"), LOG_GROUP, f"{description['TransformJobName']}/")
                state = replace(state, reason="\n".join([state.reason, *lines]))
            return state

    def stop(self, name: str) -> None:
        """Request the stop of the job; it counts as stopped from then on."""
        with port_errors(f"stopping job {name}"):
            self._jobs.stop(name)

    def responses(self, name: str) -> Iterator[tuple[pa.Table, bytes]]:
        """Yield the passthrough columns and the response of each part; see `BatchInference.responses`."""
        with port_errors(f"reading the responses of job {name}"):
            number, _ = self._jobs.require_latest(name)
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
            stem = _model_name_prefix(key.partition(":")[2])
            pages = self._client("sagemaker").get_paginator("list_models").paginate(NameContains=stem)
            for name in [str(model["ModelName"]) for page in pages for model in page["Models"]]:
                if name.startswith(stem) and len(name) == len(stem) + MODEL_DIGEST_LENGTH:
                    self._client("sagemaker").delete_model(ModelName=name)

    def _is_running(self, key: str) -> bool:
        _, description = self._jobs.latest(key.partition(":")[2])
        return description is not None and description["TransformJobStatus"] in ("InProgress", "Stopping")

    @property
    def _prefixes(self) -> S3Artifacts:
        return S3Artifacts(S3Folders(self._client("s3"), self.bucket), self.prefix, "batch-inference", depth=1)

    def _is_reusable(self, staged: StagedRequests, number: int, description: Mapping[str, Any]) -> bool:
        """Return whether an attempt predicts, or has predicted, the stored rows.

        Garbage collection may have deleted its responses; then it is not reusable.
        """
        source = description["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"]
        if source != self._store.url(staged.requests_prefix):
            return False
        status = JOB_STATUSES[description["TransformJobStatus"]]
        if status is JobStatus.completed:
            return self._store.has_all_responses(staged, number)
        return status is JobStatus.in_progress

    def _create(self, job: BatchInferenceJob, staged: StagedRequests, number: int) -> None:
        """Create the job's model, unless it exists, and an attempt.

        Each object below the requests' prefix is one request; its response is written below the responses' prefix.
        """
        model = self._model_request(job, self._store.url(f"{staged.folder}/model/"))
        self._create_model(model)
        source = {"S3DataType": "S3Prefix", "S3Uri": self._store.url(staged.requests_prefix)}
        responses = self._store.url(staged.responses_prefix(number))
        timeout = {"InvocationsTimeoutInSeconds": self.response_timeout_seconds, "InvocationsMaxRetries": 1}
        request = {
            "TransformJobName": attempt_name(job.name, number),
            "ModelName": model["ModelName"],
            "MaxPayloadInMB": MAX_PAYLOAD_MB,
            "ModelClientConfig": timeout,
            "TransformInput": {
                "DataSource": {"S3DataSource": source},
                "ContentType": CONTENT_TYPE,
                "SplitType": "None",
            },
            "TransformOutput": {"S3OutputPath": responses, "Accept": CONTENT_TYPE, "AssembleWith": "None"},
            "TransformResources": {"InstanceType": self.instance_type, "InstanceCount": self.instance_count},
            "Tags": self._tags(job),
        }
        self._jobs.create(request)

    def _model_request(self, job: BatchInferenceJob, address: str) -> dict[str, Any]:
        """Return the arguments of `create_model`, for the files in S3. The model's name is a hash of them."""
        source = {"S3Uri": address, "S3DataType": "S3Prefix", "CompressionType": "None"}
        variables = {
            "RATCHET_MODEL_VERSION": job.version,
            "RATCHET_MODEL_DIGEST": job.digest,
            "RATCHET_TRUSTED_KEYS": " ".join(self.trusted_keys),
        }
        container = {"Image": self.image, "ModelDataSource": {"S3DataSource": source}, "Environment": variables}
        arguments = {"ExecutionRoleArn": self.role_arn, "PrimaryContainer": container}
        digest = text_digest(json.dumps(arguments, sort_keys=True))[:MODEL_DIGEST_LENGTH]
        return {"ModelName": _model_name_prefix(job.name) + digest, **arguments, "Tags": self._tags(job)}

    def _create_model(self, request: dict[str, Any]) -> None:
        from botocore.exceptions import ClientError

        try:
            self._client("sagemaker").create_model(**request)
        except ClientError as error:
            if "already exist" not in str(error):  # otherwise it has the same content: its name is a hash of it
                raise

    def _tags(self, job: BatchInferenceJob) -> list[dict[str, str]]:
        tags = {**self.tags, "ratchet:job": job.name, "ratchet:version": job.version, "ratchet:digest": job.digest}
        return tag_list(tags | ({"ratchet:run": job.run_id} if job.run_id else {}))

    @property
    def _jobs(self) -> SageMakerJobs:
        return SageMakerJobs(self._client("sagemaker"), "transform", self._attempts)

    @property
    def _store(self) -> BatchInferenceStore:
        return BatchInferenceStore(S3Folders(self._client("s3"), self.bucket), self.prefix)


def _model_name_prefix(name: str) -> str:
    """Return the name prefix of a job's models; `MODEL_DIGEST_LENGTH` digits follow it."""
    return f"{name[:50].rstrip('-')}-"


def job_state(name: str, description: Mapping[str, Any]) -> JobState:
    """Return the state of the job that SageMaker describes. Each instance is billed for the time that the job ran."""
    status = JOB_STATUSES[description["TransformJobStatus"]]
    started, ended = description.get("TransformStartTime"), description.get("TransformEndTime")
    since = started or description["CreationTime"]
    seconds = max(((ended or datetime.now(UTC)) - since).total_seconds(), 0.0)
    billed = None if ended is None else seconds if started else 0.0
    instance_type = description["TransformResources"]["InstanceType"]
    reason = ""
    if status is JobStatus.failed:
        reason = failure_reason(description)
    if status is JobStatus.stopped:
        reason = "stopped on request"
    return JobState(name, status, seconds, reason, billed, instance_type, is_transient(reason))
