"""The commands `runs`: list, compare and repeat the training runs of all namespaces.

A run is named by its id or by the beginning of its id. A repeat starts `retrain/retrain` with the recorded tier, data,
parameters and seed.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployments.state import ROOT
from local.stack import running_environment
from ratchet.commands.group import Environment, Group
from runtime.foreign_text import print_text
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history import SHORT_ID_LENGTH, TrainingRun

if TYPE_CHECKING:
    from blocks.environment import Environment as Env
    from tasks.shared.records import CodeProvenance

runs = Group("The training runs of models, in all namespaces.")

RETRAIN_DEPLOYMENT = "retrain/retrain"

Run = Annotated[str, typer.Argument(help="A run's id, or the beginning of it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print all fields as JSON.")]


@runs.command("list")
def list_runs(
    model: Annotated[str, typer.Argument(help="A folder of models/; default: all models.")] = "",
    json: AsJson = False,
    environment: Environment = "local",
) -> str:
    """List every run of a model, newest first."""
    return listed(running_environment(environment), model, as_json=json)


@runs.command("compare")
def compare_runs(run: Run, other: Run, json: AsJson = False, environment: Environment = "local") -> str:
    """Show the differences between two runs, and which metric is better in which run."""
    return compared(running_environment(environment), run, other, as_json=json)


@runs.command("repeat")
def repeat_run(
    run: Run,
    namespace: Annotated[str, typer.Option("--as", help='Your namespace; "" is the shared model.')],
    by: Annotated[str, typer.Option(help="The name of the requester; default: the namespace.")] = "",
    same_code: Annotated[bool, typer.Option("--same-code", help="Use exactly the commit of the run.")] = False,
    environment: Environment = "local",
) -> str:
    """Repeat the training of a run in your own namespace."""
    return repeated(running_environment(environment), run, namespace, by, same_code=same_code)


def listed(env: "Env", model: str = "", *, as_json: bool = False, root: Path = ROOT) -> str:
    """Return every run of a model ("" for all of them), newest first."""
    from tasks.shared.models import load_model
    from tasks.training.rules.run_history import run_json, runs_listing
    from tasks.training.run_history import training_runs

    runs = training_runs(env, model, root)
    if as_json:
        return json.dumps([run_json(run) for run in runs], indent=2)
    metrics = {load_model(run.model, root).spec.evaluation.comparison.metric for run in runs}
    return runs_listing(runs, sorted(metrics))


def compared(env: "Env", run: str, other: str, *, as_json: bool = False, root: Path = ROOT) -> str:
    """Return the differences between two runs, and which metric is better in which run."""
    from tasks.evaluation.rules.metrics import higher_is_better
    from tasks.training.rules.run_history import compare_runs, run_comparison_text, run_json
    from tasks.training.run_history import find_training_run

    one, two = (find_training_run(env, each, root) for each in (run, other))
    comparison = compare_runs(one, two, higher_is_better)
    content = {"one": run_json(one), "other": run_json(two), **asdict(comparison)}
    return json.dumps(content, indent=2) if as_json else run_comparison_text(one, two, comparison)


def repeated(
    env: "Env", run_id: str, namespace: str, by: str = "", *, same_code: bool = False, root: Path = ROOT
) -> str:
    """Repeat the training of a run in a namespace ("" is the shared model), and return a message.

    Raises:
        Refusal: the requester is not given, or the run cannot be repeated in this way.
    """
    from tasks.shared.code import code_provenance
    from tasks.training.run_history import find_training_run, repeat_parameters

    run = find_training_run(env, run_id, root)
    if len(by := by or namespace) < 2:
        remedy = "Give a name or an e-mail address."
        raise Refusal("the name of the requester is missing", where="--by", value=by or None, remedy=remedy)
    parameters = repeat_parameters(env, run, namespace, by, root)
    if not same_code and (note := code_difference_note(run, code_provenance(root, run.model))):
        print_text(note, file=sys.stderr)
    if same_code:
        variables, commit = variables_of_same_code(run, root)
    else:
        variables, commit = {}, ""
    reason = f"repeat of run {run.id}"
    started = start_ordered(env, RETRAIN_DEPLOYMENT, parameters, by, reason, variables=variables, commit=commit)
    return f"{parameters['model']}: flow run {started} repeats {run.id[:SHORT_ID_LENGTH]} of {run.model}"


def code_difference_note(run: TrainingRun, here: "CodeProvenance") -> str:
    """Return how this checkout differs from the code of the run, and how to get that code; "" when it is the same."""
    if run.commit == here.commit and not run.has_uncommitted_changes and not here.patch_digest:
        return ""
    lines = []
    if run.commit != here.commit:
        lines.append(f"note: the run used commit {run.commit}; this checkout is at {here.commit}.")
        either = "" if run.has_uncommitted_changes else "--same-code, or "
        lines.append(f"  For its code: {either}git worktree add ../at-{run.commit[:SHORT_ID_LENGTH]} {run.commit}")
    if run.has_uncommitted_changes:
        lines.append("note: the run was made with changes that were not committed; they are kept with it, as")
        lines.append(f"  provenance/uncommitted.patch ({run.url}): git apply puts them on top of its commit.")
    if here.patch_digest:
        lines.append("note: files of this checkout differ from its commit.")
    return "\n".join(lines)


def variables_of_same_code(run: TrainingRun, root: Path) -> tuple[dict[str, str], str]:
    """Return the variables with which workers use exactly the commit of the run, and the commit.

    Raises:
        Refusal: the run also used uncommitted changes, or this checkout does not have the commit.
    """
    from blocks.common.git import git, object_id
    from services.gateway.run_starter import Code

    if run.has_uncommitted_changes:
        remedy = f"Apply its provenance/uncommitted.patch ({run.url}) on top of {run.commit}, and commit."
        raise Refusal("the run was made with changes that were not committed", where=run.id, remedy=remedy)
    known = git("rev-parse", "--verify", values=[f"{object_id(run.commit)}^{{commit}}"], folder=root).decode().strip()
    return Code(known, f"file://{root}").variables(), known


def start_ordered(
    env: "Env",
    deployment: str,
    parameters: Mapping[str, Any],
    by: str,
    reason: str,
    *,
    variables: Mapping[str, str] | None = None,
    commit: str = "",
) -> str:
    """Start a run by an order that this machine signs, if it has the key, and return the flow run's id.

    The name is not proved. Raises Refusal where the environment's policy requires that; it says the way.
    """
    from services.decisions import CHANNEL
    from services.gateway.orders import start_ordered_run
    from services.gateway.run_starter import PrefectRunStarter
    from tasks.approval.rules.actions import Actor

    actor, tags = Actor(by), (f"commit:{commit}",) if commit else ()
    _, run_id = start_ordered_run(
        env, PrefectRunStarter(), deployment, parameters, actor, reason=reason, channel=CHANNEL, now=datetime.now(UTC),
        variables=variables or {}, tags=tags,
    )  # fmt: skip
    return run_id
