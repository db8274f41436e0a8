"""A fake cloud account in memory: tests add resources, and ending one removes it."""

from dataclasses import replace
from datetime import datetime

from pydantic import PrivateAttr

from blocks.cloud_cleanup.base import CloudCleanup
from blocks.records.cloud import Checkpoints, PaidEndpoint, PaidJob


class FakeCloudCleanup(CloudCleanup):
    """A cloud account in memory, with resources by environment."""

    _block_type_name = "Ratchet cloud cleanup (fake)"
    _block_type_slug = "ratchet-cloud-cleanup-fake"

    region: str = "us-east-1"
    _jobs: dict[str, tuple[str, PaidJob]] = PrivateAttr(default_factory=dict)
    _transforms: dict[str, tuple[str, PaidJob]] = PrivateAttr(default_factory=dict)
    _endpoints: dict[str, tuple[str, PaidEndpoint]] = PrivateAttr(default_factory=dict)
    _checkpoints: dict[str, Checkpoints] = PrivateAttr(default_factory=dict)

    def add(self, environment: str, *resources: PaidJob | PaidEndpoint | Checkpoints) -> None:
        """Add resources to the account, owned by that environment."""
        for resource in resources:
            if isinstance(resource, PaidJob):
                self._jobs[resource.name] = (environment, resource)
            elif isinstance(resource, PaidEndpoint):
                self._endpoints[resource.name] = (environment, resource)
            else:
                self._checkpoints[resource.job] = resource

    def add_batch_inference_job(self, environment: str, job: PaidJob) -> None:
        """Add a running transform job, owned by that environment."""
        self._transforms[job.name] = (environment, job)

    def batch_inference_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the running transform jobs of the environment."""
        return tuple(job for owner, job in self._transforms.values() if owner == environment)

    def stop_batch_inference_job(self, name: str) -> None:
        """Remove the transform job."""
        self._transforms.pop(name, None)

    def training_jobs(self, environment: str) -> tuple[PaidJob, ...]:
        """Return the running training jobs of the environment."""
        return tuple(job for owner, job in self._jobs.values() if owner == environment)

    def stop_training_job(self, name: str) -> None:
        """Remove the job."""
        self._jobs.pop(name, None)

    def endpoints(self, environment: str, since: datetime) -> tuple[PaidEndpoint, ...]:
        """Return the environment's endpoints, with the requests that they were added with."""
        return tuple(endpoint for owner, endpoint in self._endpoints.values() if owner == environment)

    def scale_down(self, endpoint: PaidEndpoint) -> None:
        """Reduce each variant to one instance."""
        owner, current = self._endpoints[endpoint.name]
        reduced = replace(current, instances_by_variant=dict.fromkeys(current.instances_by_variant, 1))
        self._endpoints[endpoint.name] = (owner, reduced)

    def delete_endpoint(self, name: str) -> None:
        """Remove the endpoint."""
        self._endpoints.pop(name, None)

    def checkpoints(self) -> tuple[Checkpoints, ...]:
        """Return the checkpoints of all jobs."""
        return tuple(self._checkpoints.values())

    def delete_checkpoints(self, checkpoints: Checkpoints) -> None:
        """Remove the checkpoints."""
        self._checkpoints.pop(checkpoints.job, None)
