"""Which models there are, in namespaces or not, and where a model in a namespace may run."""

from pathlib import Path

from blocks.environment import Environment
from tasks.shared.models import ROOT, model_names
from tasks.shared.rules.model.namespaces import SEPARATOR, base_of, namespace_of
from tasks.shared.rules.refusal import Refusal


def known_models(world: Environment, root: Path = ROOT) -> list[str]:
    """Return every model: the folders, and what was trained, asked for or deployed of them in a namespace; sorted."""
    folders = model_names(root)
    return sorted({*folders, *(name for name in _namespaced(world) if base_of(name) in folders)})


def family(world: Environment, model: str) -> list[str]:
    """Return a model in all its namespaces, the shared one first."""
    base = base_of(model)
    return [base, *sorted({*(name for name in _namespaced(world) if base_of(name) == base), model} - {base})]


def check_allowed(world: Environment, model: str) -> None:
    """Let a shared model pass, and one in a namespace where the environment has those.

    Raises:
        Refusal: it has none.
    """
    if namespace_of(model) and not world.namespaces:
        raise Refusal(
            f"the environment {world.name} has no namespaces",
            where="namespaces in its file",
            value=model,
            remedy=f"Name the shared model, {base_of(model)}, or write namespaces = true at the top of "
            f"deployments/environments/{world.name}.toml, and register it.",
        )


def _namespaced(world: Environment) -> set[str]:
    recorded = (*world.approvals().models(world.name), *world.effects().models(world.name))
    named = (*recorded, *world.tracking().experiments())
    return {name for name in named if SEPARATOR in name}
