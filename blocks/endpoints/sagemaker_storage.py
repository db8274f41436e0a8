"""What of the SageMaker endpoint lies in S3: releases that `sweep` may remove, and requests that were captured."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, PrivateAttr

from blocks.common.aws.clients import aws_client, port_errors
from blocks.common.aws.s3_collectable import S3Artifacts
from blocks.common.aws.s3_folders import S3Folders
from blocks.common.collectable import Collectable
from blocks.endpoints.base import Endpoint, LogSegment
from blocks.endpoints.sagemaker_capture import CapturedRelease, CaptureStore, input_columns
from blocks.endpoints.sagemaker_collectable import ReleaseArtifacts
from blocks.endpoints.sagemaker_release_store import S3ReleaseStore


class SageMakerEndpointStorage(Endpoint):
    """The calls that read and remove; `SageMakerEndpoint` makes what they find."""

    bucket: str = Field(description="Bucket for copies of releases; it exists.")
    prefix: str = Field(default="releases", description="Where in the bucket they lie.")
    capture_prefix: str = Field(default="captured", description="Where in the bucket captured requests lie.")
    capture_percent: int = Field(
        default=100, ge=0, le=100, description="Share of the requests that is captured for the inference log; 0: none."
    )
    region: str | None = Field(default=None, description="AWS region; boto3's own choice when none.")
    endpoint_url: str | None = Field(default=None, description="Another address than AWS: the local SageMaker's.")

    _clients: dict[str, Any] = PrivateAttr(default_factory=dict)

    def collectables(self, names: Sequence[str]) -> tuple[Collectable, ...]:
        """Return these endpoints' releases in S3, the live one held; see `ArtifactOwner.kept`."""
        with port_errors("listing releases"):
            return self._release_artifacts.collectables(names)

    def size_bytes(self, key: str) -> int:
        """Return the bytes of a release in S3; see `ArtifactOwner.size`."""
        with port_errors(f"measuring {key}"):
            return self._s3_artifacts.size_bytes(key)

    def delete_collectables(self, key: str) -> None:
        """Remove a release from S3, and SageMaker's names for it; see `ArtifactOwner.discard`."""
        with port_errors(f"removing {key}"):
            self._release_artifacts.delete_collectables(key)

    def log_segments(self, endpoint: str) -> Iterator[LogSegment]:
        """Yield the files of data capture, oldest first; SageMaker writes them a minute or two after the requests."""
        with port_errors(f"reading what {endpoint} was asked"):
            yield from self._capture_store.read_all(endpoint)

    def delete_log_segment(self, endpoint: str, segment: str) -> None:
        """Remove a file of data capture."""
        with port_errors(f"removing {segment} of what {endpoint} was asked"):
            self._capture_store.delete(endpoint, segment)

    @abstractmethod
    def _live_version_name(self, endpoint: str) -> str:
        """Return the version that SageMaker serves, or brings up, under that name; "" for none."""

    @property
    def _s3_artifacts(self) -> S3Artifacts:
        return S3Artifacts(self._client("s3"), self.bucket, self.prefix, "release", depth=2)

    @property
    def _release_artifacts(self) -> ReleaseArtifacts:
        return ReleaseArtifacts(self._s3_artifacts, self._client("sagemaker"), self._live_version_name)

    @property
    def _capture_store(self) -> CaptureStore:
        folders, known = S3Folders(self._client("s3"), self.bucket), dict[str, CapturedRelease]()

        def asked(endpoint: str, version: str) -> CapturedRelease:
            """Return what the release was; nothing where its copy is swept: all of its requests are traffic then."""
            if version not in known:
                place = f"{self.prefix}/{endpoint}/{version}"
                record = folders.get_json(f"{place}/release.json") or {}
                digest, golden = record.get("digest", ""), record.get("golden", {}).get("request", "")
                known[version] = CapturedRelease(
                    golden, input_columns(folders.get_bytes(f"{place}/{digest}/model/MLmodel"))
                )
            return known[version]

        return CaptureStore(folders, self._s3_artifacts, self.capture_prefix, asked)

    @property
    def _release_store(self) -> S3ReleaseStore:
        s3 = self._client("s3")
        return S3ReleaseStore(S3Folders(s3, self.bucket), s3, self.bucket, self.prefix)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = aws_client(service, self.region, self.endpoint_url)
        return self._clients[service]
