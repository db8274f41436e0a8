"""Endpoints on SageMaker: preflight in a local scoring server, serving from model files in S3.

An endpoint has one variant with a fixed name. A release is a SageMaker model and an endpoint configuration, named by a
hash of their content; both are kept, so that a rollback is one update. SageMaker is the only source for the live
version.
"""

import sys
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from blocks.common.aws.clients import error_code, is_missing, port_errors, region_name
from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints import sagemaker_requests as requests
from blocks.endpoints.base import InferenceResponse, LiveVersion, ProbeResult, Release
from blocks.endpoints.golden import difference
from blocks.endpoints.sagemaker_release_store import StoredRelease
from blocks.endpoints.sagemaker_rollout import EndpointRollout
from blocks.endpoints.sagemaker_storage import SageMakerEndpointStorage
from blocks.endpoints.scoring_process import probe_server, scoring_server
from blocks.records.compute import EndpointCompute
from runtime.digests import folder_digest

_SERVE_PROGRAM = Path(__file__).resolve().parents[2] / "runtime" / "serve.py"


class SageMakerEndpoint(SageMakerEndpointStorage):
    """Serves from SageMaker endpoints; stores a copy of each release in a bucket."""

    _block_type_name = "Ratchet endpoint (SageMaker)"
    _block_type_slug = "ratchet-endpoint-sagemaker"

    role_arn: str = Field(description="ARN of the role that containers run as.")
    image: str = Field(description="URI of the container image in ECR, preferably by digest.")
    instance_type: str = Field(default="ml.m6i.large", description="Instance type of the endpoints.")
    instance_count: int = Field(default=1, gt=0, description="Number of instances of a first release.")
    serverless_memory_mb: int | None = Field(
        default=None, description="Memory of a serverless endpoint in MB; None: instances."
    )
    serverless_concurrency: int = Field(
        default=5, gt=0, description="Maximum number of concurrent requests of a serverless endpoint."
    )
    startup_seconds: int = Field(
        default=300, ge=60, le=3600, description="Seconds that a container may take until it is healthy."
    )
    canary_percent: int = Field(
        default=0, ge=0, le=50, description="Percentage of the traffic that goes to an update first; 0: all at once."
    )
    bake_seconds: int = Field(
        default=0, ge=0, le=3600, description="Seconds that alarms observe an update before it is final."
    )
    max_error_rate: float = Field(
        default=0.0, ge=0, lt=1, description="5xx error rate above which an update is rolled back."
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="Mean latency above which an update is rolled back."
    )
    alarms: list[str] = Field(default=[], max_length=8, description="Other CloudWatch alarms that roll back an update.")
    max_instances: int = Field(default=1, gt=0, description="Maximum number of instances under your autoscaling.")
    trusted_keys: list[str] = Field(
        default=[], description="Public keys; only models signed by one of them are loaded."
    )
    tags: dict[str, str] = Field(default={}, description="Tags of every endpoint, such as its environment.")
    update_timeout_seconds: float = Field(
        default=3600.0, gt=0, description="Timeout of an update, including the observation."
    )
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two polls of an update.")
    load_timeout_seconds: float = Field(
        default=60.0, gt=0, description="Timeout of preflight for loading and the response, in seconds."
    )
    serve_command: list[str] = Field(
        default_factory=lambda: [sys.executable, str(_SERVE_PROGRAM)],
        description="The scoring server that preflight starts: a program and its arguments.",
    )

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return the maximum number of instances under autoscaling; serverless endpoints have no price by the hour."""
        serverless = self.serverless_memory_mb
        instance_type = f"serverless-{serverless}MB" if serverless else self.instance_type
        return EndpointCompute(instance_type, region_name(self.region), max(self.instance_count, self.max_instances))

    def preflight(self, release: Release) -> ProbeResult:
        """Load the artifact in the container's server on this machine, and send it the golden request.

        The copy in S3 has the same digest, and the container verifies it again before loading.
        """
        deadline, command = time.monotonic() + self.load_timeout_seconds, self.serve_command
        if (actual := folder_digest(release.artifact)) != release.digest:
            raise Corrupt(f"artifact {release.artifact} has the digest {actual}, expected {release.digest}")
        try:
            keys, digest = self.trusted_keys, release.digest
            with scoring_server(command, release.artifact, release.version, deadline, keys, digest) as server:
                return probe_server(server, release, max(deadline - time.monotonic(), 0.1))
        except Rejected as cause:
            raise Rejected(f"version {release.version} of {release.endpoint} is refused: {cause}") from cause

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
            alarms = [alarm["AlarmName"] for alarm in requests.alarm_requests(endpoint, self._rollout_policy)]
            if alarms:
                self._client("cloudwatch").delete_alarms(AlarmNames=alarms)

    def verify(self, release: Release) -> ProbeResult:
        """Compare the live version, its digest and its predictions with the release."""
        live = self.live_version(release.endpoint)
        actual = (live.version, live.digest) if live else ("nothing", "")
        expected = f"expected version {release.version} with the digest {release.digest}"
        if actual != (release.version, release.digest):
            raise Rejected(f"{release.endpoint} serves version {actual[0]} {actual[1]}; {expected}")
        begin = time.monotonic()
        response = self.invoke(release.endpoint, release.golden_example.request.encode())
        seconds = time.monotonic() - begin
        problem = difference(release.golden_example, response.status, response.body)
        if not problem and (response.version, response.headers.get("digest")) != actual:
            problem = f"version {response.version} {response.headers.get('digest')} responded; {expected}"
        if problem:
            raise Rejected(f"{release.endpoint}, version {response.version}: {problem}")
        return ProbeResult(release.version, release.digest, 0.0, seconds * 1000)

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
        """Send one request to the live model. `headers` are the attributes that the container reports."""
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
            media_type, version = response.get("ContentType", ""), attributes.get("version", "")
            return InferenceResponse(200, response["Body"].read(), media_type, version, attributes)

    def _live_version_name(self, endpoint: str) -> str:
        current = self._rollout(endpoint).describe()
        return self._release_served_by(endpoint, current["EndpointConfigName"])[0] if current else ""

    def _error_response(self, endpoint: str, response: Any) -> InferenceResponse:
        live = self.live_version(endpoint)
        body = str(response.get("OriginalMessage", "")).encode()
        status = int(response.get("OriginalStatusCode", 500))
        return InferenceResponse(status, body, "application/json", live.version if live else "", {})

    def _ensure_endpoint_config(self, stored: StoredRelease) -> str:
        """Create model and configuration unless they exist, and return the configuration's name."""
        model = requests.model_request(stored, self._serving_config)
        config = requests.config_request(stored, self._serving_config)
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
        from botocore.exceptions import ClientError

        member = {"model": "ModelName", "endpoint_config": "EndpointConfigName"}[kind]
        try:
            getattr(self._client("sagemaker"), f"describe_{kind}")(**{member: name})
        except ClientError as error:
            if is_missing(error):
                return False
            raise
        return True

    def _update_endpoint(self, stored: StoredRelease, config: str, *, with_alarms: bool = True) -> LiveVersion:
        rollout = self._rollout(stored.endpoint)
        current = rollout.describe()
        if current is not None:  # raises Rejected if the endpoint belongs to another program
            self._release_served_by(stored.endpoint, current["EndpointConfigName"])
        deployment = None
        if with_alarms and self.bake_seconds:
            for alarm in requests.alarm_requests(stored.endpoint, self._rollout_policy):
                self._client("cloudwatch").put_metric_alarm(**alarm)
            deployment = requests.deployment_config(stored.endpoint, self._rollout_policy)
        updated = rollout.update_to(config, deployment)
        url = f"sagemaker://{updated['EndpointName']}"
        return LiveVersion(stored.endpoint, stored.version, stored.digest, updated["LastModifiedTime"], url)

    def _release_served_by(self, endpoint: str, config: str) -> tuple[str, str]:
        """Return version and digest of the release that a configuration serves."""
        sagemaker = self._client("sagemaker")
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        model = sagemaker.describe_model(ModelName=variants[0]["ModelName"])
        variables = model.get("PrimaryContainer", {}).get("Environment", {})
        if variables.get("RATCHET_ENDPOINT") != endpoint:
            owner = variables.get("RATCHET_ENDPOINT", "another program")
            name = requests.endpoint_name(endpoint)
            raise Rejected(f"the SageMaker endpoint {name} belongs to {owner}; rename yours")
        return variables["RATCHET_MODEL_VERSION"], variables["RATCHET_MODEL_DIGEST"]

    def _rollout(self, endpoint: str) -> EndpointRollout:
        name = requests.endpoint_name(endpoint)
        return EndpointRollout(
            self._client("sagemaker"), name, self.update_timeout_seconds, self.poll_seconds, self.tags
        )

    @property
    def _serving_config(self) -> requests.ServingConfig:
        return requests.ServingConfig(
            self.role_arn, self.image, self.instance_type, self.instance_count, self.serverless_memory_mb,
            self.serverless_concurrency, self.startup_seconds, tuple(self.trusted_keys), self.capture_percent,
            f"s3://{self.bucket}/{self.capture_prefix}",
        )  # fmt: skip

    @property
    def _rollout_policy(self) -> requests.RolloutPolicy:
        return requests.RolloutPolicy(
            self.canary_percent, self.bake_seconds, self.max_error_rate, self.max_latency_ms, tuple(self.alarms)
        )
