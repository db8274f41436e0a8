"""A transform job in SageMaker's words: the requests that start it, and what its description means. No calls here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from blocks.common.aws.jobs import STATUS, is_passing, tag_list, why_failed
from blocks.common.jobs import JobStatus
from blocks.transforms.base import TransformJob, TransformState
from runtime.digests import text_digest

CONTENT_TYPE = "application/json"
MAX_PAYLOAD_MB = 6
"""SageMaker's own default: what it takes in one request to the container."""
DIGITS = 12
"""How many digits the name of a model ends with."""


@dataclass(frozen=True)
class Plan:
    """On what jobs run."""

    role_arn: str
    image: str
    instance_type: str
    instance_count: int
    answer_seconds: int
    trusted_keys: tuple[str, ...]
    tags: Mapping[str, str]


def model_request(plan: Plan, job: TransformJob, address: str) -> dict[str, Any]:
    """Return the arguments of `create_model`: the files as they lie in S3; its name is of all that makes it."""
    source = {"S3Uri": address, "S3DataType": "S3Prefix", "CompressionType": "None"}
    variables = {
        "RATCHET_MODEL_VERSION": job.version,
        "RATCHET_MODEL_DIGEST": job.digest,
        "RATCHET_TRUSTED_KEYS": " ".join(plan.trusted_keys),
    }
    container = {"Image": plan.image, "ModelDataSource": {"S3DataSource": source}, "Environment": variables}
    made = {"ExecutionRoleArn": plan.role_arn, "PrimaryContainer": container}
    digest = text_digest(json.dumps(made, sort_keys=True))[:DIGITS]
    return {"ModelName": model_stem(job.name) + digest, **made, "Tags": _tags(plan, job)}


def model_stem(name: str) -> str:
    """Return how the names of a job's models begin; `DIGITS` of what makes them follow."""
    return f"{name[:50].rstrip('-')}-"


def transform_request(plan: Plan, job: TransformJob, name: str, model: str, given: str, to: str) -> dict[str, Any]:
    """Return the arguments of `create_transform_job`: an object below `given` is a request, answered below `to`."""
    source = {"S3DataType": "S3Prefix", "S3Uri": given}
    return {
        "TransformJobName": name,
        "ModelName": model,
        "MaxPayloadInMB": MAX_PAYLOAD_MB,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": plan.answer_seconds, "InvocationsMaxRetries": 1},
        "TransformInput": {"DataSource": {"S3DataSource": source}, "ContentType": CONTENT_TYPE, "SplitType": "None"},
        "TransformOutput": {"S3OutputPath": to, "Accept": CONTENT_TYPE, "AssembleWith": "None"},
        "TransformResources": {"InstanceType": plan.instance_type, "InstanceCount": plan.instance_count},
        "Tags": _tags(plan, job),
    }


def job_state(name: str, described: Mapping[str, Any]) -> TransformState:
    """Return what a description says of the job. What it ran, an instance at a time, is what it is billed for."""
    status = STATUS[described["TransformJobStatus"]]
    begun, ended = described.get("TransformStartTime"), described.get("TransformEndTime")
    since = begun or described["CreationTime"]
    seconds = max(((ended or datetime.now(UTC)) - since).total_seconds(), 0.0)
    billed = None if ended is None else seconds if begun else 0.0
    kind = described["TransformResources"]["InstanceType"]
    reason = ""
    if status is JobStatus.failed:
        reason = why_failed(described)
    if status is JobStatus.stopped:
        reason = "stopped on request"
    return TransformState(name, status, seconds, reason, billed, kind, is_passing(reason))


def _tags(plan: Plan, job: TransformJob) -> list[dict[str, str]]:
    tags = {**plan.tags, "ratchet:job": job.name, "ratchet:version": job.version, "ratchet:digest": job.digest}
    tags |= {"ratchet:run": job.run} if job.run else {}
    return tag_list(tags)
