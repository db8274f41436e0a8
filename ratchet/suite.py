"""A first `expectations.yaml`, proposed from the newest data in the lake, for people to edit."""

from pathlib import Path

from blocks.engines.base import Engine
from blocks.lake.base import Lake
from ratchet.running import running
from runtime.files import write_text_atomically
from tasks.shared.models import TeamModel, load_model
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.refusal import Refusal
from tasks.validation.checking import parquet_rows
from tasks.validation.rules.expectations import parse_suite, validate_table
from tasks.validation.rules.profile import propose_suite_yaml


def proposed(name: str, environment: str, *, force: bool) -> str:
    """Write the suite of a model from the running stack's lake, and return what to tell. Raises as `propose` does."""
    model = load_model(name)
    refuse_to_overwrite(model, force=force)  # before a second is spent on the stack
    env = running(environment)
    path = propose_suite(model, env.lake(), env.engine(), force=force)
    return f"wrote {path}: read it, and edit it to what the data must be like; then commit it"


def propose_suite(model: TeamModel, lake: Lake, engine: Engine, *, force: bool = False) -> Path:
    """Write the model's suite as the newest data proposes it, and return the file.

    Raises:
        Refusal: there is a suite and `force` is not given; there is no data, or a column is missing; or what
            would be written does not hold on the data itself, with the reasons.
    """
    refuse_to_overwrite(model, force=force)
    spec = model.spec
    read = lake.as_of(spec.data.dataset, None)
    rows = parquet_rows(lake.files(read), engine)
    target = "number" if spec.task == "regression" else "category"
    text = propose_suite_yaml(
        rows,
        name=base_name(spec.name),
        source=f"{spec.data.dataset} as of {read.id}",
        entity=spec.data.entity,
        target=spec.data.target,
        kinds={spec.data.target: target, **{c: k for c, k in spec.data.features.items() if c in rows.kinds}},
    )
    path = model.folder / "expectations.yaml"
    report = validate_table(rows, parse_suite(text, path.name), key=spec.data.entity)
    if not report.passed:
        problem = "what the data proposes does not hold on the data: " + "; ".join(report.reasons)
        raise Refusal(problem, where=str(path), remedy="Mend the data first, or write the suite by hand.")
    write_text_atomically(path, text)
    return path


def refuse_to_overwrite(model: TeamModel, *, force: bool) -> None:
    """Raise Refusal when the model has a suite and `force` is not given."""
    path = model.folder / "expectations.yaml"
    if path.exists() and not force:
        remedy = "Edit it, or give --force (make suite MODEL=… FORCE=1) to have it replaced."
        raise Refusal("there is a suite already, which people may have edited", where=str(path), remedy=remedy)
