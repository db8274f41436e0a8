"""SageMaker request arguments of a training job, and the job state from its description. No AWS calls."""

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
    """Settings of all jobs: role, image, instances, network, tags. `spot_wait_seconds` is None for on-demand."""

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
    """s3:// URLs of a job's program, channels, models and checkpoints."""

    program: str
    channels: Mapping[str, str]
    models: str
    checkpoints: str


def training_request(plan: TrainingConfig, job: TrainingJob, name: str, locations: JobLocations) -> dict[str, Any]:
    """Return the arguments of `create_training_job`."""
    channels = {**locations.channels, PROGRAM_CHANNEL: locations.program}
    stopping = {"MaxRuntimeInSeconds": job.max_seconds}
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "RoleArn": plan.role_arn,
        "AlgorithmSpecification": {"TrainingImage": plan.image, "TrainingInputMode": "File"},
        "HyperParameters": dict(job.hyperparameters),
        "Environment": dict(job.environment),
        "InputDataConfig": [_channel(channel, address) for channel, address in channels.items()],
        "OutputDataConfig": {"S3OutputPath": locations.models},
        "ResourceConfig": _resources(plan),
        "StoppingCondition": stopping,
        "Tags": _tags(plan, job),
    }
    if plan.spot_wait_seconds is not None:
        stopping["MaxWaitTimeInSeconds"] = job.max_seconds + plan.spot_wait_seconds
        request["EnableManagedSpotTraining"] = True
        request["CheckpointConfig"] = {"S3Uri": locations.checkpoints}
    if plan.metrics:
        metrics = [{"Name": name, "Regex": expression} for name, expression in plan.metrics.items()]
        request["AlgorithmSpecification"]["MetricDefinitions"] = metrics
    if plan.subnets:
        request["VpcConfig"] = {"Subnets": list(plan.subnets), "SecurityGroupIds": list(plan.security_groups)}
    return request


def job_state(name: str, description: Mapping[str, Any]) -> TrainingJobState:
    """Return the state of the job that SageMaker describes, without the model folder."""
    status = JOB_STATUSES[description["TrainingJobStatus"]]
    started = description.get("TrainingStartTime") or description["CreationTime"]
    seconds = ((description.get("TrainingEndTime") or datetime.now(UTC)) - started).total_seconds()
    resources = description.get("ResourceConfig", {})
    instance_type = resources.get("SelectedInstanceType") or resources.get("InstanceType", "")
    billable = _billable_seconds(description)
    state = TrainingJobState(name, status, seconds, billable_seconds=billable, instance_type=instance_type)
    if status is JobStatus.failed:
        reason = failure_reason(description)
        return replace(state, reason=reason, transient=is_transient(reason))
    return replace(state, reason=_stop_reason(description) if status is JobStatus.stopped else "")


def _billable_seconds(description: Mapping[str, Any]) -> float | None:
    """Return the seconds that SageMaker bills, including the warm pool; None if unknown."""
    if "BillableTimeInSeconds" not in description:
        return None
    pool = description.get("WarmPoolStatus", {}).get("ResourceRetainedBillableTimeInSeconds", 0)
    return float(description["BillableTimeInSeconds"] + pool)


def _stop_reason(description: Mapping[str, Any]) -> str:
    limits = description.get("StoppingCondition", {})
    return {
        "MaxRuntimeExceeded": f"ran longer than its limit of {limits.get('MaxRuntimeInSeconds')} s (max_seconds)",
        "MaxWaitTimeExceeded": f"waited longer than {limits.get('MaxWaitTimeInSeconds')} s for a spot instance "
        "(spot_wait_seconds)",
    }.get(description["SecondaryStatus"], "stopped on request")


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
    """Return the tags that attribute costs and find orphans: the job, its run, its commit."""
    variables = {"ratchet:run": "MLFLOW_RUN_ID", "ratchet:commit": "RATCHET_COMMIT",
                 "ratchet:data-digest": "RATCHET_DATA_DIGEST"}  # fmt: skip
    own = {tag: job.environment[name] for tag, name in variables.items() if job.environment.get(name)}
    tags = {**plan.tags, "ratchet:job": job.name, **own}
    return tag_list(tags)
