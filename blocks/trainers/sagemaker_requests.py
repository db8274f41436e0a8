"""A training job in SageMaker's words: the request that starts it, and what its description means. No calls here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from blocks.common.aws.jobs import JOB_STATUSES, failure_reason, is_transient, tag_list
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob, TrainingJobState
from blocks.trainers.job_checks import PROGRAM_CHANNEL


@dataclass(frozen=True)
class TrainingConfig:
    """On what jobs run. `spot_wait_seconds` is None for on-demand instances."""

    role_arn: str
    image: str
    instance_types: tuple[str, ...]
    volume_gb: int
    spot_wait_seconds: int | None
    keep_alive_seconds: int
    subnets: tuple[str, ...]
    security_groups: tuple[str, ...]
    metrics: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class JobLocations:
    """Where in S3 the job finds its program and channels, and leaves model and checkpoints (s3:// addresses)."""

    program: str
    channels: Mapping[str, str]
    models: str
    checkpoints: str


def training_request(plan: TrainingConfig, job: TrainingJob, name: str, places: JobLocations) -> dict[str, Any]:
    """Return the arguments of `create_training_job`."""
    channels = {**places.channels, PROGRAM_CHANNEL: places.program}
    stopping = {"MaxRuntimeInSeconds": job.max_seconds}
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "RoleArn": plan.role_arn,
        "AlgorithmSpecification": {"TrainingImage": plan.image, "TrainingInputMode": "File"},
        "HyperParameters": dict(job.hyperparameters),
        "Environment": dict(job.environment),
        "InputDataConfig": [_channel(channel, address) for channel, address in channels.items()],
        "OutputDataConfig": {"S3OutputPath": places.models},
        "ResourceConfig": _resources(plan),
        "StoppingCondition": stopping,
        "Tags": _tags(plan, job),
    }
    if plan.spot_wait_seconds is not None:
        stopping["MaxWaitTimeInSeconds"] = job.max_seconds + plan.spot_wait_seconds
        request["EnableManagedSpotTraining"] = True
        request["CheckpointConfig"] = {"S3Uri": places.checkpoints}
    if plan.metrics:
        wanted = [{"Name": name, "Regex": expression} for name, expression in plan.metrics.items()]
        request["AlgorithmSpecification"]["MetricDefinitions"] = wanted
    if plan.subnets:
        request["VpcConfig"] = {"Subnets": list(plan.subnets), "SecurityGroupIds": list(plan.security_groups)}
    return request


def job_state(name: str, described: Mapping[str, Any]) -> TrainingJobState:
    """Return what a description says of the job, its model apart."""
    status = JOB_STATUSES[described["TrainingJobStatus"]]
    begun = described.get("TrainingStartTime") or described["CreationTime"]
    seconds = ((described.get("TrainingEndTime") or datetime.now(UTC)) - begun).total_seconds()
    resources = described.get("ResourceConfig", {})
    kind = resources.get("SelectedInstanceType") or resources.get("InstanceType", "")
    state = TrainingJobState(name, status, seconds, billable_seconds=_billed(described), instance_type=kind)
    if status is JobStatus.failed:
        reason = failure_reason(described)
        return replace(state, reason=reason, transient=is_transient(reason))
    return replace(state, reason=_why_stopped(described) if status is JobStatus.stopped else "")


def _billed(described: Mapping[str, Any]) -> float | None:
    """Return what SageMaker says that it bills, the warm pool's seconds included."""
    if "BillableTimeInSeconds" not in described:
        return None
    pool = described.get("WarmPoolStatus", {}).get("ResourceRetainedBillableTimeInSeconds", 0)
    return float(described["BillableTimeInSeconds"] + pool)


def _why_stopped(described: Mapping[str, Any]) -> str:
    limits = described.get("StoppingCondition", {})
    return {
        "MaxRuntimeExceeded": f"ran longer than its limit of {limits.get('MaxRuntimeInSeconds')} s (max_seconds)",
        "MaxWaitTimeExceeded": f"waited longer than {limits.get('MaxWaitTimeInSeconds')} s for a spot instance "
        "(spot_wait_seconds)",
    }.get(described["SecondaryStatus"], "stopped on request")


def _channel(name: str, address: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": address, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


def _resources(plan: TrainingConfig) -> dict[str, Any]:
    resources: dict[str, Any] = {"VolumeSizeInGB": plan.volume_gb}
    if len(plan.instance_types) > 1:
        resources["InstancePreferences"] = [{"InstanceType": kind, "InstanceCount": 1} for kind in plan.instance_types]
    else:
        resources |= {"InstanceType": plan.instance_types[0], "InstanceCount": 1}
    if plan.keep_alive_seconds:
        resources["KeepAlivePeriodInSeconds"] = plan.keep_alive_seconds
    return resources


def _tags(plan: TrainingConfig, job: TrainingJob) -> list[dict[str, str]]:
    """Return the tags by which costs are summed and orphans found: the job, its run, its commit."""
    variables = {"ratchet:run": "MLFLOW_RUN_ID", "ratchet:commit": "RATCHET_COMMIT",
                 "ratchet:data": "RATCHET_DATA_DIGEST"}  # fmt: skip
    own = {tag: job.environment[name] for tag, name in variables.items() if job.environment.get(name)}
    tags = {**plan.tags, "ratchet:job": job.name, **own}
    return tag_list(tags)
