"""A transform job in SageMaker's words: the requests that start it, and what its description means. No calls here."""

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
"""SageMaker's own default: what it takes in one request to the container."""
MODEL_DIGEST_LENGTH = 12
"""How many digits the name of a model ends with."""


@dataclass(frozen=True)
class BatchInferenceConfig:
    """On what jobs run."""

    role_arn: str
    image: str
    instance_type: str
    instance_count: int
    answer_seconds: int
    trusted_keys: tuple[str, ...]
    tags: Mapping[str, str]


def model_request(plan: BatchInferenceConfig, job: BatchInferenceJob, address: str) -> dict[str, Any]:
    """Return the arguments of `create_model`: the files as they lie in S3; its name is of all that makes it."""
    source = {"S3Uri": address, "S3DataType": "S3Prefix", "CompressionType": "None"}
    variables = {
        "RATCHET_MODEL_VERSION": job.version,
        "RATCHET_MODEL_DIGEST": job.digest,
        "RATCHET_TRUSTED_KEYS": " ".join(plan.trusted_keys),
    }
    container = {"Image": plan.image, "ModelDataSource": {"S3DataSource": source}, "Environment": variables}
    made = {"ExecutionRoleArn": plan.role_arn, "PrimaryContainer": container}
    digest = text_digest(json.dumps(made, sort_keys=True))[:MODEL_DIGEST_LENGTH]
    return {"ModelName": model_name_prefix(job.name) + digest, **made, "Tags": _tags(plan, job)}


def model_name_prefix(name: str) -> str:
    """Return how the names of a job's models begin; `MODEL_DIGEST_LENGTH` of what makes them follow."""
    return f"{name[:50].rstrip('-')}-"


def transform_request(
    plan: BatchInferenceConfig, job: BatchInferenceJob, name: str, model: str, requests_url: str, responses_url: str
) -> dict[str, Any]:
    """Return the arguments of `create_transform_job`: an object below `requests_url` is a request, answered below `responses_url`."""
    source = {"S3DataType": "S3Prefix", "S3Uri": requests_url}
    return {
        "TransformJobName": name,
        "ModelName": model,
        "MaxPayloadInMB": MAX_PAYLOAD_MB,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": plan.answer_seconds, "InvocationsMaxRetries": 1},
        "TransformInput": {"DataSource": {"S3DataSource": source}, "ContentType": CONTENT_TYPE, "SplitType": "None"},
        "TransformOutput": {"S3OutputPath": responses_url, "Accept": CONTENT_TYPE, "AssembleWith": "None"},
        "TransformResources": {"InstanceType": plan.instance_type, "InstanceCount": plan.instance_count},
        "Tags": _tags(plan, job),
    }


def job_state(name: str, described: Mapping[str, Any]) -> BatchInferenceJobState:
    """Return what a description says of the job. What it ran, an instance at a time, is what it is billed for."""
    status = JOB_STATUSES[described["TransformJobStatus"]]
    begun, ended = described.get("TransformStartTime"), described.get("TransformEndTime")
    since = begun or described["CreationTime"]
    seconds = max(((ended or datetime.now(UTC)) - since).total_seconds(), 0.0)
    billed = None if ended is None else seconds if begun else 0.0
    kind = described["TransformResources"]["InstanceType"]
    reason = ""
    if status is JobStatus.failed:
        reason = failure_reason(described)
    if status is JobStatus.stopped:
        reason = "stopped on request"
    return BatchInferenceJobState(name, status, seconds, reason, billed, kind, is_transient(reason))


def _tags(plan: BatchInferenceConfig, job: BatchInferenceJob) -> list[dict[str, str]]:
    tags = {**plan.tags, "ratchet:job": job.name, "ratchet:version": job.version, "ratchet:digest": job.digest}
    tags |= {"ratchet:run": job.run_id} if job.run_id else {}
    return tag_list(tags)
