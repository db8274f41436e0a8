"""Which models there are, in namespaces or not, and where a model in a namespace may run."""

from pathlib import Path

from blocks.environment import Environment
from tasks.shared.models import ROOT, model_names
from tasks.shared.rules.model.namespaces import SEPARATOR, base_name, namespace_part
from tasks.shared.rules.refusal import Refusal


def known_models(env: Environment, root: Path = ROOT) -> list[str]:
    """Return every model: the folders, and what was trained, asked for or deployed of them in a namespace; sorted."""
    folders = model_names(root)
    return sorted({*folders, *(name for name in _namespaced_names(env) if base_name(name) in folders)})


def model_with_namespaces(env: Environment, model: str) -> list[str]:
    """Return a model in all its namespaces, the shared one first."""
    base = base_name(model)
    return [base, *sorted({*(name for name in _namespaced_names(env) if base_name(name) == base), model} - {base})]


def check_namespace_allowed(env: Environment, model: str) -> None:
    """Let a shared model pass, and one in a namespace where the environment has those.

    Raises:
        Refusal: it has none.
    """
    if namespace_part(model) and not env.namespaces:
        raise Refusal(
            f"the environment {env.name} has no namespaces",
            where="namespaces in its file",
            value=model,
            remedy=f"Name the shared model, {base_name(model)}, or write namespaces = true at the top of "
            f"deployments/environments/{env.name}.toml, and register it.",
        )


def _namespaced_names(env: Environment) -> set[str]:
    recorded = (*env.approvals().models(env.name), *env.effects().models(env.name))
    named = (*recorded, *env.tracking().experiments())
    return {name for name in named if SEPARATOR in name}
