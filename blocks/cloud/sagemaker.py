"""SageMaker and S3 as the cloud port. Never run on a real account: checked by botocore's model of the services."""

import contextlib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field, PrivateAttr

from blocks.cloud.base import ENVIRONMENT, FLOW_RUN, RUN, Checkpoints, Cloud, PaidEndpoint, PaidJob
from blocks.common.errors import NotFound, Rejected, Unavailable

GONE = ("Could not find", "does not exist", "cannot be stopped", "already in a terminal", "is in a terminal")
"""What SageMaker says, within a ValidationException, of what has ended or is not there."""
BUSY = {
    "ThrottlingException",
    "Throttling",
    "RequestLimitExceeded",
    "SlowDown",
    "ServiceUnavailable",
    "InternalFailure",
}
UNLIMITED = 86_400
"""What a job is taken to run at most that has no limit of its own, in seconds."""
BATCH = 1000
"""How many files S3 removes in one call."""


class SageMakerCloud(Cloud):
    """Training jobs and endpoints of an account by their tags, and checkpoints below a prefix of a bucket."""

    _block_type_name = "Ratchet cloud: SageMaker"
    _block_type_slug = "ratchet-cloud-sagemaker"

    bucket: str = Field(description="The bucket that holds the jobs' checkpoints.")
    checkpoint_prefix: str = Field("training/checkpoints/", min_length=2, description="Where in it: <prefix><job>/…")
    whole_account: bool = Field(
        False, description="Whether what bears tags of Ratchet but names no environment is this environment's, too."
    )
    endpoint_url: str = Field("", description="Another address than AWS's, for the local SageMaker; empty: AWS.")
    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the training jobs of the environment that run."""
        with self._calling("ListTrainingJobs"):
            pages = self._client("sagemaker").get_paginator("list_training_jobs").paginate(StatusEquals="InProgress")
            found = [job for page in pages for job in page["TrainingJobSummaries"]]
            tagged = ((job["TrainingJobName"], self._tags(job["TrainingJobArn"])) for job in found)
            return tuple(self._job(name, tags) for name, tags in tagged if self._is_own(tags, environment))

    def stop_job(self, name: str) -> None:
        """Ask SageMaker to stop a job."""
        with contextlib.suppress(NotFound), self._calling(f"StopTrainingJob {name}"):
            self._client("sagemaker").stop_training_job(TrainingJobName=name)

    def transforms(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the batch transform jobs of the environment that run."""
        with self._calling("ListTransformJobs"):
            pages = self._client("sagemaker").get_paginator("list_transform_jobs").paginate(StatusEquals="InProgress")
            found = [job for page in pages for job in page["TransformJobSummaries"]]
            tagged = ((job["TransformJobName"], self._tags(job["TransformJobArn"])) for job in found)
            return tuple(self._transform(name, tags) for name, tags in tagged if self._is_own(tags, environment))

    def stop_transform(self, name: str) -> None:
        """Ask SageMaker to stop a batch transform job."""
        with contextlib.suppress(NotFound), self._calling(f"StopTransformJob {name}"):
            self._client("sagemaker").stop_transform_job(TransformJobName=name)

    def endpoints(self, environment: str, since: datetime) -> tuple[PaidEndpoint, ...]:
        """Return the environment's endpoints in service, with the requests that CloudWatch counted."""
        with self._calling("ListEndpoints"):
            pages = self._client("sagemaker").get_paginator("list_endpoints").paginate(StatusEquals="InService")
            found = [endpoint for page in pages for endpoint in page["Endpoints"]]
            own = [each for each in found if self._is_own(self._tags(each["EndpointArn"]), environment)]
            return tuple(self._endpoint(each["EndpointName"], since) for each in own)

    def scale_down(self, endpoint: PaidEndpoint) -> None:
        """Leave one instance of each variant."""
        wanted = [{"VariantName": name, "DesiredInstanceCount": 1} for name in endpoint.variants]
        with self._calling(f"UpdateEndpointWeightsAndCapacities {endpoint.name}"):
            self._client("sagemaker").update_endpoint_weights_and_capacities(
                EndpointName=endpoint.name, DesiredWeightsAndCapacities=wanted
            )

    def delete_endpoint(self, name: str) -> None:
        """Delete the endpoint alone."""
        with contextlib.suppress(NotFound), self._calling(f"DeleteEndpoint {name}"):
            self._client("sagemaker").delete_endpoint(EndpointName=name)

    def checkpoints(self) -> tuple[Checkpoints, ...]:
        """Return the checkpoints below the prefix, by job."""
        jobs: dict[str, list[Mapping[str, Any]]] = {}
        with self._calling(f"ListObjectsV2 s3://{self.bucket}/{self.checkpoint_prefix}"):
            pages = self._client("s3").get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.checkpoint_prefix):
                for file in page.get("Contents", ()):
                    job, _, rest = file["Key"].removeprefix(self.checkpoint_prefix).partition("/")
                    if job and rest:
                        jobs.setdefault(job, []).append(file)
        return tuple(
            Checkpoints(
                job,
                sum(f["Size"] for f in files),
                max(f["LastModified"] for f in files),
                tuple(f["Key"] for f in files),
            )
            for job, files in jobs.items()
        )

    def remove_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Remove the files that were listed, and none that was written since."""
        keys = [{"Key": key} for key in checkpoints.keys]
        for start in range(0, len(keys), BATCH):
            with self._calling(f"DeleteObjects s3://{self.bucket}/{self.checkpoint_prefix}{checkpoints.job}/"):
                said = self._client("s3").delete_objects(
                    Bucket=self.bucket, Delete={"Objects": keys[start : start + BATCH], "Quiet": True}
                )
            if failed := said.get("Errors"):
                raise Rejected(f"S3 kept {len(failed)} checkpoints of {checkpoints.job}: {failed[0]}")

    def _is_own(self, tags: Mapping[str, str], environment: str) -> bool:
        """Whether a thing is the environment's. What no tag of Ratchet says to be so never is."""
        if ENVIRONMENT in tags:
            return tags[ENVIRONMENT] == environment
        return self.whole_account and any(name.startswith("ratchet:") for name in tags)

    def _job(self, name: str, tags: Mapping[str, str]) -> PaidJob:
        job = self._client("sagemaker").describe_training_job(TrainingJobName=name)
        resources, limit = job["ResourceConfig"], job["StoppingCondition"].get("MaxRuntimeInSeconds", UNLIMITED)
        kind, count = resources.get("InstanceType", ""), resources.get("InstanceCount", 1)
        return PaidJob(name, tags.get(FLOW_RUN, ""), kind, count, job["CreationTime"], limit, tags.get(RUN, ""))

    def _transform(self, name: str, tags: Mapping[str, str]) -> PaidJob:
        job = self._client("sagemaker").describe_transform_job(TransformJobName=name)
        resources = job["TransformResources"]
        kind, count = resources["InstanceType"], resources["InstanceCount"]
        return PaidJob(name, tags.get(FLOW_RUN, ""), kind, count, job["CreationTime"], UNLIMITED, tags.get(RUN, ""))

    def _endpoint(self, name: str, since: datetime) -> PaidEndpoint:
        found = self._client("sagemaker").describe_endpoint(EndpointName=name)
        config = found["EndpointConfigName"]
        variants = self._client("sagemaker").describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        counts = {each["VariantName"]: each.get("CurrentInstanceCount", 1) for each in found["ProductionVariants"]}
        requests = sum(self._requests(name, variant, since) for variant in counts)
        kind = variants[0].get("InstanceType", "")
        return PaidEndpoint(name, config, kind, counts, found["LastModifiedTime"], requests)

    def _requests(self, endpoint: str, variant: str, since: datetime) -> float:
        """Return how many requests CloudWatch counted; it has no point at all where there was none."""
        answer = self._client("cloudwatch").get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName="Invocations",
            Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}],
            StartTime=since,
            EndTime=datetime.now(UTC),
            Period=3600,
            Statistics=["Sum"],
        )
        return float(sum(point["Sum"] for point in answer["Datapoints"]))

    def _tags(self, arn: str) -> dict[str, str]:
        pages = self._client("sagemaker").get_paginator("list_tags").paginate(ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            import boto3

            url = self.endpoint_url or None
            self._clients[service] = boto3.client(service, region_name=self.region, endpoint_url=url)
        return self._clients[service]

    @contextlib.contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Turn botocore's errors into the port's, naming the call and the region."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as cause:
            error = cause.response.get("Error", {})
            code, text = error.get("Code", ""), error.get("Message", "")
            gone = code in {"ResourceNotFound", "ResourceNotFoundException"} or any(sign in text for sign in GONE)
            kind = Unavailable if code in BUSY else NotFound if gone else Rejected
            raise kind(f"{what} in {self.region}: {code}: {text}") from cause
        except BotoCoreError as cause:
            raise Unavailable(f"{what} in {self.region}: {cause}") from cause
