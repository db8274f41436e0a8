"""Search for better hyperparameters on a sample: trials side by side, none of which can read the holdout."""

import json
import math
from collections.abc import Sequence
from typing import Any

import optuna
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks.environment import open_environment
from blocks.errors import JobFailed
from tasks.logic.evaluate.metrics import higher_is_better
from tasks.logic.refusal import Refusal
from tasks.logic.search import suggest
from tasks.models import Model, load_model, provenance
from tasks.records import Costed, TierData, Trial
from tasks.retries import STAGE
from tasks.train import chosen_parameters, job_name, lineage, open_run, run_paid, training_job

Value = int | float | str | bool


def open_study(model: Model) -> optuna.Study:
    """Return a study over the ranges of `model.yaml`, seeded with the model's seed.

    A flow run that is started again asks the same study the same questions, and finds the answers of trials
    that were done: their task results are kept.

    Raises:
        Refusal: `model.yaml` says nothing of what may be tried.
    """
    if not model.spec.search:
        raise Refusal("there is nothing to search", where=f"models/{model.folder.name}/model.yaml, key search",
                      remedy="Give ranges, such as num_leaves: {low: 4, high: 32}.")  # fmt: skip
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    better = higher_is_better(model.spec.evaluation.comparison.metric)
    sampler = optuna.samplers.TPESampler(seed=model.spec.training.seed, n_startup_trials=5)
    return optuna.create_study(sampler=sampler, direction="maximize" if better else "minimize")


def propose(study: optuna.Study, model: Model) -> tuple[int, dict[str, Value]]:
    """Return the number and parameters of the next trial."""
    trial = study.ask()
    return trial.number, suggest(trial, model.spec.search)


def tell(study: optuna.Study, trial: Trial) -> Trial:
    """Tell the study how a trial ended, and return the trial."""
    if trial.value is None:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial.number, trial.value)
    return trial


@task(name="open experiment", **STAGE)
def open_parent(model: str, data: TierData, environment: str) -> str:
    """Open the run that all trials are children of, and return its id."""
    brought = load_model(model)
    run = open_run(open_environment(environment).tracking(), brought, data, provenance(),
                   chosen_parameters(brought, {}), key=f"{flow_run.id}:experiment")  # fmt: skip
    return run.id


@task(name="trial", task_run_name="trial {number}", **STAGE)
def try_out(
    model: str,
    data: TierData,
    costed: Costed,
    number: int,
    parameters: dict[str, Value],
    parent: str,
    environment: str,
) -> Trial:
    """Train one trial on the training rows alone and return its validation metric; a failed trial says why."""
    world, brought = open_environment(environment), load_model(model)
    tracking, chosen = world.tracking(), chosen_parameters(brought, parameters)
    run = open_run(tracking, brought, data, provenance(), chosen, key=f"{flow_run.id}:trial:{number}", parent=parent)
    variables = {**tracking.job_environment(run.id), **lineage(data, provenance())}
    job = training_job(brought, data, chosen, variables, name=job_name(model, run.id))
    value, reason = None, ""
    try:
        run_paid(world.trainer_for(small=costed.small), tracking, run, job, costed, log=get_run_logger().debug)
        value = tracking.run(run.id).metrics.get(f"validation_{brought.spec.evaluation.comparison.metric}")
    except JobFailed as failed:
        reason = str(failed)
    usable = value is not None and math.isfinite(value)
    tracking.close_run(run.id, "FINISHED" if usable else "FAILED")
    return Trial(number=number, parameters=parameters, value=value if usable else None, run_id=run.id,
                 run_url=run.url, reason=reason or ("" if usable else "no finite validation metric"))  # fmt: skip


def given(
    model: str,
    data: TierData,
    costed: Costed,
    number: int,
    parameters: dict[str, Value],
    parent: str,
    environment: str,
) -> dict[str, Any]:
    """Return the arguments of `try_out` by name, as a task runner takes them."""
    return {"model": model, "data": data, "costed": costed, "number": number, "parameters": parameters,
            "parent": parent, "environment": environment}  # fmt: skip


@task(name="conclude experiment", **STAGE)
def conclude(model: str, data: TierData, trials: Sequence[Trial], parent: str, environment: str) -> Trial:
    """Close the experiment and show its best trial, ready to paste or to hand to `retrain`.

    Raises:
        Refusal: not one trial ended with a finite metric.
    """
    comparison = load_model(model).spec.evaluation.comparison
    tracking = open_environment(environment).tracking()
    usable = [trial for trial in trials if trial.value is not None]
    tracking.close_run(parent, "FINISHED" if usable else "FAILED")
    if not usable:
        raise Refusal(f"none of {len(trials)} trials gave a metric", where=model, value=trials[0].reason or None,
                      remedy="See the trials' logs.")  # fmt: skip
    sign = -1.0 if higher_is_better(comparison.metric) else 1.0
    ranked = sorted(usable, key=lambda trial: sign * float(trial.value or 0.0))
    best = ranked[0]
    tracking.log(parent, metrics={f"best_validation_{comparison.metric}": float(best.value or 0.0)})
    create_markdown_artifact(key="experiment", markdown=summary(model, data, ranked, len(trials), comparison.metric))
    return best


def summary(model: str, data: TierData, ranked: Sequence[Trial], tried: int, metric: str) -> str:
    """Return the experiment's outcome as markdown: the best parameters to paste, and the ten best trials."""
    best = json.dumps(ranked[0].parameters)
    command = f"prefect deployment run retrain/retrain -p model={model} -p requested_by=you -p 'parameters={best}'"
    rows = [f"| {t.number} | {t.value:.4f} | `{json.dumps(t.parameters)}` | [run]({t.run_url}) |" for t in ranked[:10]]
    return "\n".join(
        [
            f"## Best of {tried} trials on the {data.tier} tier: validation {metric} {ranked[0].value:.4f}",
            "Pass it to `retrain` as **parameters**, or paste it into `model.yaml`:",
            f"```json\n{best}\n```",
            f"```\n{command}\n```",
            f"| trial | validation {metric} | parameters | |\n|---|---|---|---|",
            *rows,
            "",
            "No trial read a holdout row: only `retrain` judges on those.",
        ]
    )
