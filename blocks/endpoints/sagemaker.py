"""Models on SageMaker: proven in a server of their own, served straight from their files in S3.

An endpoint has one variant, whose name never changes. A release is a model and an endpoint configuration, named by
all that makes them; they stay, so that `restore` is one update back. SageMaker is asked what serves, nobody else.
"""

import sys
import time
from pathlib import Path
from typing import Any

from pydantic import Field

from blocks.common.aws.clients import error_code, is_missing, port_errors, region_name
from blocks.common.compute import EndpointCompute
from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints import sagemaker_requests as requests
from blocks.endpoints.base import InferenceResponse, LiveVersion, ProbeResult, Release
from blocks.endpoints.golden import difference
from blocks.endpoints.sagemaker_release_store import StoredRelease
from blocks.endpoints.sagemaker_rollout import EndpointRollout
from blocks.endpoints.sagemaker_storage import SageMakerEndpointStorage
from blocks.endpoints.scoring_process import probe_server, scoring_server
from runtime.digests import folder_digest

_SERVE_PROGRAM = Path(__file__).resolve().parents[2] / "runtime" / "serve.py"


class SageMakerEndpoint(SageMakerEndpointStorage):
    """Serves from SageMaker endpoints; keeps a copy of each release in a bucket."""

    _block_type_name = "Ratchet endpoint (SageMaker)"
    _block_type_slug = "ratchet-endpoint-sagemaker"

    role_arn: str = Field(description="ARN of the role that containers run as.")
    image: str = Field(description="URI of the container image in ECR, best by digest.")
    instance_type: str = Field(default="ml.m6i.large", description="Instance type of the endpoints.")
    instance_count: int = Field(default=1, gt=0, description="How many instances a first release starts with.")
    serverless_memory_mb: int | None = Field(
        default=None, description="Memory of a serverless endpoint; none: instances."
    )
    serverless_concurrency: int = Field(
        default=5, gt=0, description="How many requests a serverless endpoint takes at once."
    )
    startup_seconds: int = Field(
        default=300, ge=60, le=3600, description="How long a container may take to be healthy."
    )
    canary_percent: int = Field(
        default=0, ge=0, le=50, description="Share of the traffic that tries an update; 0: all."
    )
    bake_seconds: int = Field(
        default=0, ge=0, le=3600, description="How long alarms watch an update before it is kept."
    )
    max_error_rate: float = Field(
        default=0.0, ge=0, lt=1, description="Above this share of 5xx answers it is taken back."
    )
    max_latency_ms: float | None = Field(default=None, gt=0, description="Above this mean latency it is taken back.")
    alarms: list[str] = Field(default=[], max_length=8, description="Further CloudWatch alarms that take it back.")
    max_instances: int = Field(default=1, gt=0, description="How many instances your autoscaling may make of them.")
    trusted_keys: list[str] = Field(default=[], description="Public keys whose models are loaded.")
    tags: dict[str, str] = Field(default={}, description="Tags of every endpoint, such as its environment.")
    update_timeout_seconds: float = Field(
        default=3600.0, gt=0, description="How long an update may take, its watch included."
    )
    poll_seconds: float = Field(default=5.0, gt=0, description="Seconds between two looks at an update.")
    load_timeout_seconds: float = Field(
        default=60.0, gt=0, description="How long preflight may take to load and answer."
    )
    serve_command: list[str] = Field(
        default_factory=lambda: [sys.executable, str(_SERVE_PROGRAM)],
        description="The scoring server that preflight starts: a program and its arguments.",
    )

    def compute(self, endpoint: str) -> EndpointCompute:
        """Return the instances that a release starts with and scaling may add; serverless has no price by the hour."""
        kind = f"serverless-{self.serverless_memory_mb}MB" if self.serverless_memory_mb else self.instance_type
        return EndpointCompute(kind, region_name(self.region), max(self.instance_count, self.max_instances))

    def preflight(self, release: Release) -> ProbeResult:
        """Load the artifact in the container's server on this machine, and put the golden request to it.

        The copy in S3 is of the same digest, and the container checks it again before it loads.
        """
        deadline, command = time.monotonic() + self.load_timeout_seconds, self.serve_command
        if (found := folder_digest(release.artifact)) != release.digest:
            raise Corrupt(f"artifact {release.artifact} has the digest {found}, expected {release.digest}")
        try:
            keys, digest = self.trusted_keys, release.digest
            with scoring_server(command, release.artifact, release.version, deadline, keys, digest) as server:
                return probe_server(server, release, max(deadline - time.monotonic(), 0.1))
        except Rejected as cause:
            raise Rejected(f"version {release.version} of {release.endpoint} is refused: {cause}") from cause

    def switch(self, release: Release) -> LiveVersion:
        """Copy the artifact to S3 where it is not kept yet, make model and configuration, and update the endpoint.

        Raises:
            Rejected: it did not become healthy, or an alarm took it back; the version before it serves on.
            Unavailable: it takes longer than `wait_seconds`, or there is no capacity: who tries again attaches.
        """
        with port_errors(f"releasing version {release.version} of {release.endpoint}"):
            kept = self._release_store.save(release)
            config = self._ensure_endpoint_config(kept)
            serving = self._update_endpoint(kept, config)
            self._release_store.mark_deployed(kept, config)
            return serving

    def rollback(self, endpoint: str, version: str) -> LiveVersion:
        """Go back to the configuration by which an earlier release served, all at once and unwatched."""
        with port_errors(f"restoring version {version} of {endpoint}"):
            kept = self._release_store.deployed_release(endpoint, version)
            config = (
                kept.endpoint_config
                if self._exists("endpoint_config", kept.endpoint_config)
                else self._ensure_endpoint_config(kept)
            )
            return self._update_endpoint(kept, config, with_alarms=False)

    def undeploy(self, endpoint: str) -> None:
        """Delete the endpoint and its alarms; models and configurations stay for `restore`."""
        with port_errors(f"withdrawing {endpoint}"):
            self._rollout(endpoint).delete()
            guard = [alarm["AlarmName"] for alarm in requests.alarm_requests(endpoint, self._rollout_policy)]
            if guard:
                self._client("cloudwatch").delete_alarms(AlarmNames=guard)

    def verify(self, release: Release) -> ProbeResult:
        """Compare what SageMaker says that it serves, and what the live model answers, with the release."""
        live = self.live_version(release.endpoint)
        found = (live.version, live.digest) if live else ("nothing", "")
        expected = f"expected version {release.version} with the digest {release.digest}"
        if found != (release.version, release.digest):
            raise Rejected(f"{release.endpoint} serves version {found[0]} {found[1]}; {expected}")
        begin = time.monotonic()
        answer = self.invoke(release.endpoint, release.golden_example.request.encode())
        seconds = time.monotonic() - begin
        problem = difference(release.golden_example, answer.status, answer.body)
        if not problem and (answer.version, answer.headers.get("digest")) != found:
            problem = f"version {answer.version} {answer.headers.get('digest')} answered; {expected}"
        if problem:
            raise Rejected(f"{release.endpoint}, version {answer.version}: {problem}")
        return ProbeResult(release.version, release.digest, 0.0, seconds * 1000)

    def live_version(self, endpoint: str) -> LiveVersion | None:
        """Return what SageMaker serves under that name.

        Raises:
            Rejected: the name is taken by an endpoint that is not of this project, or of another name.
        """
        with port_errors(f"looking at endpoint {endpoint}"):
            described = self._rollout(endpoint).describe()
            if described is None or described["EndpointStatus"] in ("Creating", "Failed", "Deleting", "OutOfService"):
                return None
            version, digest = self._release_served_by(endpoint, described["EndpointConfigName"])
            url = f"sagemaker://{described['EndpointName']}"
            return LiveVersion(endpoint, version, digest, described["LastModifiedTime"], url)

    def invoke(self, endpoint: str, body: bytes, content_type: str = "application/json") -> InferenceResponse:
        """Send one request to the live model. `headers` are what the container said of itself."""
        from botocore.exceptions import ClientError

        name = requests.endpoint_name(endpoint)
        with port_errors(f"asking endpoint {endpoint}"):
            try:
                answer = self._client("sagemaker-runtime").invoke_endpoint(
                    EndpointName=name, Body=body, ContentType=content_type
                )
            except ClientError as error:
                if error_code(error) == "ModelError":
                    return self._error_response(endpoint, error.response)
                if error_code(error) == "ValidationError":
                    raise NotFound(f"nothing serves under the name {endpoint!r}: {error}") from error
                raise
            said = requests.parse_custom_attributes(answer.get("CustomAttributes", ""))
            kind = answer.get("ContentType", "")
            return InferenceResponse(200, answer["Body"].read(), kind, said.get("version", ""), said)

    def _live_version_name(self, endpoint: str) -> str:
        described = self._rollout(endpoint).describe()
        return self._release_served_by(endpoint, described["EndpointConfigName"])[0] if described else ""

    def _error_response(self, endpoint: str, response: Any) -> InferenceResponse:
        live = self.live_version(endpoint)
        body = str(response.get("OriginalMessage", "")).encode()
        status = int(response.get("OriginalStatusCode", 500))
        return InferenceResponse(status, body, "application/json", live.version if live else "", {})

    def _ensure_endpoint_config(self, kept: StoredRelease) -> str:
        """Make model and configuration unless they are there, and return the configuration's name."""
        model, config = (
            requests.model_request(kept, self._serving_config),
            requests.config_request(kept, self._serving_config),
        )
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
            if not self._exists(kind, name):  # else another process was first
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

    def _update_endpoint(self, kept: StoredRelease, config: str, *, with_alarms: bool = True) -> LiveVersion:
        rollout = self._rollout(kept.endpoint)
        described = rollout.describe()
        if described is not None:
            self._release_served_by(kept.endpoint, described["EndpointConfigName"])  # it is ours to change
        deployment = None
        if with_alarms and self.bake_seconds:
            for alarm in requests.alarm_requests(kept.endpoint, self._rollout_policy):
                self._client("cloudwatch").put_metric_alarm(**alarm)
            deployment = requests.deployment_config(kept.endpoint, self._rollout_policy)
        described = rollout.update_to(config, deployment)
        url = f"sagemaker://{described['EndpointName']}"
        return LiveVersion(kept.endpoint, kept.version, kept.digest, described["LastModifiedTime"], url)

    def _release_served_by(self, endpoint: str, config: str) -> tuple[str, str]:
        """Return version and digest of the release that a configuration serves."""
        sagemaker = self._client("sagemaker")
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        model = sagemaker.describe_model(ModelName=variants[0]["ModelName"])
        said = model.get("PrimaryContainer", {}).get("Environment", {})
        if said.get("RATCHET_ENDPOINT") != endpoint:
            whose = said.get("RATCHET_ENDPOINT", "somebody else")
            raise Rejected(
                f"the SageMaker endpoint {requests.endpoint_name(endpoint)} belongs to {whose}; rename yours"
            )
        return said["RATCHET_MODEL_VERSION"], said["RATCHET_MODEL_DIGEST"]

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
