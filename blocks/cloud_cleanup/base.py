"""The cloud port: what runs and costs money in an account, found by its tags, and how to end it."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from prefect.blocks.core import Block
from pydantic import Field

RUN_TAG = "ratchet:run"
"""The tag of a job: the id of the tracked run that it trains for, which knows its flow run."""
FLOW_RUN_TAG = "ratchet:flow-run"
"""The tag of a job: the id of the flow run that submitted it; where it has none, its tracked run is asked."""
ENVIRONMENT_TAG = "ratchet:environment"
"""The tag of jobs and endpoints: the environment whose they are. What does not bear it is never touched."""


@dataclass(frozen=True)
class PaidJob:
    """A training or transform job that runs. `max_seconds` is its limit of run time, `started` when it was created.

    `flow_run_id` and `run_id` are the ids of the flow run and the tracked run whose it is, "" where it does not say.
    """

    name: str
    flow_run_id: str
    instance_type: str
    instance_count: int
    started: datetime
    max_seconds: int
    run_id: str = ""


@dataclass(frozen=True)
class PaidEndpoint:
    """An endpoint in service: what it runs on by variant, since when, and its requests since a moment.

    `endpoint_config` is the configuration by which it can be made again once it is deleted.
    """

    name: str
    endpoint_config: str
    instance_type: str
    instances_by_variant: Mapping[str, int]
    in_service_since: datetime
    requests: float

    @property
    def instance_count(self) -> int:
        """How many instances it runs on."""
        return sum(self.instances_by_variant.values())


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one job: their bytes, and when the newest was written."""

    job: str
    size_bytes: int
    last_modified: datetime
    keys: tuple[str, ...] = field(default=(), repr=False)


class CloudCleanup(Block):
    """What runs in an account for an environment. Ending what has ended already is no error."""

    region: str = Field(description="The region in which all of it runs and is paid for, such as eu-central-1.")

    @abstractmethod
    def training_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the training jobs of the environment that run."""

    @abstractmethod
    def stop_training_job(self, name: str) -> None:
        """Ask the service to stop a training job."""

    @abstractmethod
    def batch_inference_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the batch transform jobs of the environment that run; they have no limit of time of their own."""

    @abstractmethod
    def stop_batch_inference_job(self, name: str) -> None:
        """Ask the service to stop a batch transform job."""

    @abstractmethod
    def endpoints(self, environment: str, since: datetime) -> tuple[PaidEndpoint, ...]:
        """Return the environment's endpoints in service, with the requests that each got since that moment."""

    @abstractmethod
    def scale_down(self, endpoint: PaidEndpoint) -> None:
        """Leave one instance of each variant."""

    @abstractmethod
    def delete_endpoint(self, name: str) -> None:
        """Delete the endpoint, and neither its configuration nor its model: it can be made again from them."""

    @abstractmethod
    def checkpoints(self) -> tuple[Checkpoints, ...]:
        """Return the checkpoints that jobs have left, by job."""

    @abstractmethod
    def delete_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Remove these files for good."""
