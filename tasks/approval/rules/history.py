"""What a model's deployment lines say: which version serves, and which one a rollback goes to."""

from collections.abc import Sequence
from typing import Protocol

from tasks.shared.rules.refusal import Refusal


class DeploymentLike(Protocol):
    """One line of the deployment ledger."""

    @property
    def version(self) -> str:
        """The version that was tried."""

    @property
    def action(self) -> str:
        """`deploy` or `rollback`."""

    @property
    def status(self) -> str:
        """`serving` when it ended well, else `failed`."""


def standing_versions(lines: Sequence[DeploymentLike]) -> list[str]:
    """Return the versions that stand, oldest first: a deployment adds one, a rollback takes back to one.

    Args:
        lines: newest first, as the ledger returns them. Lines that failed do not count.
    """
    versions: list[str] = []
    for line in reversed([line for line in lines if line.status == "serving"]):
        if line.action == "rollback" and line.version in versions:
            del versions[versions.index(line.version) + 1 :]
        elif not versions or versions[-1] != line.version:
            versions = [version for version in versions if version != line.version] + [line.version]
    return versions


def champion_of(lines: Sequence[DeploymentLike]) -> str:
    """Return the version that serves by the ledger, or "" when none was ever released."""
    standing = standing_versions(lines)
    return standing[-1] if standing else ""


def rollback_target(lines: Sequence[DeploymentLike], to_version: str = "") -> str:
    """Return the version to go back to: `to_version`, or the one that served before today's champion.

    Raises:
        Refusal: nothing served before, or `to_version` never served healthily, or it serves already.
    """
    standing = standing_versions(lines)
    ever = {line.version for line in lines if line.status == "serving"}
    if to_version:
        if to_version not in ever:
            known = ", ".join(sorted(ever)) or "none"
            raise Refusal("that version never served", value=to_version, remedy=f"Versions that did: {known}.")
        if to_version == champion_of(lines):
            raise Refusal("that version serves already", value=to_version, remedy="There is nothing to take back.")
        return to_version
    if len(standing) < 2:
        raise Refusal(
            "there is no earlier version to go back to",
            value=champion_of(lines) or None,
            remedy="A rollback needs two versions that served; name one with to_version if you know better.",
        )
    return standing[-2]
