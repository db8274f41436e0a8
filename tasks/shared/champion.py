"""The version that serves: by the ledger, with the files that were approved."""

from pathlib import Path

from blocks.environment import Environment
from runtime.digests import folder_digest
from tasks.approval.rules.history import champion_of
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def champion_version(env: Environment, model: str) -> str:
    """Return the version that serves by the ledger, or "" when none was ever released."""
    return champion_of(env.effects().deployments(model, env.name))


def approved_digest(env: Environment, model: str, version: str) -> str:
    """Return the digest of the files that were approved, of a version that serves or served."""
    deployments = env.effects().deployments(model, env.name)
    return next(line.digest for line in deployments if line.version == version and line.status == "serving")


def verified_champion_files(env: Environment, model: str, version: str) -> Path:
    """Return the champion's artifact, checked against the digest in the ledger before anything loads it.

    Raises:
        Refusal: the files are not those that were approved.
    """
    artifact = env.tracking().fetch_model(model, version, env.scratch / "models" / model / version)
    if folder_digest(artifact) != approved_digest(env, model, version):
        raise Refusal(
            "the champion's files are not those that were approved",
            where=f"{model} version {version}",
            remedy="Do not use them: roll back, or retrain.",
        )
    return artifact


def check_holdout_rule(env: Environment, spec: ModelSpec, version: str) -> None:
    """Refuse a champion that was trained under another holdout rule: it may have learnt from rows that decide."""
    found = env.tracking().version(spec.name, version)
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
