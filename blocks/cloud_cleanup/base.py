"""The cloud cleanup port: billable jobs, endpoints and checkpoints of an environment, found by their tags."""

from abc import abstractmethod
from datetime import datetime

from prefect.blocks.core import Block
from pydantic import Field

from blocks.records.cloud import Checkpoints, PaidEndpoint, PaidJob

RUN_TAG = "ratchet:run"
"""Tag of a job: id of the tracking run that it trains for, which names its flow run."""
FLOW_RUN_TAG = "ratchet:flow-run"
"""Tag of a job: id of the flow run that submitted it. If it is missing, the tracking run names its flow run."""
ENVIRONMENT_TAG = "ratchet:environment"
"""Tag of jobs and endpoints: the environment that owns them. Resources without it are never changed."""


class CloudCleanup(Block):
    """Finds and ends the billable resources of an environment. Ending a resource that has ended is no error."""

    region: str = Field(description="Region of the resources, such as eu-central-1.")

    @abstractmethod
    def training_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the running training jobs of the environment."""

    @abstractmethod
    def stop_training_job(self, name: str) -> None:
        """Request the stop of a training job."""

    @abstractmethod
    def batch_inference_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the running batch transform jobs of the environment; SageMaker does not limit their time."""

    @abstractmethod
    def stop_batch_inference_job(self, name: str) -> None:
        """Request the stop of a batch transform job."""

    @abstractmethod
    def endpoints(self, environment: str, since: datetime) -> tuple[PaidEndpoint, ...]:
        """Return the environment's endpoints in service, with the number of requests of each since that time."""

    @abstractmethod
    def scale_down(self, endpoint: PaidEndpoint) -> None:
        """Reduce each variant to one instance."""

    @abstractmethod
    def delete_endpoint(self, name: str) -> None:
        """Delete the endpoint only. Its configuration and model remain, so that it can be created again."""

    @abstractmethod
    def checkpoints(self) -> tuple[Checkpoints, ...]:
        """Return the checkpoints of all jobs, one entry per job."""

    @abstractmethod
    def delete_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Delete these files permanently."""
