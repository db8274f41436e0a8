"""A release in SageMaker's words: names, model, endpoint configuration, deployment and alarms. No calls here."""

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from blocks.endpoints.sagemaker_capture import capture_config, is_capture_allowed
from blocks.endpoints.sagemaker_release_store import StoredRelease
from runtime.digests import text_digest

VARIANT = "AllTraffic"
"""The one variant's name, for ever: a guarded update needs the same names before and after."""
MAX_NAME_LENGTH = 63
ALARM_PERIOD_SECONDS = 60


@dataclass(frozen=True)
class ServingConfig:
    """On what models are served. With `serverless_memory_mb` there are no instances."""

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
    """The s3:// address below which requests are captured, by endpoint and version."""


@dataclass(frozen=True)
class RolloutPolicy:
    """How an update is guarded: the first share of the traffic, how long it is watched, and when it is taken back."""

    canary_percent: int
    bake_seconds: int
    max_error_rate: float
    max_latency_ms: float | None
    alarms: tuple[str, ...]


def endpoint_name(endpoint: str) -> str:
    """Return the endpoint's name on SageMaker, which knows no underscores."""
    return endpoint.replace("_", "-")


def release_name(release: StoredRelease, config: ServingConfig) -> str:
    """Return the name of a release's model and configuration: another one for anything that differs."""
    identity: dict[str, Any] = {"endpoint": release.endpoint, "version": release.version, "digest": release.digest}
    identity |= asdict(config) | {"log": asdict(release.log_policy) if release.log_policy else None}
    digest = text_digest(json.dumps(identity, sort_keys=True))[:12]
    return release_name_prefix(release.endpoint, release.version) + digest


def release_name_prefix(endpoint: str, version: str) -> str:
    """Return how a release's names begin, whatever it was served on; those of another release may begin so, too."""
    shown = re.sub(r"[^A-Za-z0-9]", "-", version)[:12].strip("-")
    return f"{endpoint_name(endpoint)[: MAX_NAME_LENGTH - 28].rstrip('-')}-{shown}-"


def model_request(kept: StoredRelease, hosting: ServingConfig) -> dict[str, Any]:
    """Return the arguments of `create_model`: the files as they lie in S3, with nothing packed or unpacked."""
    source = {"S3Uri": kept.url, "S3DataType": "S3Prefix", "CompressionType": "None"}
    variables = {
        "RATCHET_ENDPOINT": kept.endpoint,
        "RATCHET_MODEL_VERSION": kept.version,
        "RATCHET_MODEL_DIGEST": kept.digest,
        "RATCHET_TRUSTED_KEYS": " ".join(hosting.trusted_keys),
        **(
            {"RATCHET_KEY_COLUMN": kept.log_policy.entity_column}
            if kept.log_policy and kept.log_policy.entity_column
            else {}
        ),
    }
    return {
        "ModelName": release_name(kept, hosting),
        "ExecutionRoleArn": hosting.role_arn,
        "PrimaryContainer": {
            "Image": hosting.image,
            "ModelDataSource": {"S3DataSource": source},
            "Environment": variables,
        },
        "Tags": _tags(kept),
    }


def config_request(kept: StoredRelease, hosting: ServingConfig) -> dict[str, Any]:
    """Return the arguments of `create_endpoint_config`: one variant."""
    name = release_name(kept, hosting)
    variant: dict[str, Any] = {"VariantName": VARIANT, "ModelName": name, "InitialVariantWeight": 1.0}
    if hosting.serverless_memory_mb:
        limits = {"MemorySizeInMB": hosting.serverless_memory_mb, "MaxConcurrency": hosting.serverless_concurrency}
        variant["ServerlessConfig"] = limits
    else:
        variant |= {"InstanceType": hosting.instance_type, "InitialInstanceCount": hosting.instance_count}
        variant["ContainerStartupHealthCheckTimeoutInSeconds"] = hosting.startup_seconds
    request: dict[str, Any] = {"EndpointConfigName": name, "ProductionVariants": [variant], "Tags": _tags(kept)}
    if hosting.capture_percent and is_capture_allowed(kept.log_policy):
        address = f"{hosting.capture_url}/{kept.endpoint}/{kept.version}"
        request["DataCaptureConfig"] = capture_config(address, hosting.capture_percent)
    return request


def deployment_config(endpoint: str, guard: RolloutPolicy) -> dict[str, Any]:
    """Return the `DeploymentConfig` of an update: a canary that alarms watch, or all at once."""
    routing: dict[str, Any] = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": guard.bake_seconds}
    if guard.canary_percent:
        size = {"Type": "CAPACITY_PERCENT", "Value": guard.canary_percent}
        routing = {"Type": "CANARY", "WaitIntervalInSeconds": guard.bake_seconds, "CanarySize": size}
    found: dict[str, Any] = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 0 if guard.canary_percent else guard.bake_seconds,
        }
    }
    if names := [alarm["AlarmName"] for alarm in alarm_requests(endpoint, guard)] + list(guard.alarms):
        found["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in names]}
    return found


def alarm_requests(endpoint: str, guard: RolloutPolicy) -> list[dict[str, Any]]:
    """Return the arguments of `put_metric_alarm`: the share of requests that fail, and the mean latency."""
    if not guard.bake_seconds:
        return []
    limits = {"Invocation5XXErrors": guard.max_error_rate}
    if guard.max_latency_ms is not None:
        limits["ModelLatency"] = guard.max_latency_ms * 1000  # the metric is in microseconds
    name = endpoint_name(endpoint)
    dimensions = [{"Name": "EndpointName", "Value": name}, {"Name": "VariantName", "Value": VARIANT}]
    return [
        {
            "AlarmName": f"{name}-{metric}",
            "AlarmDescription": f"Takes back an update of the endpoint {name}",
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
    """Return what the container said of itself in `CustomAttributes` ("version=3;digest=…")."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {name: value for name, _, value in pairs if name}


def _tags(kept: StoredRelease) -> list[dict[str, str]]:
    tags = {"ratchet:endpoint": kept.endpoint, "ratchet:version": kept.version, "ratchet:digest": kept.digest}
    return [{"Key": key, "Value": value} for key, value in tags.items()]
