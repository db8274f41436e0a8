"""SageMaker request arguments for a release: names, model, endpoint configuration, deployment, alarms. No AWS calls."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from blocks.endpoints.sagemaker_capture import capture_config, is_capture_allowed
from blocks.endpoints.sagemaker_release_store import StoredRelease
from runtime.digests import text_digest

VARIANT = "AllTraffic"
"""Name of the only variant. It never changes: an update with alarms needs the same name before and after."""
MAX_NAME_LENGTH = 63
ALARM_PERIOD_SECONDS = 60


@dataclass(frozen=True)
class ServingConfig:
    """Settings of all endpoints: role, image, instances, keys, capture. With `serverless_memory_mb` no instances."""

    role_arn: str
    image: str
    instance_type: str
    instance_count: int
    serverless_memory_mb: int | None
    serverless_concurrency: int
    startup_seconds: int
    trusted_keys: tuple[str, ...]
    capture_percent: int = 0
    capture_url: str = ""
    """s3:// URL below which requests are captured, by endpoint and version."""


@dataclass(frozen=True)
class RolloutPolicy:
    """How an update is monitored: canary share, observation time, and the alarms that roll it back."""

    canary_percent: int
    bake_seconds: int
    max_error_rate: float
    max_latency_ms: float | None
    alarms: tuple[str, ...]


def endpoint_name(endpoint: str) -> str:
    """Return the endpoint's name on SageMaker, which does not allow underscores."""
    return endpoint.replace("_", "-")


def release_name(release: StoredRelease, config: ServingConfig) -> str:
    """Return the name of a release's model and configuration; it contains a hash of their content."""
    identity: dict[str, Any] = {"endpoint": release.endpoint, "version": release.version, "digest": release.digest}
    identity |= asdict(config) | {"log": asdict(release.log_policy) if release.log_policy else None}
    digest = text_digest(json.dumps(identity, sort_keys=True))[:12]
    return release_name_prefix(release.endpoint, release.version) + digest


def release_name_prefix(endpoint: str, version: str) -> str:
    """Return the name prefix of a release's model and configurations. Names of another release may share the prefix."""
    shown = re.sub(r"[^A-Za-z0-9]", "-", version)[:12].strip("-")
    return f"{endpoint_name(endpoint)[: MAX_NAME_LENGTH - 28].rstrip('-')}-{shown}-"


def model_request(release: StoredRelease, config: ServingConfig) -> dict[str, Any]:
    """Return the arguments of `create_model`, for the uncompressed files in S3."""
    source = {"S3Uri": release.url, "S3DataType": "S3Prefix", "CompressionType": "None"}
    variables = {
        "RATCHET_ENDPOINT": release.endpoint,
        "RATCHET_MODEL_VERSION": release.version,
        "RATCHET_MODEL_DIGEST": release.digest,
        "RATCHET_TRUSTED_KEYS": " ".join(config.trusted_keys),
    }
    if release.log_policy and release.log_policy.entity_column:
        variables["RATCHET_ENTITY_COLUMN"] = release.log_policy.entity_column
    return {
        "ModelName": release_name(release, config),
        "ExecutionRoleArn": config.role_arn,
        "PrimaryContainer": {
            "Image": config.image,
            "ModelDataSource": {"S3DataSource": source},
            "Environment": variables,
        },
        "Tags": _tags(release),
    }


def config_request(release: StoredRelease, config: ServingConfig) -> dict[str, Any]:
    """Return the arguments of `create_endpoint_config`: one variant."""
    name = release_name(release, config)
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": name, "InitialVariantWeight": 1.0}
    if config.serverless_memory_mb:
        limits = {"MemorySizeInMB": config.serverless_memory_mb, "MaxConcurrency": config.serverless_concurrency}
        variant["ServerlessConfig"] = limits
    else:
        variant |= {"InstanceType": config.instance_type, "InitialInstanceCount": config.instance_count}
        variant["ContainerStartupHealthCheckTimeoutInSeconds"] = config.startup_seconds
    request: dict[str, Any] = {"EndpointConfigName": name, "ProductionVariants": [variant], "Tags": _tags(release)}
    if config.capture_percent and is_capture_allowed(release.log_policy):
        url = f"{config.capture_url}/{release.endpoint}/{release.version}"
        request["DataCaptureConfig"] = capture_config(url, config.capture_percent)
    return request


def deployment_config(endpoint: str, policy: RolloutPolicy) -> dict[str, Any]:
    """Return the `DeploymentConfig` of an update: a canary with alarms, or all at once."""
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": policy.bake_seconds}
    if policy.canary_percent:
        size = {"Type": "CAPACITY_PERCENT", "Value": policy.canary_percent}
        routing = {"Type": "CANARY", "WaitIntervalInSeconds": policy.bake_seconds, "CanarySize": size}
    deployment: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 0 if policy.canary_percent else policy.bake_seconds,
        }
    }
    if names := [alarm["AlarmName"] for alarm in alarm_requests(endpoint, policy)] + list(policy.alarms):
        deployment["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in names]}
    return deployment


def alarm_requests(endpoint: str, policy: RolloutPolicy) -> list[dict[str, Any]]:
    """Return the arguments of `put_metric_alarm`: the rate of 5xx responses, and the mean latency."""
    if not policy.bake_seconds:
        return []
    limits = {"Invocation5XXErrors": policy.max_error_rate}
    if policy.max_latency_ms is not None:
        limits["ModelLatency"] = policy.max_latency_ms * 1000  # the metric is in microseconds
    name = endpoint_name(endpoint)
    dimensions = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": VARIANT}]
    return [
        {
            "AlarmName": f"{name}-{metric}",
            "AlarmDescription": f"Rolls back an update of the endpoint {name}",
            "Namespace": "AWS/SageMaker",
            "MetricName": metric,
            "Dimensions": dimensions,
            "Statistic": "Average",
            "Period": ALARM_PERIOD_SECONDS,
            "EvaluationPeriods": 1,
            "Threshold": limit,
            "ComparisonOperator": "GreaterThanThreshold",
            "TreatMissingData": "notBreaching",
        }
        for metric, limit in limits.items()
    ]


def parse_custom_attributes(text: str) -> dict[str, str]:
    """Return the attributes that the container reports in `CustomAttributes` ("version=3;digest=…")."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name: value for name, _, value in pairs if name}


def _tags(release: StoredRelease) -> list[dict[str, str]]:
    tags = {"ratchet:endpoint": release.endpoint, "ratchet:version": release.version, "ratchet:digest": release.digest}
    return [{"Key": key, "Value": value} for key, value in tags.items()]
