"""The runs that trained a model, your own and those of colleagues, in all namespaces: listed, compared, repeated.

A run is named by its id, or by how its id begins. A repeat starts `retrain/retrain` with the tier, data, parameters
and seed that are recorded.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

from blocks.environment import Environment
from deployments.flow_runs import start_run
from deployments.git import git
from services.gateway.run_starter import FlowRunSpec, PrefectRunStarter
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.models import ROOT, code_provenance, load_model
from tasks.shared.records import CodeProvenance
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history import words
from tasks.training.rules.run_history.compare import compare_runs
from tasks.training.rules.run_history.facts import TrainingRun
from tasks.training.run_history import find_training_run, repeat_parameters, training_runs

RETRAIN_DEPLOYMENT = "retrain/retrain"


def listed(env: Environment, model: str = "", *, as_json: bool = False, root: Path = ROOT) -> str:
    """Return every run of a model ("" for all of them), newest first."""
    runs = training_runs(env, model, root)
    if as_json:
        return json.dumps([words.run_json(run) for run in runs], indent=2)
    metrics = {load_model(run.model, root).spec.evaluation.comparison.metric for run in runs}
    return words.runs_listing(runs, sorted(metrics))


def compared(env: Environment, run: str, other: str, *, as_json: bool = False, root: Path = ROOT) -> str:
    """Return by what two runs differ, and which metric is better in which."""
    one, two = (find_training_run(env, each, root) for each in (run, other))
    found = compare_runs(one, two, higher_is_better)
    said = {"one": words.run_json(one), "other": words.run_json(two), **asdict(found)}
    return json.dumps(said, indent=2) if as_json else words.run_comparison_text(one, two, found)


def repeated(
    env: Environment, wanted: str, namespace: str, by: str = "", *, same_code: bool = False, root: Path = ROOT
) -> str:
    """Train once more as a run did, in a namespace ("" is the shared model), and return what to tell.

    Raises:
        Refusal: nobody asks for it, or the run cannot be repeated so.
    """
    run = find_training_run(env, wanted, root)
    if len(by := by or namespace) < 2:
        raise Refusal("say who asks for it", where="--by", value=by or None, remedy="Give a name or an e-mail address.")
    order = repeat_parameters(env, run, namespace, by, root)
    if not same_code and (told := code_difference_note(run, code_provenance(root))):
        print(told, file=sys.stderr)
    started = start_with_same_code(run, order, root) if same_code else str(start_run(RETRAIN_DEPLOYMENT, order))
    return f"{order['model']}: flow run {started} repeats {run.id[: words.SHORT_ID_LENGTH]} of {run.model}"


def code_difference_note(run: TrainingRun, here: CodeProvenance) -> str:
    """Return in words that this checkout is not the code that made the run, and how to get that; "" when it is."""
    if run.commit == here.commit and not run.has_uncommitted_changes and not here.patch_digest:
        return ""
    lines = []
    if run.commit != here.commit:
        lines.append(f"note: the run was made by commit {run.commit}; this checkout is at {here.commit}.")
        either = "" if run.has_uncommitted_changes else "--same-code, or "
        lines.append(
            f"  For its code: {either}git worktree add ../at-{run.commit[: words.SHORT_ID_LENGTH]} {run.commit}"
        )
    if run.has_uncommitted_changes:
        lines.append("note: the run was made with changes that were not committed; they are kept with it, as")
        lines.append(f"  made-by/uncommitted.patch ({run.url}): git apply puts them on top of its commit.")
    if here.patch_digest:
        lines.append("note: files of this checkout differ from its commit.")
    return "\n".join(lines)


def start_with_same_code(run: TrainingRun, parameters: dict[str, Any], root: Path) -> str:
    """Start the repeat with exactly the commit that made the run, as the gateway does, and return the flow run's id.

    Raises:
        Refusal: that commit alone did not make it, or this checkout does not know it.
    """
    if run.has_uncommitted_changes:
        remedy = f"Apply its made-by/uncommitted.patch ({run.url}) on top of {run.commit}, and commit."
        raise Refusal("the run was made with changes that were not committed", where=run.id, remedy=remedy)
    known = git("rev-parse", "--quiet", "--verify", f"{run.commit}^{{commit}}", folder=root).decode().strip()
    variables = {"RATCHET_COMMIT": known, "RATCHET_REPOSITORY": f"file://{root}"}
    order = FlowRunSpec(f"repeat/{run.id}/{uuid4()}", RETRAIN_DEPLOYMENT, parameters, variables, (f"commit:{known}",))
    return PrefectRunStarter().start(order)
