"""Hyperparameter search on a sample: the study, its trials in parallel, and its report. No trial reads the holdout."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import optuna
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from blocks.common.errors import JobFailed, Rejected, Unavailable
from blocks.environment import Environment
from blocks.tracking.base import Tracking
from runtime.foreign_text import Markdown, markdown_block, markdown_code, markdown_link, markdown_table
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.code import code_provenance
from tasks.shared.models import TeamModel
from tasks.shared.records import CostEstimate, TierData, Trial
from tasks.shared.reports import only_reports
from tasks.shared.rules.model.holdout import parse_holdout_rule
from tasks.shared.rules.model.parts import SearchRange, SearchSpace
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import (
    ParameterValue,
    job_of_run,
    open_training_run,
    resolve_hyperparameters,
    run_training_job,
)

if TYPE_CHECKING:
    from prefect_dask.task_runners import DaskTaskRunner


def open_study(model: TeamModel) -> optuna.Study:
    """Return a study over the ranges of `model.yaml`, seeded with the model's seed.

    A retried flow run gets the same suggestions from the study, and reuses the persisted results of finished trials.

    Raises:
        Refusal: `model.yaml` has no `search`.
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
    """Report the result of a trial to the study, and return the trial."""
    if trial.value is None:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial.number, trial.value)
    return trial


def train_trial(
    env: Environment,
    model: TeamModel,
    data: TierData,
    cost_estimate: CostEstimate,
    number: int,
    parameters: dict[str, ParameterValue],
    *,
    parent: str,
    key: str,
    log: Callable[[str], None],
) -> Trial:
    """Train one trial on the training rows alone and return its validation metric; a failed trial says why."""
    tracking, code = env.tracking(), code_provenance(model=model.spec.name)
    chosen = resolve_hyperparameters(model, parameters)
    run = open_training_run(tracking, model, data, code, chosen, key=key, parent=parent)
    job = job_of_run(tracking, run, model, data, code, chosen)
    trainer = env.trainer_for(small=cost_estimate.use_local_trainer)
    value, reason = None, ""
    try:
        run_training_job(trainer, tracking, run, job, cost_estimate, log=log)
        value = tracking.run(run.id).metrics.get(f"validation_{model.spec.evaluation.comparison.metric}")
    except JobFailed as failed:
        reason = str(failed)
    usable = value is not None and math.isfinite(value)
    tracking.close_run(run.id, "FINISHED" if usable else "FAILED")
    return Trial(number=number, parameters=parameters, value=value if usable else None, run_id=run.id,
                 run_url=run.url, reason=reason or ("" if usable else "no finite validation metric"))  # fmt: skip


def close_experiment(tracking: Tracking, model: TeamModel, trials: Sequence[Trial], run_id: str) -> list[Trial]:
    """Close the run of an experiment with its best metric, and return the trials that have one, best first."""
    metric = model.spec.evaluation.comparison.metric
    usable = [trial for trial in trials if trial.value is not None]
    tracking.close_run(run_id, "FINISHED" if usable else "FAILED")
    if not usable:
        raise Refusal(f"none of {len(trials)} trials gave a metric", where=model.spec.name,
                      value=trials[0].reason or None, remedy="See the trials' logs.")  # fmt: skip
    sign = -1.0 if higher_is_better(metric) else 1.0
    ranked = sorted(usable, key=lambda trial: sign * float(trial.value or 0.0))
    with only_reports("the best metric of the experiment"):
        tracking.log(run_id, metrics={f"best_validation_{metric}": float(ranked[0].value or 0.0)})
    return ranked


def experiment_markdown(model: str, data: TierData, ranked: Sequence[Trial], tried: int, metric: str) -> Markdown:
    """Return the experiment's report as Markdown: the best parameters, the ten best trials, and what measured them."""
    measured = "The program divided its training rows itself. "
    if data.validation_rows:
        measured = f"Measured on {data.validation_rows:,} validation rows, divided as the holdout is. "
    elif data.holdout_rule and parse_holdout_rule(data.holdout_rule).by != "entity":
        measured += "Declare training.validation_share, so that trials are measured as the holdout measures them. "
    best = json.dumps(ranked[0].parameters)
    command = f"prefect deployment run retrain/retrain -p model={model} -p requested_by=you -p 'parameters={best}'"
    rows = [
        (
            str(each.number),
            f"{each.value:.4f}",
            markdown_code(json.dumps(each.parameters)),
            markdown_link("run", each.run_url),
        )
        for each in ranked[:10]
    ]
    return Markdown("\n").join(
        [
            Markdown("## Best of {} trials on the {} tier: validation {} {:.4f}").format(
                tried, data.tier, metric, ranked[0].value
            ),
            Markdown("Pass it to `retrain` as **parameters**, or paste it into `model.yaml`:"),
            markdown_block(best, "json"),
            markdown_block(command),
            markdown_table(("trial", f"validation {metric}", "parameters", ""), rows),
            "",
            f"{measured}No trial read a holdout row: only a retraining evaluates on the holdout.",
        ]
    )


@contextmanager
def trial_task_runner(env: Environment, parallel: int) -> Iterator[TaskRunner[Any]]:
    """Start the task runner of the environment for `parallel` tasks at once, and stop it after the block.

    Prefect starts a flow's own task runner before it knows the parameters of the run, and the environment is such a
    parameter. So the flow submits its trials to this one: `runner.submit(task, {"name": value})`.

    Raises:
        Rejected: the environment uses Dask, which is not installed.
        Unavailable: no Dask scheduler answers at the environment's address.
    """
    if env.task_runner == "thread":
        threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=parallel)
        with threads:
            yield threads
        return
    with _dask_runner(env.task_runner_address, parallel) as workers:
        try:
            workers.client.wait_for_workers(1, timeout=60)
        except (OSError, TimeoutError) as cause:
            place = env.task_runner_address or "a cluster of this machine"
            raise Unavailable(f"Dask at {place} does not answer: {cause}. Start its scheduler and workers.") from cause
        yield workers


def _dask_runner(address: str, parallel: int) -> "DaskTaskRunner":
    """Return a runner on the scheduler at `address`; with "" on a new local cluster for this run."""
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as cause:
        raise Rejected("prefect-dask is not installed. Install it: make setup-engines") from cause
    if address:
        return DaskTaskRunner(address=address)
    loopback = {"host": "127.0.0.1", "dashboard_address": None}
    return DaskTaskRunner(cluster_kwargs={"n_workers": parallel, "threads_per_worker": 1, **loopback})


def suggest_parameters(trial: optuna.Trial, space: Mapping[str, SearchSpace]) -> dict[str, ParameterValue]:
    """Return a value for each parameter; a whole number when both ends of its range are whole.

    The parameters are taken in the order of their names: the same seed gives the same trials in any file order.

    Raises:
        Refusal: the search space is empty.
    """
    if not space:
        remedy = "Add parameters under `search` in model.yaml."
        raise Refusal("there is nothing to try: every trial would be the same", where="search", remedy=remedy)
    return {name: _suggest_value(trial, name, space[name]) for name in sorted(space)}


def _suggest_value(trial: optuna.Trial, name: str, space: SearchSpace) -> ParameterValue:
    if not isinstance(space, SearchRange):
        choice: ParameterValue = trial.suggest_categorical(name, space.choices)
        return choice
    if isinstance(space.low, int) and isinstance(space.high, int):
        return int(trial.suggest_int(name, space.low, space.high, log=space.log))
    return float(trial.suggest_float(name, space.low, space.high, log=space.log))
