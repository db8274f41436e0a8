"""The champion: the deployed version according to the ledger, with its approved files."""

from pathlib import Path

from blocks.environment import Environment
from runtime.digests import folder_digest
from tasks.approval.rules.history import champion_of
from tasks.shared.rules.model.spec import ModelSpec
from tasks.shared.rules.refusal import Refusal


def champion_version(env: Environment, model: str) -> str:
    """Return the deployed version according to the ledger; "" when none was ever deployed."""
    return champion_of(env.effects().deployments(model, env.name))


def approved_digest(env: Environment, model: str, version: str) -> str:
    """Return the digest of the approved files of a version that is or was deployed."""
    deployments = env.effects().deployments(model, env.name)
    return next(line.digest for line in deployments if line.version == version and line.status == "serving")


def verified_champion_files(env: Environment, model: str, version: str) -> Path:
    """Return the folder of the champion's files, verified against the digest in the ledger before they are loaded."""
    artifact = env.tracking().fetch_model(model, version, env.scratch / "models" / model / version)
    if folder_digest(artifact) != approved_digest(env, model, version):
        raise Refusal(
            "the champion's files are not those that were approved",
            where=f"{model} version {version}",
            remedy="Do not use them: roll back, or retrain.",
        )
    return artifact


def check_holdout_rule(env: Environment, spec: ModelSpec, version: str) -> None:
    """Refuse a champion trained with another holdout rule: it may have been trained on rows of the holdout."""
    found = env.tracking().version(spec.name, version)
    if found is None:
        raise Refusal("the deployed version is not in the registry", value=version, remedy="Restore it, or roll back.")
    if found.tags.get("ratchet.holdout") != str(spec.holdout):
        raise Refusal(
            "the champion was trained with another holdout rule, so it may have been trained on rows of the holdout",
            where=f"version {version}",
            value=found.tags.get("ratchet.holdout"),
            remedy=f"Set holdout (now {spec.holdout}) back, or retrain the champion with it first.",
        )
