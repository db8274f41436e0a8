"""Copies of releases in S3 for SageMaker endpoints, verified against their digest.

SageMaker copies `<prefix>/<endpoint>/<version>/<digest>/` into the container: `model/`, and the signature `model.sig`,
which the container verifies. `<version>/release.json` describes the release, once its files are complete;
`<version>/deployed.json` says that it was live.
"""

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Corrupt, Rejected
from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, Release
from blocks.endpoints.release_store import check_names, log_policy_from_json, not_deployed_error
from runtime.digests import file_digest, listing_digest

_UPLOAD_THREADS = 8


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

    def __init__(self, folders: S3Folders, client: Any, bucket: str, prefix: str) -> None:
        self._folders, self._client, self._bucket, self._prefix = folders, client, bucket, prefix

    def save(self, release: Release) -> StoredRelease:
        """Upload the release's files unless they are stored already.

        Raises:
            Corrupt: the artifact does not have the release's digest; the uploaded files are never used.
            Rejected: a name is not valid in a key, or the version is stored with another digest.
        """
        prefix = self._prefix_of(release.endpoint, release.version)
        stored = self._folders.get_json(f"{prefix}/release.json")
        if stored and stored["digest"] != release.digest:
            problem = f"version {release.version} of {release.endpoint} is stored with the digest {stored['digest']}"
            raise Rejected(f"{problem}, not {release.digest}; a version never changes: register a new one")
        folder = f"{prefix}/{release.digest}/model/"
        policy = asdict(release.log_policy) if release.log_policy else None
        files = sorted(self._folders.list_keys(folder))
        if stored is None or files != sorted(stored["files"]):
            self._copy(release, folder)
            files, stored = sorted(self._folders.list_keys(folder)), None
        # the log policy may change, the model may not
        if stored is None or log_policy_from_json(stored.get("log_policy")) != release.log_policy:
            record = {
                "digest": release.digest,
                "golden_example": asdict(release.golden_example),
                "files": files,
                "log_policy": policy,
            }
            self._folders.put_json(f"{prefix}/release.json", record)
        self._put_signature(release, f"{prefix}/{release.digest}/model.sig")
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
        stored = self._folders.get_json(f"{prefix}/release.json")
        deployed = self._folders.get_json(f"{prefix}/deployed.json")
        if stored is None or deployed is None:
            names = self._folders.list_keys(f"{self._prefix}/{endpoint}/")
            versions = sorted(name.split("/")[0] for name in names if name.endswith("/deployed.json"))
            raise not_deployed_error(endpoint, version, versions)
        url = self._folders.url(f"{prefix}/{stored['digest']}/")
        golden = GoldenExample(**stored["golden_example"])
        config, policy = str(deployed["config"]), log_policy_from_json(stored.get("log_policy"))
        return StoredRelease(endpoint, version, stored["digest"], golden, url, config, policy)

    def _prefix_of(self, endpoint: str, version: str) -> str:
        check_names(endpoint, version)
        return f"{self._prefix}/{endpoint}/{version}"

    def _copy(self, release: Release, folder: str) -> None:
        if not release.artifact.is_dir():
            raise Corrupt(f"the artifact {release.artifact} is not a folder; fetch it again")
        files = sorted(path for path in release.artifact.rglob("*") if path.is_file())
        with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
            digests = dict(pool.map(lambda path: self._put(release.artifact, path, folder), files))
        digest = listing_digest(digests)
        if digest != release.digest:
            problem = f"artifact {release.artifact} has the digest {digest}, expected {release.digest}"
            raise Corrupt(f"{problem}; it was changed after it was evaluated: fetch it again")

    def _put_signature(self, release: Release, key: str) -> None:
        """Upload the artifact's signature, if it has one: the program that loads the files verifies it."""
        signature = release.artifact.with_name(f"{release.artifact.name}.sig")
        if signature.exists():
            self._client.put_object(Bucket=self._bucket, Key=key, Body=signature.read_bytes())

    def _put(self, root: Path, path: Path, folder: str) -> tuple[str, str]:
        """Upload one file and return its name and SHA-256. S3 rejects other bytes if the file changes meanwhile."""
        name, digest = path.relative_to(root).as_posix(), file_digest(path)
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        with path.open("rb") as stream:
            self._client.put_object(Bucket=self._bucket, Key=folder + name, Body=stream, ChecksumSHA256=checksum)
        return name, digest
