"""An account in memory: what runs in it is put there, and what is ended is gone."""

from dataclasses import replace
from datetime import datetime

from pydantic import PrivateAttr

from blocks.cloud_cleanup.base import Checkpoints, CloudCleanup, PaidEndpoint, PaidJob


class FakeCloudCleanup(CloudCleanup):
    """Remembers what was put into it, by environment, and what was done to it."""

    _block_type_name = "Ratchet cloud: fake"
    _block_type_slug = "ratchet-cloud-fake"

    region: str = "us-east-1"
    _jobs: dict[str, tuple[str, PaidJob]] = PrivateAttr(default_factory=dict)
    _transforms: dict[str, tuple[str, PaidJob]] = PrivateAttr(default_factory=dict)
    _endpoints: dict[str, tuple[str, PaidEndpoint]] = PrivateAttr(default_factory=dict)
    _checkpoints: dict[str, Checkpoints] = PrivateAttr(default_factory=dict)

    def add(self, environment: str, *things: PaidJob | PaidEndpoint | Checkpoints) -> None:
        """Let these things be there, for that environment."""
        for thing in things:
            if isinstance(thing, PaidJob):
                self._jobs[thing.name] = (environment, thing)
            elif isinstance(thing, PaidEndpoint):
                self._endpoints[thing.name] = (environment, thing)
            else:
                self._checkpoints[thing.job] = thing

    def add_batch_inference_job(self, environment: str, job: PaidJob) -> None:
        """Let this transform job run, for that environment."""
        self._transforms[job.name] = (environment, job)

    def batch_inference_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the transform jobs of the environment that run."""
        return tuple(job for own, job in self._transforms.values() if own == environment)

    def stop_batch_inference_job(self, name: str) -> None:
        """Let the transform job be gone."""
        self._transforms.pop(name, None)

    def training_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the jobs of the environment that run."""
        return tuple(job for own, job in self._jobs.values() if own == environment)

    def stop_training_job(self, name: str) -> None:
        """Let the job be gone."""
        self._jobs.pop(name, None)

    def endpoints(self, environment: str, since: datetime) -> tuple[PaidEndpoint, ...]:
        """Return the environment's endpoints; their requests are those that they were put there with."""
        return tuple(endpoint for own, endpoint in self._endpoints.values() if own == environment)

    def scale_down(self, endpoint: PaidEndpoint) -> None:
        """Leave one instance of each variant."""
        own, there = self._endpoints[endpoint.name]
        self._endpoints[endpoint.name] = (
            own,
            replace(there, instances_by_variant=dict.fromkeys(there.instances_by_variant, 1)),
        )

    def delete_endpoint(self, name: str) -> None:
        """Let the endpoint be gone."""
        self._endpoints.pop(name, None)

    def checkpoints(self) -> tuple[Checkpoints, ...]:
        """Return the checkpoints that jobs have left."""
        return tuple(self._checkpoints.values())

    def delete_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Let them be gone."""
        self._checkpoints.pop(checkpoints.job, None)
