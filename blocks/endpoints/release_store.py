"""Local copies of releases for rollback: written atomically and verified against their digest."""

import re
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, Release
from runtime.digests import folder_digest
from runtime.files import write_text_atomically
from runtime.signatures import signature_file

_NAME_PATTERN = re.compile(r"(?!.{64})[A-Za-z0-9](-{0,2}[A-Za-z0-9_])*")  # two hyphens: a model in a namespace
_VERSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class ReleaseRecord:
    """The content of `release.json`, beside the copy's files."""

    digest: str
    golden_example: GoldenExample
    log_policy: InferenceLogPolicy | None = None


_RECORD_ADAPTER = TypeAdapter(ReleaseRecord)


class ReleaseStore:
    """Folders `<root>/<endpoint>/<version>/` with `model/`, `model.sig` and `release.json`.

    The empty file `deployed` in the folder says that the release was live once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, release: Release) -> Release:
        """Copy the release's artifact unless it is stored already, and return the release with the copy.

        The digest of the copy is verified, not of the original, since the copy is served later.

        Raises:
            Corrupt: the artifact does not have the release's digest.
            Rejected: a name is not valid for a folder, or the version is stored with another digest.
        """
        folder = self._folder_of(release.endpoint, release.version)
        stored = self._read_record(release.endpoint, folder)
        if stored:
            check_same_digest(release, stored.digest)
        if stored is None or folder_digest(stored.artifact) != release.digest:
            self._copy(release, folder)
        elif not (folder / "model.sig").exists():
            _copy_signature(release, folder)
        if stored and stored.log_policy != release.log_policy:  # the log policy may change, the model may not
            _write_record(release, folder)
        return replace(release, artifact=folder / "model")

    def mark_deployed(self, release: Release) -> None:
        """Record that the release was live, so that `deployed_release` returns it."""
        (self._folder_of(release.endpoint, release.version) / "deployed").touch()

    def deployed_release(self, endpoint: str, version: str) -> Release:
        """Return a release that was live. Raises NotFound with a list of such releases."""
        folder = self._folder_of(endpoint, version)
        stored = self._read_record(endpoint, folder)
        if stored is None or not (folder / "deployed").exists():
            deployed = sorted(path.parent.name for path in (self.root / endpoint).glob("*/deployed"))
            raise not_deployed_error(endpoint, version, deployed)
        return stored

    def delete_refused(self, release: Release) -> None:
        """Delete the copy of a refused release, unless it was live before."""
        folder = self._folder_of(release.endpoint, release.version)
        if not (folder / "deployed").exists():
            shutil.rmtree(folder, ignore_errors=True)

    def _folder_of(self, endpoint: str, version: str) -> Path:
        check_names(endpoint, version)
        return self.root / endpoint / version

    def _copy(self, release: Release, folder: Path) -> None:
        if not release.artifact.is_dir():
            raise Corrupt(f"the artifact {release.artifact} is not a folder; fetch it again")
        staged = folder.parent / f".incoming-{uuid.uuid4().hex}"
        try:
            shutil.copytree(release.artifact, staged / "model")
            _copy_signature(release, staged)
            if (digest := folder_digest(staged / "model")) != release.digest:
                raise changed_artifact_error(release, digest)
            _write_record(release, staged)
            _replace_folder(staged, folder)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _read_record(self, endpoint: str, folder: Path) -> Release | None:
        try:
            record = _RECORD_ADAPTER.validate_json((folder / "release.json").read_bytes())
        except (OSError, ValueError):
            return None
        golden, policy = record.golden_example, record.log_policy
        return Release(endpoint, folder.name, folder / "model", record.digest, golden, policy)


def _write_record(release: Release, folder: Path) -> None:
    record = ReleaseRecord(release.digest, release.golden_example, release.log_policy)
    write_text_atomically(folder / "release.json", _RECORD_ADAPTER.dump_json(record).decode())


def _copy_signature(release: Release, to: Path) -> None:
    """Copy the artifact's signature, if it has one: the program that loads the copy verifies it."""
    if (signature := signature_file(release.artifact)).exists():
        shutil.copyfile(signature, to / "model.sig")


def check_names(endpoint: str, version: str) -> None:
    """Raise Rejected if the endpoint's name or the version is not valid in a path."""
    for what, text, form in (("endpoint name", endpoint, _NAME_PATTERN), ("version", version, _VERSION_PATTERN)):
        if not form.fullmatch(text):
            raise Rejected(f"{what} {text!r} is not made of letters, digits, - and _ (at most 63)")


def check_same_digest(release: Release, stored: str) -> None:
    """Raise Rejected if the version is stored with another digest."""
    if stored != release.digest:
        problem = f"version {release.version} of {release.endpoint} is stored with the digest {stored}"
        raise Rejected(f"{problem}, not {release.digest}; a version never changes: register a new one")


def changed_artifact_error(release: Release, digest: str) -> Corrupt:
    """Return the error for an artifact whose digest is not the release's."""
    problem = f"artifact {release.artifact} has the digest {digest}, expected {release.digest}"
    return Corrupt(f"{problem}; it was changed after it was evaluated: fetch it again")


def not_deployed_error(endpoint: str, version: str, deployed: Sequence[str]) -> NotFound:
    """Return the error for a version that was never live, with the list of those that were."""
    listed = ", ".join(deployed) or "none"
    return NotFound(f"endpoint {endpoint} has no stored version {version} that was deployed; it has: {listed}")


def _replace_folder(staged: Path, target: Path) -> None:
    """Move the folder `staged` to `target`. A damaged copy there is deleted first; its deployed marker is kept."""
    if target.exists():
        if (target / "deployed").exists():
            (staged / "deployed").touch()
        damaged = target.parent / f".damaged-{uuid.uuid4().hex}"
        target.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        staged.rename(target)
    except OSError:
        if not (target / "release.json").exists():  # otherwise another process has just created the same copy
            raise
