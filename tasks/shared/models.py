"""Model folders `models/<name>/`, also under namespaced names `<name>--<namespace>`: find and read them."""

import difflib
from dataclasses import dataclass
from pathlib import Path

from blocks.common.plain_files import read_file, read_folder
from blocks.environment import Environment
from tasks.shared.rules.model.data import column_kinds
from tasks.shared.rules.model.namespaces import SEPARATOR, base_name, check_name, namespace_part
from tasks.shared.rules.model.spec import ModelSpec, parse_spec
from tasks.shared.rules.refusal import Refusal
from tasks.validation.rules.expectations import parse_suite
from tasks.validation.rules.suites import Suite

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TeamModel:
    """A model folder and its `model.yaml`. `spec.name` includes the namespace, the folder's name does not."""

    folder: Path
    spec: ModelSpec

    def read_file(self, name: str) -> bytes | None:
        """Return the content of a file of the folder, or None without it. Raises Rejected if it is no plain file."""
        return read_file(self.folder, name)

    def expectations_text(self) -> str:
        """Return the text of the model's expectations. Raises Refusal when there is none."""
        content = self.read_file("expectations.yaml")
        if content is None:
            raise Refusal(
                "the model has no expectations",
                where=str(self.folder / "expectations.yaml"),
                remedy="Add the file: no data is trusted unchecked.",
            )
        return content.decode()

    def expectation_suite(self) -> Suite:
        """Return the model's expectations. Raises Refusal naming file, line and key."""
        data = self.spec.data
        kinds = {**column_kinds(data), **({data.time: "time"} if data.time else {})}
        return parse_suite(self.expectations_text(), _relative_path(self.folder / "expectations.yaml"), kinds)


def model_names(root: Path = ROOT) -> list[str]:
    """Return the names of all model folders, sorted."""
    return sorted(path.parent.name for path in (root / "models").glob("*/model.yaml"))


def load_model(name: str, root: Path = ROOT) -> TeamModel:
    """Read `models/<name>/model.yaml`. For a namespaced name (`churn--dana`) read that of `churn`, and keep the name.

    Raises:
        Refusal: there is no such model (the message names the most similar one), the namespace is invalid, or the
            file has mistakes (file, line, key, value and remedy).
        Rejected: the folder holds something else than files: see `blocks.common.plain_files`.
    """
    refuse_namespaced_folder(name, root)
    folder = base_name(check_name(name))
    path = root / "models" / folder / "model.yaml"
    if folder not in model_names(root):
        near = difflib.get_close_matches(folder, model_names(root), n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(model_names(root))}."
        raise Refusal("there is no such model", where="models/", value=name, remedy=hint)
    spec = parse_spec(read_folder(path.parent)["model.yaml"], _relative_path(path))
    if spec.name != folder:
        raise Refusal(
            "the name in model.yaml differs from the folder's name",
            where=_relative_path(path),
            value=spec.name,
            remedy=f"Write name: {folder}.",
        )
    return TeamModel(path.parent, spec.model_copy(update={"name": name}))


def refuse_namespaced_folder(name: str, root: Path = ROOT) -> None:
    """Refuse a folder whose name looks like a namespaced model: the two could not be distinguished."""
    if SEPARATOR in name and (root / "models" / name / "model.yaml").exists():
        remedy = f"Rename the folder: `{SEPARATOR}` stands between model and namespace."
        raise Refusal("no folder may be named like a model in a namespace", where=f"models/{name}", remedy=remedy)


def _relative_path(path: Path) -> str:
    return path.relative_to(path.parent.parent.parent).as_posix()


def known_models(env: Environment, root: Path = ROOT) -> list[str]:
    """Return every model, sorted: the folders, and their namespaced models with a run, request or deployment."""
    folders = model_names(root)
    return sorted({*folders, *(name for name in _namespaced_names(env) if base_name(name) in folders)})


def model_with_namespaces(env: Environment, model: str) -> list[str]:
    """Return the names of a model in all its namespaces, the shared one first."""
    base = base_name(model)
    return [base, *sorted({*(name for name in _namespaced_names(env) if base_name(name) == base), model} - {base})]


def check_namespace_allowed(env: Environment, model: str) -> None:
    """Refuse a namespaced model in an environment without namespaces."""
    if namespace_part(model) and not env.namespaces:
        raise Refusal(
            f"the environment {env.name} has no namespaces",
            where="namespaces in its file",
            value=model,
            remedy=f"Name the shared model, {base_name(model)}, or write namespaces = true at the top of "
            f"deployments/environments/{env.name}.toml, and register it.",
        )


def _namespaced_names(env: Environment) -> set[str]:
    recorded = (*env.approvals().model_names(env.name), *env.effects().model_names(env.name))
    named = (*recorded, *env.tracking().experiments())
    return {name for name in named if SEPARATOR in name}
