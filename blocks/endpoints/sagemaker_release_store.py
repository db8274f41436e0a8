"""The SageMaker endpoint's own copies of releases in S3: whole or absent, checked against their digest.

`<prefix>/<endpoint>/<version>/<digest>/` is what SageMaker copies into the container: `model/`, and the signature
`model.sig` beside it, which the container verifies.
`<version>/release.json` says which release it is, once they are whole, and `<version>/served.json` that it served.
"""

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blocks.common.aws.s3_folders import S3Folders
from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, Release
from blocks.endpoints.release_store import check_names, log_policy_from_json
from runtime.digests import file_digest, listing_digest

_UPLOAD_THREADS = 8


@dataclass(frozen=True)
class StoredRelease:
    """A release and the address of its files in S3. `endpoint_config` is the endpoint configuration it served by, if it did."""

    endpoint: str
    version: str
    digest: str
    golden: GoldenExample
    url: str
    endpoint_config: str = ""
    log_policy: InferenceLogPolicy | None = None


class S3ReleaseStore:
    """Releases below a prefix. Errors are botocore's, but for those of the releases themselves."""

    def __init__(self, folders: S3Folders, client: Any, bucket: str, prefix: str) -> None:
        self._folders, self._client, self._bucket, self._prefix = folders, client, bucket, prefix

    def save(self, release: Release) -> StoredRelease:
        """Copy the release's files, unless they are here already.

        Raises:
            Corrupt: the artifact is not of the release's digest; what was copied of it is never used.
            Rejected: the names are not fit for keys, or the version is here with another digest.
        """
        place = self._prefix_of(release.endpoint, release.version)
        known = self._folders.get_json(f"{place}/release.json")
        if known and known["digest"] != release.digest:
            problem = f"version {release.version} of {release.endpoint} is kept with the digest {known['digest']}"
            raise Rejected(f"{problem}, not {release.digest}; a version never changes: register a new one")
        folder = f"{place}/{release.digest}/model/"
        rules = asdict(release.log_policy) if release.log_policy else None
        files = sorted(self._folders.list_keys(folder))
        if known is None or files != sorted(known["files"]):
            self._copy(release, folder)
            files, known = sorted(self._folders.list_keys(folder)), None
        if (
            known is None or log_policy_from_json(known.get("log")) != release.log_policy
        ):  # the rules are today's, the model is as it was
            record = {"digest": release.digest, "golden": asdict(release.golden_example), "files": files, "log": rules}
            self._folders.put_json(f"{place}/release.json", record)
        self._put_signature(release, f"{place}/{release.digest}/model.sig")
        address = self._folders.url(f"{place}/{release.digest}/")
        return StoredRelease(
            release.endpoint,
            release.version,
            release.digest,
            release.golden_example,
            address,
            log_policy=release.log_policy,
        )

    def mark_deployed(self, kept: StoredRelease, config: str) -> None:
        """Note that the release has served, by which endpoint configuration: `served` returns it from now on."""
        self._folders.put_json(f"{self._prefix_of(kept.endpoint, kept.version)}/served.json", {"config": config})

    def deployed_release(self, endpoint: str, version: str) -> StoredRelease:
        """Return a release that has served. Raises NotFound, and lists those that have."""
        place = self._prefix_of(endpoint, version)
        known = self._folders.get_json(f"{place}/release.json")
        served = self._folders.get_json(f"{place}/served.json")
        if known is None or served is None:
            names = self._folders.list_keys(f"{self._prefix}/{endpoint}/")
            kept = sorted(name.split("/")[0] for name in names if name.endswith("/served.json"))
            listed = ", ".join(kept) if kept else "none"
            raise NotFound(f"endpoint {endpoint} has kept no version {version} that served; it has kept: {listed}")
        address = self._folders.url(f"{place}/{known['digest']}/")
        golden = GoldenExample(**known["golden"])
        config, rules = str(served["config"]), log_policy_from_json(known.get("log"))
        return StoredRelease(endpoint, version, known["digest"], golden, address, config, rules)

    def _prefix_of(self, endpoint: str, version: str) -> str:
        check_names(endpoint, version)
        return f"{self._prefix}/{endpoint}/{version}"

    def _copy(self, release: Release, folder: str) -> None:
        if not release.artifact.is_dir():
            raise Corrupt(f"the artifact {release.artifact} is no folder; fetch it again")
        files = sorted(path for path in release.artifact.rglob("*") if path.is_file())
        with ThreadPoolExecutor(_UPLOAD_THREADS) as pool:
            digests = dict(pool.map(lambda path: self._put(release.artifact, path, folder), files))
        found = listing_digest(digests)
        if found != release.digest:
            problem = f"artifact {release.artifact} has the digest {found}, expected {release.digest}"
            raise Corrupt(f"{problem}; it was changed after it was evaluated: fetch it again")

    def _put_signature(self, release: Release, key: str) -> None:
        """Put the artifact's signature, where it has one, beside the files: whoever loads them verifies it."""
        signature = release.artifact.with_name(f"{release.artifact.name}.sig")
        if signature.exists():
            self._client.put_object(Bucket=self._bucket, Key=key, Body=signature.read_bytes())

    def _put(self, root: Path, path: Path, folder: str) -> tuple[str, str]:
        """Put one file, and return its name and SHA-256: S3 refuses other bytes, should it change meanwhile."""
        name, digest = path.relative_to(root).as_posix(), file_digest(path)
        checksum = base64.b64encode(bytes.fromhex(digest)).decode()
        with path.open("rb") as stream:
            self._client.put_object(Bucket=self._bucket, Key=folder + name, Body=stream, ChecksumSHA256=checksum)
        return name, digest
