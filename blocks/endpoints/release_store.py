"""An adapter's own copies of releases: whole or absent, checked against their digest, kept for `restore`."""

import json
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from blocks.common.errors import Corrupt, NotFound, Rejected
from blocks.endpoints.base import GoldenExample, InferenceLogPolicy, Release
from runtime.digests import folder_digest
from runtime.files import write_text_atomically

_NAME_PATTERN = re.compile(r"(?!.{64})[A-Za-z0-9](-{0,2}[A-Za-z0-9_])*")  # two hyphens: a model in a namespace
_VERSION_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ReleaseStore:
    """Folders `<root>/<endpoint>/<version>/`: `model/`, `model.sig`, `release.json`; once it has served, `deployed_release`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def save(self, release: Release) -> Release:
        """Copy the release's artifact, unless it is here already, and return the release with its own copy.

        The copy is checked, not the original: what is served later is what was checked.

        Raises:
            Corrupt: the artifact's digest is not the release's.
            Rejected: the names are not fit for folders, or the version is here with another digest.
        """
        place = self._folder_of(release.endpoint, release.version)
        kept = self._read_record(release.endpoint, place)
        if kept and kept.digest != release.digest:
            problem = f"version {release.version} of {release.endpoint} is kept with the digest {kept.digest}"
            raise Rejected(f"{problem}, not {release.digest}; a version never changes: register a new one")
        if kept is None or folder_digest(kept.artifact) != release.digest:
            self._copy(release, place)
        elif not (place / "model.sig").exists():
            _copy_signature(release, place)
        if (
            kept and kept.log_policy != release.log_policy
        ):  # the rules of its log are the release's of today, the model is as it was
            write_text_atomically(place / "release.json", _to_json(release))
        return replace(release, artifact=place / "model")

    def mark_deployed(self, release: Release) -> None:
        """Note that the release has served: `served` returns it from now on."""
        (self._folder_of(release.endpoint, release.version) / "served").touch()

    def deployed_release(self, endpoint: str, version: str) -> Release:
        """Return a release that has served. Raises NotFound, and lists those that have."""
        place = self._folder_of(endpoint, version)
        kept = self._read_record(endpoint, place)
        if kept is None or not (place / "served").exists():
            known = sorted(path.parent.name for path in (self.root / endpoint).glob("*/served"))
            listed = ", ".join(known) if known else "none"
            raise NotFound(f"endpoint {endpoint} has kept no version {version} that served; it has kept: {listed}")
        return kept

    def delete_refused(self, release: Release) -> None:
        """Remove the copy of a release that was refused. One that has served stays."""
        place = self._folder_of(release.endpoint, release.version)
        if not (place / "served").exists():
            shutil.rmtree(place, ignore_errors=True)

    def _folder_of(self, endpoint: str, version: str) -> Path:
        check_names(endpoint, version)
        return self.root / endpoint / version

    def _copy(self, release: Release, place: Path) -> None:
        if not release.artifact.is_dir():
            raise Corrupt(f"the artifact {release.artifact} is no folder; fetch it again")
        beside = place.parent / f".incoming-{uuid.uuid4().hex}"
        try:
            shutil.copytree(release.artifact, beside / "model")
            _copy_signature(release, beside)
            if (found := folder_digest(beside / "model")) != release.digest:
                problem = f"artifact {release.artifact} has the digest {found}, expected {release.digest}"
                raise Corrupt(f"{problem}; it was changed after it was evaluated: fetch it again")
            write_text_atomically(beside / "release.json", _to_json(release))
            _replace_folder(beside, place)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _read_record(self, endpoint: str, place: Path) -> Release | None:
        try:
            record = json.loads((place / "release.json").read_text(encoding="utf-8"))
            golden = GoldenExample(**record["golden"])
            return Release(
                endpoint, place.name, place / "model", record["digest"], golden, log_policy_from_json(record.get("log"))
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _copy_signature(release: Release, to: Path) -> None:
    """Copy the artifact's signature, where it has one: whoever loads the copy verifies it."""
    signature = release.artifact.with_name(f"{release.artifact.name}.sig")
    if signature.exists():
        shutil.copyfile(signature, to / "model.sig")


def check_names(endpoint: str, version: str) -> None:
    """Refuse an endpoint name or a version that is not fit for a path. Raises Rejected."""
    for what, text, form in (("endpoint name", endpoint, _NAME_PATTERN), ("version", version, _VERSION_PATTERN)):
        if not form.fullmatch(text):
            raise Rejected(f"{what} {text!r} is not made of letters, digits, - and _ (at most 63)")


def _replace_folder(beside: Path, place: Path) -> None:
    """Put `beside` at `place`; a damaged copy that is there is moved away first, its mark of service kept."""
    if place.exists():
        if (place / "served").exists():
            (beside / "served").touch()
        damaged = place.parent / f".damaged-{uuid.uuid4().hex}"
        place.rename(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
    try:
        beside.rename(place)
    except OSError:
        if not (place / "release.json").exists():  # otherwise another process has just put the same copy there
            raise


def _to_json(release: Release) -> str:
    rules = asdict(release.log_policy) if release.log_policy else None
    return json.dumps({"digest": release.digest, "golden": asdict(release.golden_example), "log": rules})


def log_policy_from_json(record: Mapping[str, Any] | None) -> InferenceLogPolicy | None:
    """Return the rules of a log as they were written down as JSON; None where nothing is logged."""
    if record is None:
        return None
    return InferenceLogPolicy(record["key"], tuple(record["leave_out"]), tuple(record["hashed"]))
