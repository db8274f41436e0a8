"""Endpoints on SageMaker: preflight in a local scoring server, serving from model files in S3.

An endpoint has one variant with a fixed name. A release is a SageMaker model and an endpoint configuration, named by a
hash of their content; both are kept, so that a rollback is one update. SageMaker is the only source for the live
version.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from blocks.common.aws.clients import AwsClients, error_code, port_errors, region_name, response_or_none
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints import sagemaker_requests as requests
from blocks.endpoints.base import Endpoint, InferenceResponse, LiveVersion, LogSegment, ProbeResult, Release
from blocks.endpoints.sagemaker_capture import CaptureStore
from blocks.endpoints.sagemaker_release_store import S3ReleaseStore, StoredRelease
from blocks.endpoints.sagemaker_rollout import EndpointRollout, RolloutSettings, alarm_requests, deployment_config
from blocks.endpoints.scoring_process import PreflightSettings
from blocks.records.collectable import Collectable
from blocks.records.compute import EndpointCompute
from runtime.digests import folder_digest

COMPLETION_MARKERS = ("deployed.json", "release.json")
"""Files that mark a stored release as deployed once (a rollback is possible) and as complete."""


class SageMakerEndpoint(requests.ServingSettings, RolloutSettings, PreflightSettings, AwsClients, Endpoint):
    """Serves from SageMaker endpoints; stores a copy of each release in a bucket."""

    _block_type_name = "Ratchet endpoint (SageMaker)"
    _block_type_slug = "ratchet-endpoint-sagemaker"

    prefix: str = Field(default="releases", description="Key prefix of releases in the bucket.")
    max_instances: int = Field(default=1, gt=0, description="Maximum number of instances under your autoscaling.")

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return the maximum number of instances under autoscaling; serverless endpoints have no price by the hour."""
        serverless = self.serverless_memory_mb
        instance_type = f"serverless-{serverless}MB" if serverless else self.instance_type
        return EndpointCompute(instance_type, region_name(self.region), max(self.instance_count, self.max_instances))

    def preflight(self, release: Release) -> ProbeResult:
        """Load the artifact in the container's server on this machine, and send it the golden request.

        The copy in S3 has the same digest, and the container verifies it again before loading.
        """
        if (actual := folder_digest(release.artifact)) != release.digest:
            raise Corrupt(f"artifact {release.artifact} has the digest {actual}, expected {release.digest}")
        return self._probe(release, self.trusted_keys)

    def switch(self, release: Release) -> LiveVersion:
        """Upload the artifact to S3 unless it is stored, create model and configuration, and update the endpoint.

        Raises:
            Rejected: the version did not become healthy, or an alarm rolled it back; the previous version serves.
            Unavailable: the update takes longer than `update_timeout_seconds`, or there is no capacity; a retry
                attaches to the update.
        """
        with port_errors(f"releasing version {release.version} of {release.endpoint}"):
            stored = self._release_store.save(release)
            config = self._ensure_endpoint_config(stored)
            live = self._update_endpoint(stored, config)
            self._release_store.mark_deployed(stored, config)
            return live

    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Roll back to the endpoint configuration of an earlier release, all at once and without alarms."""
        with port_errors(f"rolling {endpoint} back to version {version}"):
            stored = self._release_store.deployed_release(endpoint, version)
            config = stored.endpoint_config
            if not self._exists("endpoint_config", config):
                config = self._ensure_endpoint_config(stored)
            return self._update_endpoint(stored, config, with_alarms=False)

    def undeploy(self, endpoint: str) -> None:
        """Delete the endpoint and its alarms; models and configurations remain for `rollback`."""
        with port_errors(f"undeploying {endpoint}"):
            self._rollout(endpoint).delete()
            if alarms := [alarm["AlarmName"] for alarm in alarm_requests(endpoint, self)]:
                self._client("cloudwatch").delete_alarms(AlarmNames=alarms)

    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return the version that SageMaker serves under that name.

        Raises:
            Rejected: the SageMaker endpoint of that name does not belong to this endpoint.
        """
        with port_errors(f"describing endpoint {endpoint}"):
            current = self._rollout(endpoint).describe()
            if current is None or current["EndpointStatus"] in ("Creating", "Failed", "Deleting", "OutOfService"):
                return None
            version, digest = self._release_served_by(endpoint, current["EndpointConfigName"])
            url = f"sagemaker://{current['EndpointName']}"
            return LiveVersion(endpoint, version, digest, current["LastModifiedTime"], url)

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Send one request to the live model."""
        from botocore.exceptions import ClientError

        name = requests.endpoint_name(endpoint)
        with port_errors(f"invoking endpoint {endpoint}"):
            try:
                response = self._client("sagemaker-runtime").invoke_endpoint(
                    EndpointName=name, Body=body, ContentType=content_type
                )
            except ClientError as error:
                if error_code(error) == "ModelError":
                    return self._error_response(endpoint, error.response)
                if error_code(error) == "ValidationError":
                    raise NotFound(f"nothing is deployed under the name {endpoint!r}: {error}") from error
                raise
            attributes = requests.parse_custom_attributes(response.get("CustomAttributes", ""))
            version, digest = attributes.get("version", ""), attributes.get("digest", "")
            return InferenceResponse(200, response["Body"].read(), response.get("ContentType", ""), version, digest)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return these endpoints' releases in S3; the live one has a keep reason."""
        with port_errors("listing releases"):
            artifacts: list[Collectable] = []
            for name in names:
                live = self._live_version_name(name)
                artifacts += self._s3_artifacts.collectables(f"{name}/", {f"{name}/{live}": "it is live"})
            return tuple(artifacts)

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a release in S3; see `ArtifactOwner.size_bytes`."""
        with port_errors(f"measuring {key}"):
            return self._s3_artifacts.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete a release: its files first, then its SageMaker model and configurations, which cost nothing.

        Raises:
            Rejected: the release is live, or the key does not name a release.
        """
        with port_errors(f"deleting {key}"):
            self._s3_artifacts.prefix_of(key)  # raises Rejected for a wrong key
            endpoint, _, version = key.partition(":")[2].partition("/")
            if self._live_version_name(endpoint) == version:
                raise Rejected(f"{key} is live; it was not deleted")
            self._s3_artifacts.delete_collectables(key, COMPLETION_MARKERS)
            pages = (
                self._client("sagemaker")
                .get_paginator("list_endpoint_configs")
                .paginate(NameContains=requests.release_name_prefix(endpoint, version))
            )
            for config in [str(each["EndpointConfigName"]) for page in pages for each in page["EndpointConfigs"]]:
                model, variables = self._model_of(config)
                if (variables.get("RATCHET_ENDPOINT"), variables.get("RATCHET_MODEL_VERSION")) == (endpoint, version):
                    self._client("sagemaker").delete_endpoint_config(EndpointConfigName=config)
                    self._client("sagemaker").delete_model(ModelName=model)

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield the data capture files, oldest first; SageMaker writes them one or two minutes after the requests."""
        with port_errors(f"reading captured requests of {endpoint}"):
            yield from self._capture_store.read_all(endpoint)

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Delete a data capture file."""
        with port_errors(f"deleting captured requests {segment} of {endpoint}"):
            self._capture_store.delete(endpoint, segment)

    def _live_version_name(self, endpoint: str) -> str:
        """Return the version that SageMaker serves, or starts to serve, under that name; "" for none."""
        current = self._rollout(endpoint).describe()
        return self._release_served_by(endpoint, current["EndpointConfigName"])[0] if current else ""

    def _error_response(self, endpoint: str, response: Any) -> InferenceResponse:
        live = self.live_version(endpoint)
        body = str(response.get("OriginalMessage", "")).encode()
        status, version = int(response.get("OriginalStatusCode", 500)), live.version if live else ""
        return InferenceResponse(status, body, "application/json", version, digest="")

    def _ensure_endpoint_config(self, stored: StoredRelease) -> str:
        """Create model and configuration unless they exist, and return the configuration's name."""
        model = requests.model_request(stored, self)
        config = requests.config_request(stored, self)
        self._create_if_missing("model", model["ModelName"], model)
        self._create_if_missing("endpoint_config", config["EndpointConfigName"], config)
        return str(config["EndpointConfigName"])

    def _create_if_missing(self, kind: str, name: str, request: dict[str, Any]) -> None:
        from botocore.exceptions import ClientError

        if self._exists(kind, name):
            return
        try:
            getattr(self._client("sagemaker"), f"create_{kind}")(**request)
        except ClientError:
            if not self._exists(kind, name):  # otherwise another process was first
                raise

    def _exists(self, kind: str, name: str) -> bool:
        member = {"model": "ModelName", "endpoint_config": "EndpointConfigName"}[kind]
        return response_or_none(getattr(self._client("sagemaker"), f"describe_{kind}"), **{member: name}) is not None

    def _update_endpoint(self, stored: StoredRelease, config: str, *, with_alarms: bool = True) -> LiveVersion:
        rollout = self._rollout(stored.endpoint)
        current = rollout.describe()
        if current is not None:  # raises Rejected if the endpoint belongs to another program
            self._release_served_by(stored.endpoint, current["EndpointConfigName"])
        deployment = None
        if with_alarms and self.bake_seconds:
            for alarm in alarm_requests(stored.endpoint, self):
                self._client("cloudwatch").put_metric_alarm(**alarm)
            deployment = deployment_config(stored.endpoint, self)
        updated = rollout.update_to(config, deployment)
        url = f"sagemaker://{updated['EndpointName']}"
        return LiveVersion(stored.endpoint, stored.version, stored.digest, updated["LastModifiedTime"], url)

    def _release_served_by(self, endpoint: str, config: str) -> tuple[str, str]:
        """Return version and digest of the release that a configuration serves."""
        _, variables = self._model_of(config)
        if variables.get("RATCHET_ENDPOINT") != endpoint:
            owner = variables.get("RATCHET_ENDPOINT", "another program")
            name = requests.endpoint_name(endpoint)
            raise Rejected(f"the SageMaker endpoint {name} belongs to {owner}; rename yours")
        return variables["RATCHET_MODEL_VERSION"], variables["RATCHET_MODEL_DIGEST"]

    def _model_of(self, config: str) -> tuple[str, Mapping[str, str]]:
        """Return the name of the model that a configuration serves, and its container's variables."""
        sagemaker = self._client("sagemaker")
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        name = str(variants[0]["ModelName"])
        return name, sagemaker.describe_model(ModelName=name).get("PrimaryContainer", {}).get("Environment", {})

    def _rollout(self, endpoint: str) -> EndpointRollout:
        return EndpointRollout(self._client("sagemaker"), requests.endpoint_name(endpoint), self)

    @property
    def _s3_artifacts(self) -> S3Artifacts:
        return S3Artifacts(self._s3_folders, self.prefix, "release", depth=2)

    @property
    def _s3_folders(self) -> S3Folders:
        return S3Folders(self._client("s3"), self.bucket)

    @property
    def _release_store(self) -> S3ReleaseStore:
        return S3ReleaseStore(self._s3_folders, self.prefix)

    @property
    def _capture_store(self) -> CaptureStore:
        return CaptureStore(self._s3_folders, self.capture_prefix, self._release_store)
