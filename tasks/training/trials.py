"""Search for better hyperparameters on a sample: trials side by side, none of which can read the holdout."""

import json
from collections.abc import Sequence
from typing import Any

import optuna

from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.models import TeamModel
from tasks.shared.records import CostEstimate, TierData, Trial
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import ParameterValue
from tasks.training.rules.search import suggest_parameters


def open_study(model: TeamModel) -> optuna.Study:
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


def suggest_trial(study: optuna.Study, model: TeamModel) -> tuple[int, dict[str, ParameterValue]]:
    """Return the number and parameters of the next trial."""
    trial = study.ask()
    return trial.number, suggest_parameters(trial, model.spec.search)


def report_trial(study: optuna.Study, trial: Trial) -> Trial:
    """Tell the study how a trial ended, and return the trial."""
    if trial.value is None:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial.number, trial.value)
    return trial


def trial_arguments(
    model: str,
    data: TierData,
    cost_estimate: CostEstimate,
    number: int,
    parameters: dict[str, ParameterValue],
    parent: str,
    environment: str,
) -> dict[str, Any]:
    """Return the arguments of `run_trial` by name, as a task runner takes them."""
    return {"model": model, "data": data, "costed": cost_estimate, "number": number, "parameters": parameters,
            "parent": parent, "environment": environment}  # fmt: skip


def experiment_markdown(model: str, data: TierData, ranked: Sequence[Trial], tried: int, metric: str) -> str:
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
