"""The version that serves: by the ledger, with the files that were approved."""

from pathlib import Path

from blocks.environment import Environment
from runtime.digests import folder_digest
from tasks.approval.rules.history import champion
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def champion_version(world: Environment, model: str) -> str:
    """Return the version that serves by the ledger, or "" when none was ever released."""
    return champion(world.effects().deployments(model, world.name))


def approved_digest(world: Environment, model: str, version: str) -> str:
    """Return the digest of the files that were approved, of a version that serves or served."""
    lines = world.effects().deployments(model, world.name)
    return next(line.digest for line in lines if line.version == version and line.status == "serving")


def champion_files(world: Environment, model: str, version: str) -> Path:
    """Return the champion's artifact, checked against the digest in the ledger before anything loads it.

    Raises:
        Refusal: the files are not those that were approved.
    """
    artifact = world.tracking().fetch(model, version, world.scratch / "models" / model / version)
    if folder_digest(artifact) != approved_digest(world, model, version):
        raise Refusal(
            "the champion's files are not those that were approved",
            where=f"{model} version {version}",
            remedy="Do not use them: roll back, or retrain.",
        )
    return artifact


def check_same_holdout(world: Environment, spec: ModelSpec, version: str) -> None:
    """Refuse a champion that was trained under another holdout rule: it may have learnt from rows that decide."""
    found = world.tracking().version(spec.name, version)
    if found is None:
        raise Refusal(
            "the version that serves is not in the registry", value=version, remedy="Restore it, or roll back."
        )
    if found.tags.get("ratchet.holdout") != str(spec.holdout):
        raise Refusal(
            "the champion was trained under another holdout rule, so it may have learnt from rows that decide now",
            where=f"version {version}",
            value=found.tags.get("ratchet.holdout"),
            remedy=f"Set holdout (now {spec.holdout}) back, or retrain the champion under it first.",
        )
