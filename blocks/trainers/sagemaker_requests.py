"""Settings and request arguments of SageMaker training jobs, and the job state from a description. No AWS calls."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from blocks.common.aws.jobs import JOB_STATUSES, failure_reason, is_transient, tag_list
from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJob, TrainingJobState
from blocks.trainers.job_checks import PROGRAM_CHANNEL


class TrainingSettings(BaseModel):
    """Settings of all jobs: role, image, instances, network, tags."""

    role_arn: str = Field(description="ARN of the role that jobs run as.")
    image: str = Field(description="URI of the container image in ECR, preferably by digest.")
    instance_types: list[str] = Field(
        default=["ml.m6i.large"], min_length=1, max_length=5,
        description="Instance types in order of preference; the first with capacity is used.",
    )  # fmt: skip
    volume_gb: int = Field(default=30, gt=0, description="Size of the instance's disk, in GB.")
    spot: bool = Field(default=False, description="Whether to train on spot instances, with checkpoints in S3.")
    spot_wait_seconds: int = Field(
        default=3600, ge=0, description="Seconds that a spot job may wait for an instance, beyond the job's own limit."
    )
    keep_alive_seconds: int = Field(
        default=0, ge=0, le=21_600,
        description="Seconds that the instance stays allocated, and billed, for the next job.",
    )  # fmt: skip
    subnets: list[str] = Field(default=[], description="Subnets of the VPC that jobs run in; empty: no VPC.")
    security_groups: list[str] = Field(default=[], description="Security groups, with subnets.")
    metrics: dict[str, str] = Field(
        default={}, max_length=40,
        description="CloudWatch metrics by name: a regular expression whose one group finds the value in the log.",
    )  # fmt: skip
    tags: dict[str, str] = Field(default={}, description="Tags of every job, such as cost centre and team.")

    @model_validator(mode="after")
    def _one_kind_of_capacity(self) -> Self:
        if self.spot and len(self.instance_types) > 1:
            raise ValueError(
                "spot needs exactly one instance type: SageMaker has preferences for on-demand instances only"
            )
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups must be set together")
        return self


@dataclass(frozen=True)
class JobLocations:
    """s3:// URLs of a job's program, channels, models and checkpoints."""

    program: str
    channels: Mapping[str, str]
    models: str
    checkpoints: str


def training_request(
    settings: TrainingSettings, job: TrainingJob, name: str, locations: JobLocations
) -> dict[str, Any]:
    """Return the arguments of `create_training_job`."""
    channels = {**locations.channels, PROGRAM_CHANNEL: locations.program}
    stopping = {"MaxRuntimeInSeconds": job.max_seconds}
    request: dict[str, Any] = {
        "TrainingJobName": name,
        "RoleArn": settings.role_arn,
        "AlgorithmSpecification": {"TrainingImage": settings.image, "TrainingInputMode": "File"},
        "HyperParameters": dict(job.hyperparameters),
        "Environment": dict(job.environment),
        "InputDataConfig": [_channel(channel, address) for channel, address in channels.items()],
        "OutputDataConfig": {"S3OutputPath": locations.models},
        "ResourceConfig": _resources(settings),
        "StoppingCondition": stopping,
        "Tags": _tags(settings, job),
    }
    if settings.spot:
        stopping["MaxWaitTimeInSeconds"] = job.max_seconds + settings.spot_wait_seconds
        request["EnableManagedSpotTraining"] = True
        request["CheckpointConfig"] = {"S3Uri": locations.checkpoints}
    if settings.metrics:
        metrics = [{"Name": name, "Regex": expression} for name, expression in settings.metrics.items()]
        request["AlgorithmSpecification"]["MetricDefinitions"] = metrics
    if settings.subnets:
        request["VpcConfig"] = {"Subnets": list(settings.subnets), "SecurityGroupIds": list(settings.security_groups)}
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


def _resources(settings: TrainingSettings) -> dict[str, Any]:
    resources: dict[str, Any] = {"VolumeSizeInGB": settings.volume_gb}
    if len(settings.instance_types) > 1:
        resources["InstancePreferences"] = [
            {"InstanceType": kind, "InstanceCount": 1} for kind in settings.instance_types
        ]
    else:
        resources |= {"InstanceType": settings.instance_types[0], "InstanceCount": 1}
    if settings.keep_alive_seconds:
        resources["KeepAlivePeriodInSeconds"] = settings.keep_alive_seconds
    return resources


def _tags(settings: TrainingSettings, job: TrainingJob) -> list[dict[str, str]]:
    """Return the tags that attribute costs and find orphans: the job, its run, its commit."""
    variables = {"ratchet:run": "MLFLOW_RUN_ID", "ratchet:commit": "RATCHET_COMMIT",
                 "ratchet:data-digest": "RATCHET_DATA_DIGEST"}  # fmt: skip
    own = {tag: job.environment[name] for tag, name in variables.items() if job.environment.get(name)}
    tags = {**settings.tags, "ratchet:job": job.name, **own}
    return tag_list(tags)
