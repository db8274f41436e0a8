"""Deployment history: the deployed version and the target of a rollback, from the lines of the ledger."""

from collections.abc import Sequence

from blocks.records.deployments import Deployment
from tasks.shared.rules.refusal import Refusal


def standing_versions(lines: Sequence[Deployment]) -> list[str]:
    """Return the stack of deployed versions, oldest first: a deployment pushes one, a rollback removes later ones.

    Args:
        lines: newest first, as the ledger returns them. Failed lines are ignored.
    """
    versions: list[str] = []
    for line in reversed([line for line in lines if line.status == "serving"]):
        if line.action == "rollback" and line.version in versions:
            del versions[versions.index(line.version) + 1 :]
        elif not versions or versions[-1] != line.version:
            versions = [version for version in versions if version != line.version] + [line.version]
    return versions


def champion_of(lines: Sequence[Deployment]) -> str:
    """Return the deployed version according to the ledger, or "" when none was ever deployed."""
    standing = standing_versions(lines)
    return standing[-1] if standing else ""


def rollback_target(lines: Sequence[Deployment], to_version: str = "") -> str:
    """Return the target of a rollback: `to_version`, or the version that was deployed before the champion.

    Raises:
        Refusal: there is no earlier version; or `to_version` was never deployed successfully, or is deployed now.
    """
    standing = standing_versions(lines)
    ever = {line.version for line in lines if line.status == "serving"}
    if to_version:
        if to_version not in ever:
            known = ", ".join(sorted(ever)) or "none"
            raise Refusal("that version was never deployed", value=to_version, remedy=f"Versions that were: {known}.")
        if to_version == champion_of(lines):
            raise Refusal("that version is deployed already", value=to_version, remedy="There is nothing to roll back.")
        return to_version
    if len(standing) < 2:
        raise Refusal(
            "there is no earlier version to roll back to",
            value=champion_of(lines) or None,
            remedy="A rollback needs two deployed versions. Name the target with to_version if you know it.",
        )
    return standing[-2]
