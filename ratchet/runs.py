"""List, compare and repeat the runs that trained a model, your own and those of colleagues, in all namespaces.

`python -m ratchet.runs list [MODEL] | compare RUN RUN | repeat RUN --as NAMESPACE`. A run is named by its id, or
by how its id begins. `repeat` starts `retrain/retrain` with the tier, data, parameters and seed that are recorded.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from blocks.common.errors import PortError
from blocks.environment import Environment, open_environment
from deployments.git import git
from deployments.runs import begin
from local.stack import use
from services.gateway.starting import PrefectStarter, RunOrder
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.models import ROOT, load_model, provenance
from tasks.shared.records import Provenance
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history.compare import compare
from tasks.training.rules.run_history.facts import TrainedRun
from tasks.training.rules.run_history.words import SHORT, as_json, comparison_text, listing
from tasks.training.run_history import repeat_order, trained_run, trained_runs

RETRAIN = "retrain/retrain"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line against the running stack; 1 when something is refused, with the reason."""
    options = _parser().parse_args(arguments)
    try:
        use()
        print(answer(open_environment(options.environment), options))
    except (PortError, Refusal) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def answer(world: Environment, options: argparse.Namespace, root: Path = ROOT) -> str:
    """Do what was asked, and return what to print."""
    if options.command == "list":
        return _list(world, options, root)
    if options.command == "compare":
        one, other = (trained_run(world, each, root) for each in (options.run, options.other))
        found = compare(one, other, higher_is_better)
        said = {"one": as_json(one), "other": as_json(other), **asdict(found)}
        return json.dumps(said, indent=2) if options.json else comparison_text(one, other, found)
    run = trained_run(world, options.run, root)
    if len(by := options.by or options.namespace) < 2:
        raise Refusal("say who asks for it", where="--by", value=by or None, remedy="Give a name or an e-mail address.")
    order = repeat_order(world, run, options.namespace, by, root)
    if not options.same_code and (told := code_note(run, provenance(root))):
        print(told, file=sys.stderr)
    started = start_with_code(run, order, root) if options.same_code else str(begin(RETRAIN, order))
    return f"{order['model']}: flow run {started} repeats {run.id[:SHORT]} of {run.model}"


def _list(world: Environment, options: argparse.Namespace, root: Path) -> str:
    runs = trained_runs(world, options.model, root)
    if options.json:
        return json.dumps([as_json(run) for run in runs], indent=2)
    compared = {load_model(run.model, root).spec.evaluation.comparison.metric for run in runs}
    return listing(runs, sorted(compared))


def code_note(run: TrainedRun, here: Provenance) -> str:
    """Return in words that this checkout is not the code that made the run, and how to get that; "" when it is."""
    if run.commit == here.commit and not run.patch and not here.patch_digest:
        return ""
    lines = []
    if run.commit != here.commit:
        lines.append(f"note: the run was made by commit {run.commit}; this checkout is at {here.commit}.")
        either = "" if run.patch else "--same-code, or "
        lines.append(f"  For its code: {either}git worktree add ../at-{run.commit[:SHORT]} {run.commit}")
    if run.patch:
        lines.append("note: the run was made with changes that were not committed; they are kept with it, as")
        lines.append(f"  made-by/uncommitted.patch ({run.url}): git apply puts them on top of its commit.")
    if here.patch_digest:
        lines.append("note: files of this checkout differ from its commit.")
    return "\n".join(lines)


def start_with_code(run: TrainedRun, parameters: dict[str, Any], root: Path) -> str:
    """Start the repeat with exactly the commit that made the run, as the gateway does, and return the flow run's id.

    Raises:
        Refusal: that commit alone did not make it, or this checkout does not know it.
    """
    if run.patch:
        remedy = f"Apply its made-by/uncommitted.patch ({run.url}) on top of {run.commit}, and commit."
        raise Refusal("the run was made with changes that were not committed", where=run.id, remedy=remedy)
    known = git("rev-parse", "--quiet", "--verify", f"{run.commit}^{{commit}}", folder=root).decode().strip()
    variables = {"RATCHET_COMMIT": known, "RATCHET_REPOSITORY": f"file://{root}"}
    order = RunOrder(f"repeat/{run.id}/{uuid4()}", RETRAIN, parameters, variables, (f"commit:{known}",))
    return PrefectStarter().start(order)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m ratchet.runs", description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | compare | repeat")
    shown = commands.add_parser("list", help="every run of a model, in all namespaces, newest first")
    shown.add_argument("model", nargs="?", default="", help="a folder below models/; all of them when left out")
    both = commands.add_parser("compare", help="by what two runs differ, and which metric is better in which")
    both.add_argument("run")
    both.add_argument("other")
    again = commands.add_parser("repeat", help="train once more as a run did, in a namespace of your own")
    again.add_argument("run")
    again.add_argument("--as", dest="namespace", required=True, help='your namespace; "" is the shared model')
    again.add_argument("--by", default="", help="who asks for it; by default the namespace")
    again.add_argument("--same-code", action="store_true", help="run exactly the commit that made the run")
    for command in (shown, both, again):
        command.add_argument("--environment", default="local", help="the environment whose records to read")
    for command in (shown, both):
        command.add_argument("--json", action="store_true", help="as JSON, in full")
    return parser


if __name__ == "__main__":
    sys.exit(main())
