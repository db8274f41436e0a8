"""SageMaker request arguments for a release: names, model, endpoint configuration. No AWS calls."""

import json
import re
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, Field

from blocks.common.aws.jobs import MAX_NAME_LENGTH, tag_list
from blocks.endpoints.sagemaker_capture import capture_config, is_capture_allowed
from blocks.endpoints.sagemaker_release_store import StoredRelease
from runtime.digests import text_digest

VARIANT = "AllTraffic"
"""Name of the only variant. It never changes: an update with alarms needs the same name before and after."""


class ServingSettings(BaseModel):
    """Settings of all endpoints: role, image, instances, keys, captured requests."""

    role_arn: str = Field(description="ARN of the role that containers run as.")
    image: str = Field(description="URI of the container image in ECR, preferably by digest.")
    instance_type: str = Field(default="ml.m6i.large", description="Instance type of the endpoints.")
    instance_count: int = Field(default=1, gt=0, description="Number of instances of a first release.")
    serverless_memory_mb: int | None = Field(
        default=None, description="Memory of a serverless endpoint in MB; None: instances."
    )
    serverless_concurrency: int = Field(
        default=5, gt=0, description="Maximum number of concurrent requests of a serverless endpoint."
    )
    startup_seconds: int = Field(
        default=300, ge=60, le=3600, description="Seconds that a container may take until it is healthy."
    )
    trusted_keys: list[str] = Field(
        default=[], description="Public keys; only models signed by one of them are loaded."
    )
    bucket: str = Field(description="Existing bucket for copies of releases and captured requests.")
    capture_prefix: str = Field(default="data-capture", description="Key prefix of captured requests in the bucket.")
    capture_percent: int = Field(
        default=100, ge=0, le=100,
        description="Percentage of requests that are captured for the inference log; 0: none.",
    )  # fmt: skip


def endpoint_name(endpoint: str) -> str:
    """Return the endpoint's name on SageMaker, which does not allow underscores."""
    return endpoint.replace("_", "-")


def release_name(release: StoredRelease, settings: ServingSettings) -> str:
    """Return the name of a release's model and configuration; it contains a hash of their content."""
    identity: dict[str, Any] = {"endpoint": release.endpoint, "version": release.version, "digest": release.digest}
    identity |= settings.model_dump(include=set(ServingSettings.model_fields))
    identity["log"] = asdict(release.log_policy) if release.log_policy else None
    digest = text_digest(json.dumps(identity, sort_keys=True))[:12]
    return release_name_prefix(release.endpoint, release.version) + digest


def release_name_prefix(endpoint: str, version: str) -> str:
    """Return the name prefix of a release's model and configurations. Names of another release may share the prefix."""
    shown = re.sub(r"[^A-Za-z0-9]", "-", version)[:12].strip("-")
    return f"{endpoint_name(endpoint)[: MAX_NAME_LENGTH - 28].rstrip('-')}-{shown}-"


def model_request(release: StoredRelease, settings: ServingSettings) -> dict[str, Any]:
    """Return the arguments of `create_model`, for the uncompressed files in S3."""
    source = {"S3Uri": release.url, "S3DataType": "S3Prefix", "CompressionType": "None"}
    variables = {
        "RATCHET_ENDPOINT": release.endpoint,
        "RATCHET_MODEL_VERSION": release.version,
        "RATCHET_MODEL_DIGEST": release.digest,
        "RATCHET_TRUSTED_KEYS": " ".join(settings.trusted_keys),
    }
    if release.log_policy and release.log_policy.entity_column:
        variables["RATCHET_ENTITY_COLUMN"] = release.log_policy.entity_column
    return {
        "ModelName": release_name(release, settings),
        "ExecutionRoleArn": settings.role_arn,
        "PrimaryContainer": {
            "Image": settings.image,
            "ModelDataSource": {"S3DataSource": source},
            "Environment": variables,
        },
        "Tags": _tags(release),
    }


def config_request(release: StoredRelease, settings: ServingSettings) -> dict[str, Any]:
    """Return the arguments of `create_endpoint_config`: one variant."""
    name = release_name(release, settings)
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": name, "InitialVariantWeight": 1.0}
    if settings.serverless_memory_mb:
        limits = {"MemorySizeInMB": settings.serverless_memory_mb, "MaxConcurrency": settings.serverless_concurrency}
        variant["ServerlessConfig"] = limits
    else:
        variant |= {"InstanceType": settings.instance_type, "InitialInstanceCount": settings.instance_count}
        variant["ContainerStartupHealthCheckTimeoutInSeconds"] = settings.startup_seconds
    request: dict[str, Any] = {"EndpointConfigName": name, "ProductionVariants": [variant], "Tags": _tags(release)}
    if settings.capture_percent and is_capture_allowed(release.log_policy):
        url = f"s3://{settings.bucket}/{settings.capture_prefix}/{release.endpoint}/{release.version}"
        request["DataCaptureConfig"] = capture_config(url, settings.capture_percent)
    return request


def parse_custom_attributes(text: str) -> dict[str, str]:
    """Return the attributes that the container reports in `CustomAttributes` ("version=3;digest=…")."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name: value for name, _, value in pairs if name}


def _tags(release: StoredRelease) -> list[dict[str, str]]:
    tags = {"ratchet:endpoint": release.endpoint, "ratchet:version": release.version, "ratchet:digest": release.digest}
    return tag_list(tags)
