"""Propose a first `expectations.yaml` from the data in the lake, for people to edit: `make suite MODEL=churn`.

It looks at the newest snapshot, by SQL on the environment's engine. A suite that is there already is not
overwritten without `--force`.
"""

import argparse
import sys
from pathlib import Path

from blocks.common.errors import PortError
from blocks.engines.base import Engine
from blocks.environment import open_environment
from blocks.lake.base import Lake
from local.stack import use
from runtime.files import replace_text
from tasks.shared.models import Model, load_model
from tasks.shared.rules.model.namespaces import base_of
from tasks.shared.rules.refusal import Refusal
from tasks.validation.checking import rows_of
from tasks.validation.rules.expectations import check, parse_suite
from tasks.validation.rules.profile import proposed_suite


def main(arguments: list[str] | None = None) -> int:
    """Run the command line against the running stack."""
    options = _parser().parse_args(arguments)
    try:
        model = load_model(options.model)
        refuse_to_overwrite(model, force=options.force)
        use()
        world = open_environment(options.environment)
        path = propose(model, world.lake(), world.engine(), force=options.force)
    except (PortError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {path}: read it, and edit it to what the data must be like; then commit it")
    return 0


def propose(model: Model, lake: Lake, engine: Engine, *, force: bool = False) -> Path:
    """Write the model's suite as the newest data proposes it, and return the file.

    Raises:
        Refusal: there is a suite and `force` is not given; there is no data, or a column is missing; or what
            would be written does not hold on the data itself, with the reasons.
    """
    refuse_to_overwrite(model, force=force)
    spec = model.spec
    read = lake.as_of(spec.data.dataset, None)
    rows = rows_of(lake.files(read), engine)
    target = "number" if spec.task == "regression" else "category"
    text = proposed_suite(
        rows,
        name=base_of(spec.name),
        source=f"{spec.data.dataset} as of {read.id}",
        entity=spec.data.entity,
        target=spec.data.target,
        kinds={spec.data.target: target, **{c: k for c, k in spec.data.features.items() if c in rows.kinds}},
    )
    path = model.folder / "expectations.yaml"
    report = check(rows, parse_suite(text, path.name), key=spec.data.entity)
    if not report.passed:
        problem = "what the data proposes does not hold on the data: " + "; ".join(report.reasons)
        raise Refusal(problem, where=str(path), remedy="Mend the data first, or write the suite by hand.")
    replace_text(path, text)
    return path


def refuse_to_overwrite(model: Model, *, force: bool) -> None:
    """Raise Refusal when the model has a suite and `force` is not given."""
    path = model.folder / "expectations.yaml"
    if path.exists() and not force:
        remedy = "Edit it, or give --force (make suite MODEL=… FORCE=1) to have it replaced."
        raise Refusal("there is a suite already, which people may have edited", where=str(path), remedy=remedy)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.suite", description=__doc__, formatter_class=raw)
    parser.add_argument("model", help="the model: a folder below models/")
    parser.add_argument("--force", action="store_true", help="replace a suite that is there")
    parser.add_argument("--environment", default="local", help="the environment whose lake and engine to use")
    return parser


if __name__ == "__main__":
    sys.exit(main())
