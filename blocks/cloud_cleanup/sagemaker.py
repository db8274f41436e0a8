"""Cloud cleanup for SageMaker and S3. Tested with botocore's API model; never run on a real account."""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from blocks.cloud_cleanup.base import ENVIRONMENT_TAG, FLOW_RUN_TAG, RUN_TAG, CloudCleanup
from blocks.common.aws.clients import aws_client, port_errors
from blocks.common.aws.s3_folders import S3Folders, S3Object
from blocks.common.errors import NotFound
from blocks.records.cloud import Checkpoints, PaidEndpoint, PaidJob

JobKind = Literal["Training", "Transform"]
DEFAULT_MAX_SECONDS = 86_400
"""Assumed maximum run time, in seconds, of a job without a limit."""


class SageMakerCleanup(CloudCleanup):
    """Finds jobs and endpoints of an account by their tags, and checkpoints below a prefix of a bucket."""

    _block_type_name = "Ratchet cloud cleanup (SageMaker)"
    _block_type_slug = "ratchet-cloud-cleanup-sagemaker"

    bucket: str = Field(description="Bucket with the checkpoints of jobs.")
    checkpoint_prefix: str = Field(
        "training/checkpoints/", min_length=2, description="Key prefix of checkpoints: <prefix><job>/…"
    )
    include_unassigned: bool = Field(
        False, description="Whether resources with Ratchet tags but without an environment belong to this one."
    )
    endpoint_url: str = Field("", description="Endpoint URL of the local SageMaker; empty: AWS.")
    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def training_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the running training jobs of the environment."""
        return self._running_jobs("Training", environment)

    def stop_training_job(self, name: str) -> None:
        """Request the stop of a training job."""
        self._stop("Training", name)

    def batch_inference_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the running batch transform jobs of the environment."""
        return self._running_jobs("Transform", environment)

    def stop_batch_inference_job(self, name: str) -> None:
        """Request the stop of a batch transform job."""
        self._stop("Transform", name)

    def endpoints(self, environment: str, since: datetime) -> tuple[PaidEndpoint, ...]:
        """Return the environment's endpoints in service, with the number of requests from CloudWatch."""
        with self._port_errors("ListEndpoints"):
            pages = self._client("sagemaker").get_paginator("list_endpoints").paginate(StatusEquals="InService")
            endpoints = [endpoint for page in pages for endpoint in page["Endpoints"]]
            own = [each for each in endpoints if self._belongs_to(self._tags(each["EndpointArn"]), environment)]
            return tuple(self._endpoint(each["EndpointName"], since) for each in own)

    def scale_down(self, endpoint: PaidEndpoint) -> None:
        """Reduce each variant to one instance."""
        variants = [{"VariantName": name, "DesiredInstanceCount": 1} for name in endpoint.instances_by_variant]
        with self._port_errors(f"UpdateEndpointWeightsAndCapacities {endpoint.name}"):
            self._client("sagemaker").update_endpoint_weights_and_capacities(
                EndpointName=endpoint.name, DesiredWeightsAndCapacities=variants
            )

    def delete_endpoint(self, name: str) -> None:
        """Delete the endpoint only."""
        with contextlib.suppress(NotFound), self._port_errors(f"DeleteEndpoint {name}"):
            self._client("sagemaker").delete_endpoint(EndpointName=name)

    def checkpoints(self) -> tuple[Checkpoints, ...]:
        """Return the checkpoints below the prefix, one entry per job."""
        jobs: dict[str, list[S3Object]] = {}
        with self._port_errors(f"ListObjectsV2 s3://{self.bucket}/{self.checkpoint_prefix}"):
            for file in self._folders.objects(self.checkpoint_prefix):
                job, _, rest = file.key.removeprefix(self.checkpoint_prefix).partition("/")
                if job and rest:
                    jobs.setdefault(job, []).append(file)
        return tuple(
            Checkpoints(
                job,
                sum(file.size_bytes for file in files),
                max(file.modified for file in files),
                tuple(file.key for file in files),
            )
            for job, files in jobs.items()
        )

    def delete_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Delete the listed files, and none that was written since."""
        with self._port_errors(f"DeleteObjects s3://{self.bucket}/{self.checkpoint_prefix}{checkpoints.job}/"):
            self._folders.delete(checkpoints.keys)

    def _belongs_to(self, tags: Mapping[str, str], environment: str) -> bool:
        """Return whether the environment owns the resource; without a Ratchet tag it never does."""
        if ENVIRONMENT_TAG in tags:
            return tags[ENVIRONMENT_TAG] == environment
        return self.include_unassigned and any(name.startswith("ratchet:") for name in tags)

    def _running_jobs(self, kind: JobKind, environment: str) -> tuple[PaidJob, ...]:
        with self._port_errors(f"List{kind}Jobs"):
            paginator = self._client("sagemaker").get_paginator(f"list_{kind.lower()}_jobs")
            jobs = [
                job for page in paginator.paginate(StatusEquals="InProgress") for job in page[f"{kind}JobSummaries"]
            ]
            tagged = ((job[f"{kind}JobName"], self._tags(job[f"{kind}JobArn"])) for job in jobs)
            return tuple(self._job(kind, name, tags) for name, tags in tagged if self._belongs_to(tags, environment))

    def _stop(self, kind: JobKind, name: str) -> None:
        with contextlib.suppress(NotFound), self._port_errors(f"Stop{kind}Job {name}"):
            getattr(self._client("sagemaker"), f"stop_{kind.lower()}_job")(**{f"{kind}JobName": name})

    def _job(self, kind: JobKind, name: str, tags: Mapping[str, str]) -> PaidJob:
        job = getattr(self._client("sagemaker"), f"describe_{kind.lower()}_job")(**{f"{kind}JobName": name})
        resources = job["ResourceConfig" if kind == "Training" else "TransformResources"]
        return PaidJob(
            name=name,
            flow_run_id=tags.get(FLOW_RUN_TAG, ""),
            instance_type=resources.get("InstanceType", ""),
            instance_count=resources.get("InstanceCount", 1),
            started=job["CreationTime"],
            max_seconds=job.get("StoppingCondition", {}).get("MaxRuntimeInSeconds", DEFAULT_MAX_SECONDS),
            run_id=tags.get(RUN_TAG, ""),
        )

    def _endpoint(self, name: str, since: datetime) -> PaidEndpoint:
        description = self._client("sagemaker").describe_endpoint(EndpointName=name)
        config = description["EndpointConfigName"]
        variants = self._client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        counts = {
            each["VariantName"]: each.get("CurrentInstanceCount", 1) for each in description["ProductionVariants"]
        }
        requests = sum(self._requests(name, variant, since) for variant in counts)
        instance_type = variants[0].get("InstanceType", "")
        return PaidEndpoint(name, config, instance_type, counts, description["LastModifiedTime"], requests)

    def _requests(self, endpoint: str, variant: str, since: datetime) -> float:
        """Return the number of requests; CloudWatch has no data point if there were none."""
        response = self._client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}],
            StartTime=since,
            EndTime=datetime.now(UTC),
            Period=3600,
            Statistics=["Sum"],
        )
        return float(sum(point["Sum"] for point in response["Datapoints"]))

    def _tags(self, arn: str) -> dict[str, str]:
        pages = self._client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = aws_client(service, self.region, self.endpoint_url)
        return self._clients[service]

    @property
    def _folders(self) -> S3Folders:
        return S3Folders(self._client("s3"), self.bucket)

    def _port_errors(self, action: str) -> contextlib.AbstractContextManager[None]:
        """Translate AWS errors into port errors that name the call and the region."""
        return port_errors(f"{action} in {self.region}")
