"""Training runs of a model in all its namespaces, read from tracking and ledger, and how to repeat one."""

import difflib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from blocks.environment import Environment
from blocks.records.actions import ActionOrder
from blocks.records.tracking import TrackingRun
from runtime.foreign_text import one_line
from tasks.approval.rules.history import champion_of
from tasks.approval.rules.names import shown_name
from tasks.shared.actions import proved_orders
from tasks.shared.models import ROOT, check_namespace_allowed, known_models, load_model, model_with_namespaces
from tasks.shared.rules.model.namespaces import in_namespace
from tasks.shared.rules.refusal import Refusal
from tasks.training.rules.run_history import ORDER_TAG, REQUESTER_TAG, TrainingRun

TRAINING_FLOWS = ("retrain", "experiment")
HOLDOUT_METRIC_PREFIX = "holdout_"
_PARENT = "mlflow.parentRunId"


def training_runs(env: Environment, model: str = "", root: Path = ROOT) -> list[TrainingRun]:
    """Return the training runs of a model in all its namespaces ("" means every model), newest first, without trials.

    Raises:
        Refusal: there is no such model; the message names the most similar one.
    """
    names = known_models(env, root)
    if model:
        load_model(model, root)
        names = model_with_namespaces(env, model)
    runs = [run for name in names for run in _runs_of_model(env, name)]
    return sorted(runs, key=lambda run: run.at or datetime.min.replace(tzinfo=UTC), reverse=True)


def find_training_run(env: Environment, run_id_prefix: str, root: Path = ROOT) -> TrainingRun:
    """Return the run with this id, or the only one whose id starts with it, with its parameters and packages.

    Raises:
        Refusal: there is no such run (the message names similar ids), or several ids start like this.
    """
    runs = training_runs(env, root=root)
    found = [run for run in runs if run.id == run_id_prefix] or [
        run for run in runs if run_id_prefix and run.id.startswith(run_id_prefix)
    ]
    if len(found) != 1:
        ids = [run.id for run in found or runs]
        near = ids if found else difflib.get_close_matches(run_id_prefix, ids, n=1, cutoff=0.3) or ids[:3]
        remedy = f"{'They are' if found else 'Similar ids'}: {', '.join(near[:5]) or 'there is no training run yet'}."
        raise Refusal(
            "several run ids start like this" if found else "there is no such run", value=run_id_prefix, remedy=remedy
        )
    recorded = {name: _recorded_json(env, found[0].id, name) for name in ("hyperparameters", "runtime")}
    return replace(found[0], parameters=recorded["hyperparameters"], runtime=recorded["runtime"])


def repeat_parameters(
    env: Environment, run: TrainingRun, namespace: str, requested_by: str, root: Path = ROOT
) -> dict[str, Any]:
    """Return the parameters of `retrain` that repeat the run in another namespace ("" means the shared model).

    Raises:
        Refusal: the namespace is invalid or not allowed, or the recorded parameters are not those of model.yaml.
    """
    name = in_namespace(run.model, namespace)
    check_namespace_allowed(env, name)
    training = load_model(name, root).spec.training
    known: dict[str, Any] = {**training.parameters, "seed": training.seed}
    if not run.parameters or set(run.parameters) - set(known):
        unknown = ", ".join(sorted(set(run.parameters) - set(known))) or "nothing was recorded"
        remedy = f"Repeat it with the code that made it, commit {run.commit}."
        raise Refusal("its parameters are not those of model.yaml", where=run.id, value=unknown, remedy=remedy)
    return {
        "model": name,
        "requested_by": requested_by,
        "tier": run.tier,
        "as_of": run.as_of,
        "parameters": {each: _parse_parameter(text, known[each], each) for each, text in run.parameters.items()},
        "trigger_reason": one_line(
            f"a repeat of run {run.id} of {run.model} by {run.requested_by or 'somebody'}.", 2000
        ),
        "environment": env.name,
    }


def _parse_parameter(text: str, default: Any, name: str) -> Any:
    """Return a recorded value in the type that it has in model.yaml."""
    if isinstance(default, bool):
        return text == "True"
    try:
        return type(default)(text)
    except ValueError as cause:
        remedy = f"model.yaml has {default!r}: other code recorded this value."
        raise Refusal(f"{name} was recorded in another type", value=text, remedy=remedy) from cause


def _runs_of_model(env: Environment, name: str) -> list[TrainingRun]:
    tracking = env.tracking()
    versions = {each.run_id: each.version for each in tracking.versions(name)}
    deployed, proved = champion_of(env.effects().deployments(name, env.name)), proved_orders(env)
    return [
        _training_run(run, versions.get(run.id, ""), deployed, proved)
        for run in tracking.runs(name)
        if "ratchet.tier" in run.tags and _PARENT not in run.tags
    ]


def _training_run(run: TrackingRun, version: str, deployed: str, proved: Mapping[str, ActionOrder]) -> TrainingRun:
    tags = run.tags
    requester = tags.get(REQUESTER_TAG, "")
    order = proved.get(tags.get(ORDER_TAG, ""))  # tags can be edited: it must be the order of such a run
    authenticated = order is not None and (order.action, order.model, order.by) == ("start", run.experiment, requester)
    authenticated = authenticated and order is not None and order.target in TRAINING_FLOWS
    metrics = {
        key.removeprefix(HOLDOUT_METRIC_PREFIX): value
        for key, value in run.metrics.items()
        if key.startswith(HOLDOUT_METRIC_PREFIX)
    }
    return TrainingRun(
        id=run.id,
        model=run.experiment,
        version=version,
        requested_by=shown_name(requester, authenticated=authenticated) if requester else "",
        at=run.started,
        status=run.status,
        tier=tags["ratchet.tier"],
        as_of=tags.get("ratchet.reread_as_of", ""),
        data_digest=tags.get("ratchet.data_digest", ""),
        holdout=tags.get("ratchet.holdout", ""),
        commit=tags.get("ratchet.commit", ""),
        has_uncommitted_changes=tags.get("ratchet.uncommitted_changes") == "yes",
        metrics=metrics,
        verdict=tags.get("ratchet.verdict", ""),
        predictions_digest=tags.get("ratchet.predictions_digest", ""),
        is_deployed=bool(version) and version == deployed,
        url=run.url,
    )


def _recorded_json(env: Environment, run_id: str, name: str) -> Mapping[str, str]:
    """Return the content of the run's file `provenance/<name>.json`; empty when it has none."""
    with tempfile.TemporaryDirectory() as folder:
        path = env.tracking().fetch_files(run_id, "provenance", Path(folder)) / f"{name}.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
