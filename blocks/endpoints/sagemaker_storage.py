"""The S3 part of SageMaker endpoints: stored releases as collectable artifacts, and captured requests."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import Field, PrivateAttr

from blocks.common.aws.clients import aws_client, port_errors
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Rejected
from blocks.endpoints import sagemaker_requests as requests
from blocks.endpoints.base import Endpoint, LogSegment
from blocks.endpoints.sagemaker_capture import CapturedRelease, CaptureStore, input_columns
from blocks.endpoints.sagemaker_release_store import S3ReleaseStore
from blocks.records.collectable import Collectable

LIVE_REASON = "it is live"


COMPLETION_MARKERS = ("deployed.json", "release.json")
"""Files that mark a stored release as deployed once (a rollback is possible) and as complete."""


class ReleaseArtifacts:
    """Releases as collectable artifacts. `live` returns the version that an endpoint serves; "" for none."""

    def __init__(self, prefixes: S3Artifacts, sagemaker: Any, live: Callable[[str], str]) -> None:
        self._prefixes, self._sagemaker, self._live = prefixes, sagemaker, live

    def collectables(self, endpoints: Sequence[str]) -> tuple[Collectable, ...]:
        """Return the releases of these endpoints; the live one has a keep reason."""
        artifacts: list[Collectable] = []
        for endpoint in endpoints:
            reasons = {f"{endpoint}/{version}": LIVE_REASON} if (version := self._live(endpoint)) else {}
            artifacts += self._prefixes.collectables(f"{endpoint}/", reasons)
        return tuple(artifacts)

    def delete_collectables(self, key: str) -> None:
        """Delete a release: its files first, then its SageMaker model and configurations, which cost nothing.

        Raises:
            Rejected: the release is live, or the key does not name a release.
        """
        self._prefixes.prefix_of(key)  # raises Rejected for a wrong key
        endpoint, _, version = key.partition(":")[2].partition("/")
        if self._live(endpoint) == version:
            raise Rejected(f"{key} is live; it was not deleted")
        self._prefixes.delete_collectables(key, COMPLETION_MARKERS)
        for config in self._configs(endpoint, version):
            model = self._model_of(config)
            if self._is_of(model, endpoint, version):
                self._sagemaker.delete_endpoint_config(EndpointConfigName=config)
                self._sagemaker.delete_model(ModelName=model)

    def _configs(self, endpoint: str, version: str) -> list[str]:
        pages = self._sagemaker.get_paginator("list_endpoint_configs").paginate(
            NameContains=requests.release_name_prefix(endpoint, version)
        )
        return [str(each["EndpointConfigName"]) for page in pages for each in page["EndpointConfigs"]]

    def _model_of(self, config: str) -> str:
        description = self._sagemaker.describe_endpoint_config(EndpointConfigName=config)
        return str(description["ProductionVariants"][0]["ModelName"])

    def _is_of(self, model: str, endpoint: str, version: str) -> bool:
        container = self._sagemaker.describe_model(ModelName=model).get("PrimaryContainer", {})
        variables = container.get("Environment", {})
        return (variables.get("RATCHET_ENDPOINT"), variables.get("RATCHET_MODEL_VERSION")) == (endpoint, version)


class SageMakerEndpointStorage(Endpoint):
    """Reads and deletes what `SageMakerEndpoint` stores in S3."""

    bucket: str = Field(description="Existing bucket for copies of releases.")
    prefix: str = Field(default="releases", description="Key prefix of releases in the bucket.")
    capture_prefix: str = Field(default="data-capture", description="Key prefix of captured requests in the bucket.")
    capture_percent: int = Field(
        default=100,
        ge=0,
        le=100,
        description="Percentage of requests that are captured for the inference log; 0: none.",
    )
    region: str | None = Field(default=None, description="AWS region; None: boto3's default.")
    endpoint_url: str | None = Field(default=None, description="Endpoint URL of the local SageMaker; None: AWS.")

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return these endpoints' releases in S3; the live one has a keep reason."""
        with port_errors("listing releases"):
            return self._release_artifacts.collectables(names)

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a release in S3; see `ArtifactOwner.size_bytes`."""
        with port_errors(f"measuring {key}"):
            return self._s3_artifacts.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Delete a release from S3, and its SageMaker model and configurations."""
        with port_errors(f"deleting {key}"):
            self._release_artifacts.delete_collectables(key)

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield the data capture files, oldest first; SageMaker writes them one or two minutes after the requests."""
        with port_errors(f"reading captured requests of {endpoint}"):
            yield from self._capture_store.read_all(endpoint)

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Delete a data capture file."""
        with port_errors(f"deleting captured requests {segment} of {endpoint}"):
            self._capture_store.delete(endpoint, segment)

    @abstractmethod
    def _live_version_name(self, endpoint: str) -> str:
        """Return the version that SageMaker serves, or starts to serve, under that name; "" for none."""

    @property
    def _s3_artifacts(self) -> S3Artifacts:
        return S3Artifacts(self._client("s3"), self.bucket, self.prefix, "release", depth=2)

    @property
    def _release_artifacts(self) -> ReleaseArtifacts:
        return ReleaseArtifacts(self._s3_artifacts, self._client("sagemaker"), self._live_version_name)

    @property
    def _capture_store(self) -> CaptureStore:
        folders, cache = S3Folders(self._client("s3"), self.bucket), dict[str, CapturedRelease]()

        def release_of(endpoint: str, version: str) -> CapturedRelease:
            """Return the release; empty if its copy was deleted, so that all of its requests count as traffic."""
            if version not in cache:
                prefix = f"{self.prefix}/{endpoint}/{version}"
                record = folders.get_json(f"{prefix}/release.json") or {}
                digest, golden = record.get("digest", ""), record.get("golden_example", {}).get("request", "")
                cache[version] = CapturedRelease(
                    golden, input_columns(folders.get_bytes(f"{prefix}/{digest}/model/MLmodel"))
                )
            return cache[version]

        return CaptureStore(folders, self._s3_artifacts, self.capture_prefix, release_of)

    @property
    def _release_store(self) -> S3ReleaseStore:
        s3 = self._client("s3")
        return S3ReleaseStore(S3Folders(s3, self.bucket), s3, self.bucket, self.prefix)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = aws_client(service, self.region, self.endpoint_url)
        return self._clients[service]
