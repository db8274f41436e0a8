"""SageMaker request arguments of a transform job, and the job state from its description. No AWS calls."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks.batch_inference.base import BatchInferenceJob, BatchInferenceJobState
from blocks.common.aws.jobs import JOB_STATUSES, failure_reason, is_transient, tag_list
from blocks.common.jobs import JobStatus
from runtime.digests import text_digest

CONTENT_TYPE = "application/json"
MAX_PAYLOAD_MB = 6
"""SageMaker's default for the size of one request to the container."""
MODEL_DIGEST_LENGTH = 12
"""Number of hexadecimal digits at the end of a model's name."""


@dataclass(frozen=True)
class BatchInferenceConfig:
    """Settings of all jobs: role, image, instances, keys and tags."""

    role_arn: str
    image: str
    instance_type: str
    instance_count: int
    response_timeout_seconds: int
    trusted_keys: tuple[str, ...]
    tags: Mapping[str, str]


def model_request(plan: BatchInferenceConfig, job: BatchInferenceJob, address: str) -> dict[str, Any]:
    """Return the arguments of `create_model`, for the files in S3. The model's name is a hash of the arguments."""
    source = {"S3Uri": address, "S3DataType": "S3Prefix", "CompressionType": "None"}
    variables = {
        "RATCHET_MODEL_VERSION": job.version,
        "RATCHET_MODEL_DIGEST": job.digest,
        "RATCHET_TRUSTED_KEYS": " ".join(plan.trusted_keys),
    }
    container = {"Image": plan.image, "ModelDataSource": {"S3DataSource": source}, "Environment": variables}
    arguments = {"ExecutionRoleArn": plan.role_arn, "PrimaryContainer": container}
    digest = text_digest(json.dumps(arguments, sort_keys=True))[:MODEL_DIGEST_LENGTH]
    return {"ModelName": model_name_prefix(job.name) + digest, **arguments, "Tags": _tags(plan, job)}


def model_name_prefix(name: str) -> str:
    """Return the name prefix of a job's models; `MODEL_DIGEST_LENGTH` digits follow it."""
    return f"{name[:50].rstrip('-')}-"


def transform_request(
    plan: BatchInferenceConfig, job: BatchInferenceJob, name: str, model: str, requests_url: str, responses_url: str
) -> dict[str, Any]:
    """Return the arguments of `create_transform_job`.

    Each object below `requests_url` is one request; its response is written below `responses_url`.
    """
    source = {"S3DataType": "S3Prefix", "S3Uri": requests_url}
    return {
        "TransformJobName": name,
        "ModelName": model,
        "MaxPayloadInMB": MAX_PAYLOAD_MB,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": plan.response_timeout_seconds, "InvocationsMaxRetries": 1},
        "TransformInput": {"DataSource": {"S3DataSource": source}, "ContentType": CONTENT_TYPE, "SplitType": "None"},
        "TransformOutput": {"S3OutputPath": responses_url, "Accept": CONTENT_TYPE, "AssembleWith": "None"},
        "TransformResources": {"InstanceType": plan.instance_type, "InstanceCount": plan.instance_count},
        "Tags": _tags(plan, job),
    }


def job_state(name: str, description: Mapping[str, Any]) -> BatchInferenceJobState:
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
    return BatchInferenceJobState(name, status, seconds, reason, billed, instance_type, is_transient(reason))


def _tags(plan: BatchInferenceConfig, job: BatchInferenceJob) -> list[dict[str, str]]:
    tags = {**plan.tags, "ratchet:job": job.name, "ratchet:version": job.version, "ratchet:digest": job.digest}
    tags |= {"ratchet:run": job.run_id} if job.run_id else {}
    return tag_list(tags)
