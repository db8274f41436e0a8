"""Copies of releases in S3 for SageMaker endpoints, verified against their digest.

SageMaker copies `<prefix>/<endpoint>/<version>/<digest>/` into the container: `model/`, and the signature `model.sig`,
which the container verifies. `<version>/release.json` describes the release, once its files are complete;
`<version>/deployed.json` says that it was live.
"""

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from blocks.common.aws.s3_folders import UPLOAD_THREADS, S3Folders
from blocks.common.errors import Corrupt
from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, Release
from blocks.endpoints.release_store import (
    ReleaseRecord,
    changed_artifact_error,
    check_names,
    check_same_digest,
    not_deployed_error,
)
from runtime.digests import file_digest, listing_digest
from runtime.signatures import signature_file


@dataclass(frozen=True)
class S3ReleaseRecord(ReleaseRecord):
    """The content of `release.json`; `files` are the names of the artifact's files."""

    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredRelease:
    """A release and the URL of its files in S3. `endpoint_config` is the configuration it was live with, or ""."""

    endpoint: str
    version: str
    digest: str
    golden: GoldenExample
    url: str
    endpoint_config: str = ""
    log_policy: InferenceLogPolicy | None = None


class S3ReleaseStore:
    """Releases below a prefix. Raises botocore's errors, and port errors about the releases themselves."""

    def __init__(self, folders: S3Folders, prefix: str) -> None:
        self._folders, self._prefix = folders, prefix

    def save(self, release: Release) -> StoredRelease:
        """Upload the release's files unless they are stored already.

        Raises:
            Corrupt: the artifact does not have the release's digest; the uploaded files are never used.
            Rejected: a name is not valid in a key, or the version is stored with another digest.
        """
        prefix = self._prefix_of(release.endpoint, release.version)
        if stored := self.record(release.endpoint, release.version):
            check_same_digest(release, stored.digest)
        folder = f"{prefix}/{release.digest}/model/"
        files = tuple(sorted(self._folders.list_keys(folder)))
        if stored is None or files != stored.files:
            self._copy(release, folder)
            files = tuple(sorted(self._folders.list_keys(folder)))
        record = S3ReleaseRecord(release.digest, release.golden_example, release.log_policy, files)
        if stored is None or (stored.files, stored.log_policy) != (files, release.log_policy):
            self._folders.put_json(f"{prefix}/release.json", asdict(record))
        if (signature := signature_file(release.artifact)).exists():  # the program that loads the files verifies it
            self._folders.put(f"{prefix}/{release.digest}/model.sig", signature.read_bytes())
        url = self._folders.url(f"{prefix}/{release.digest}/")
        return StoredRelease(release.endpoint, release.version, release.digest, release.golden_example, url,
                             log_policy=release.log_policy)  # fmt: skip

    def mark_deployed(self, stored: StoredRelease, config: str) -> None:
        """Record the endpoint configuration that the release is live with, so that `deployed_release` returns it."""
        key = f"{self._prefix_of(stored.endpoint, stored.version)}/deployed.json"
        self._folders.put_json(key, {"config": config})

    def deployed_release(self, endpoint: str, version: str) -> StoredRelease:
        """Return a release that was live. Raises NotFound with a list of such releases."""
        prefix = self._prefix_of(endpoint, version)
        stored = self.record(endpoint, version)
        deployed = self._folders.get_json(f"{prefix}/deployed.json")
        if stored is None or deployed is None:
            names = self._folders.list_keys(f"{self._prefix}/{endpoint}/")
            versions = sorted(name.split("/")[0] for name in names if name.endswith("/deployed.json"))
            raise not_deployed_error(endpoint, version, versions)
        url, config = self._folders.url(f"{prefix}/{stored.digest}/"), str(deployed["config"])
        return StoredRelease(endpoint, version, stored.digest, stored.golden_example, url, config, stored.log_policy)

    def record(self, endpoint: str, version: str) -> S3ReleaseRecord | None:
        """Return what is stored of a release, or None."""
        content = self._folders.get_bytes(f"{self._prefix}/{endpoint}/{version}/release.json")
        return None if content is None else TypeAdapter(S3ReleaseRecord).validate_json(content)

    def model_file(self, endpoint: str, version: str, digest: str, name: str) -> bytes | None:
        """Return a file of a stored artifact, or None."""
        return self._folders.get_bytes(f"{self._prefix}/{endpoint}/{version}/{digest}/model/{name}")

    def _prefix_of(self, endpoint: str, version: str) -> str:
        check_names(endpoint, version)
        return f"{self._prefix}/{endpoint}/{version}"

    def _copy(self, release: Release, folder: str) -> None:
        if not release.artifact.is_dir():
            raise Corrupt(f"the artifact {release.artifact} is not a folder; fetch it again")
        files = sorted(path for path in release.artifact.rglob("*") if path.is_file())
        with ThreadPoolExecutor(UPLOAD_THREADS) as pool:
            digests = dict(pool.map(lambda path: self._put(release.artifact, path, folder), files))
        digest = listing_digest(digests)
        if digest != release.digest:
            raise changed_artifact_error(release, digest)

    def _put(self, root: Path, path: Path, folder: str) -> tuple[str, str]:
        """Upload one file and return its name and SHA-256. S3 rejects other bytes if the file changes meanwhile."""
        name, digest = path.relative_to(root).as_posix(), file_digest(path)
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        with path.open("rb") as stream:
            self._folders.put(folder + name, stream, ChecksumSHA256=checksum)
        return name, digest
