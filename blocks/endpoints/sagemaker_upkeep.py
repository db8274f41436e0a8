"""What of the SageMaker endpoint lies in S3: releases that `sweep` may remove, and requests that were captured."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field, PrivateAttr

from blocks.common.aws.calls import client, port_errors
from blocks.common.aws.folders import Folders
from blocks.common.aws.kept import Prefixes
from blocks.common.collectable import Kept
from blocks.endpoints.base import Endpoint, Logged
from blocks.endpoints.sagemaker_capture import Asked, Captures, columns_of
from blocks.endpoints.sagemaker_kept import ReleaseKeeper
from blocks.endpoints.sagemaker_store import S3Releases


class SageMakerUpkeep(Endpoint):
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

    def kept(self, names: Sequence[str]) -> tuple[Kept, ...]:
        """Return these endpoints' releases in S3, the live one held; see `Keeper.kept`."""
        with port_errors("listing releases"):
            return self._keeper.kept(names)

    def size(self, key: str) -> int:
        """Return the bytes of a release in S3; see `Keeper.size`."""
        with port_errors(f"measuring {key}"):
            return self._prefixes.size(key)

    def discard(self, key: str) -> None:
        """Remove a release from S3, and SageMaker's names for it; see `Keeper.discard`."""
        with port_errors(f"removing {key}"):
            self._keeper.discard(key)

    def logged(self, endpoint: str) -> Iterator[Logged]:
        """Yield the files of data capture, oldest first; SageMaker writes them a minute or two after the requests."""
        with port_errors(f"reading what {endpoint} was asked"):
            yield from self._captures.all(endpoint)

    def forget_logged(self, endpoint: str, segment: str) -> None:
        """Remove a file of data capture."""
        with port_errors(f"removing {segment} of what {endpoint} was asked"):
            self._captures.forget(endpoint, segment)

    @abstractmethod
    def _live_version(self, endpoint: str) -> str:
        """Return the version that SageMaker serves, or brings up, under that name; "" for none."""

    @property
    def _prefixes(self) -> Prefixes:
        return Prefixes(self._client("s3"), self.bucket, self.prefix, "release", depth=2)

    @property
    def _keeper(self) -> ReleaseKeeper:
        return ReleaseKeeper(self._prefixes, self._client("sagemaker"), self._live_version)

    @property
    def _captures(self) -> Captures:
        folders, known = Folders(self._client("s3"), self.bucket), dict[str, Asked]()

        def asked(endpoint: str, version: str) -> Asked:
            """Return what the release was; nothing where its copy is swept: all of its requests are traffic then."""
            if version not in known:
                place = f"{self.prefix}/{endpoint}/{version}"
                record = folders.read(f"{place}/release.json") or {}
                digest, golden = record.get("digest", ""), record.get("golden", {}).get("request", "")
                known[version] = Asked(golden, columns_of(folders.get(f"{place}/{digest}/model/MLmodel")))
            return known[version]

        return Captures(folders, self._prefixes, self.capture_prefix, asked)

    @property
    def _releases(self) -> S3Releases:
        s3 = self._client("s3")
        return S3Releases(Folders(s3, self.bucket), s3, self.bucket, self.prefix)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = client(service, self.region, self.endpoint_url)
        return self._clients[service]
