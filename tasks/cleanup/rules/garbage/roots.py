"""What must stay of a model: whatever is promoted, asked for, passed, named by an alias, or not ours to judge."""

from collections.abc import Iterable, Mapping
from typing import Protocol

KEEP_TAG = "ratchet.keep"
"""The tag by which a person keeps a run or a version for ever, whatever its value."""
PROMOTED_TAG = "ratchet.promoted"
"""The tag of a version that served once: in which environment."""


class DeploymentLike(Protocol):
    """One line of the deployment ledger."""

    @property
    def version(self) -> str:
        """The version that was tried."""

    @property
    def status(self) -> str:
        """`serving` when it ended well, else `failed`."""


class OpenRequestLike(Protocol):
    """An approval request without a decision."""

    @property
    def version(self) -> str:
        """The version that it is about."""


class VersionLike(Protocol):
    """A registered version."""

    @property
    def version(self) -> str:
        """Its number as text."""

    @property
    def tags(self) -> Mapping[str, str]:
        """Its tags."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its aliases."""


def protected_model_keys(
    model: str, lines: Iterable[DeploymentLike], requests: Iterable[OpenRequestLike], versions: Iterable[VersionLike]
) -> dict[str, str]:
    """Return the keys that must stay, with the reason of each.

    A version that served once stays with its release, since a rollback may name it. A line that failed promotes
    nothing: its version stays only for another reason.
    """
    roots: dict[str, str] = {}
    for registered in versions:
        if reason := _version_keep_reason(registered):
            roots[f"version:{model}/{registered.version}"] = reason
    for request in requests:
        roots |= _version_and_release(model, request.version, "an approval request is open")
    for line in lines:
        if line.status == "serving":
            roots |= _version_and_release(model, line.version, "it served once, so a rollback may name it")
    return roots


def _version_and_release(model: str, version: str, reason: str) -> dict[str, str]:
    return {f"{kind}:{model}/{version}": reason for kind in ("version", "release")}


def _version_keep_reason(version: VersionLike) -> str:
    tags = version.tags
    if version.aliases:
        return f"it bears the alias {version.aliases[0]}"
    if PROMOTED_TAG in tags:
        return "it served once, so a rollback may name it"
    if KEEP_TAG in tags:
        return f"a person tagged it {KEEP_TAG}"
    if "ratchet.key" not in tags:
        return "it was not made by Ratchet"
    if tags.get("ratchet.tier") == "full" and tags.get("ratchet.verdict") == "pass":
        return "it passed on the full tier"
    return ""
