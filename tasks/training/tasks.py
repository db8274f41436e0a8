"""Prefect tasks of training: price, train, and search hyperparameters."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from threading import Thread

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from blocks.common.errors import JobFailed
from blocks.environment import open_environment
from runtime.digests import folder_digest
from tasks.evaluation.rules.metrics import higher_is_better
from tasks.shared.cost import read_prices, uses_local_trainer, worst_case_costs
from tasks.shared.models import code_provenance, load_model
from tasks.shared.records import CostEstimate, TierData, TrainingResult, Trial
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.cost.budget import check_budget, cost_markdown
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import (
    ParameterValue,
    lineage_variables,
    open_training_run,
    resolve_hyperparameters,
    run_training_job,
    sign_model,
    training_job,
    training_job_name,
    version_tags,
    warm_up_evaluation,
)
from tasks.training.trials import experiment_markdown


@task(name="cost", **TASK_OPTIONS)
def estimate_cost(
    model: str, data: TierData, environment: str, trials: int = 1, *, include_serving: bool = False
) -> CostEstimate:
    """Compute what the run may cost at worst, and refuse it when the model's budget does not allow that.

    Args:
        model: the model's name.
        data: the tier that it will train on.
        environment: the set of adapters.
        trials: how many such trainings the run makes.
        include_serving: whether its model may be put into service, and paid for from then on.
    """
    env, team_model = open_environment(environment), load_model(model)
    small = uses_local_trainer(env, team_model, data)
    trainer = env.trainer_for(small=small)
    table, now = read_prices(), datetime.now(UTC)
    bill = worst_case_costs(env, team_model, trainer, table, now, trials=trials, include_serving=include_serving)
    budget = team_model.spec.budget
    trainer_text = f"It trains with {type(trainer).__name__}" + (f": {data.train_rows} rows are few." if small else ".")
    create_markdown_artifact(
        key="cost", markdown=cost_markdown(bill, budget, model, trainer_text), description="Worst case"
    )
    check_budget(bill, budget, model)
    get_run_logger().info("at worst this run costs %s", bill.run.explanation)
    return CostEstimate(
        use_local_trainer=small,
        is_paid=bill.run.is_paid,
        worst_case_usd=bill.run.usd / trials,
        serving_usd_month=bill.serving.usd if bill.serving.is_paid else None,
        explanation=bill.run.explanation,
    )


@task(name="train", **TASK_OPTIONS)
def train(
    model: str, data: TierData, cost_estimate: CostEstimate, parameters: Mapping[str, ParameterValue], environment: str
) -> TrainingResult:
    """Train on the tier's training rows, register the model as a version, and return it.

    `cost_estimate` says what the budget allows and who trains. `parameters` replace those of `model.yaml`, `seed` among them.
    """
    env, team_model = open_environment(environment), load_model(model)
    tracking, code = env.tracking(), code_provenance()
    env.signing.signer("models")  # before the work is paid for: a model that nobody signs is never loaded
    chosen = resolve_hyperparameters(team_model, parameters)
    run = open_training_run(tracking, team_model, data, code, chosen, key=f"{flow_run.id}:train")
    variables = {**tracking.job_environment(run.id), **lineage_variables(data, code)}
    job = training_job(team_model, data, chosen, variables, name=training_job_name(model, run.id))
    warming = Thread(target=warm_up_evaluation, args=(tracking,), daemon=True)
    warming.start()
    trainer = env.trainer_for(small=cost_estimate.use_local_trainer)
    job_state, cost = run_training_job(trainer, tracking, run, job, cost_estimate, log=get_run_logger().info)
    warming.join()
    tracking.close_run(run.id, "FINISHED")
    tags = version_tags(team_model, data, code)
    version = tracking.register(model, run.id, key=f"{flow_run.id}:train", tags=tags)
    artifact = tracking.fetch_model(model, version.version, env.scratch / "models" / model / version.version)
    sign_model(env, team_model, run.id, version.version, artifact)
    return TrainingResult(
        version=version.version,
        run_id=run.id,
        run_url=run.url,
        version_url=version.url,
        model_path=artifact,
        model_digest=folder_digest(artifact),
        parameters={key: value for key, value in chosen.items() if key != "seed"},
        seed=int(chosen["seed"]),
        commit=code.commit,
        patch_digest=code.patch_digest,
        seconds=job_state.seconds,
        cost_usd=cost,
        serving_usd_month=cost_estimate.serving_usd_month,
    )


@task(name="open experiment", **TASK_OPTIONS)
def open_experiment_run(model: str, data: TierData, environment: str) -> str:
    """Open the run that all trials are children of, and return its id."""
    team_model = load_model(model)
    run = open_training_run(open_environment(environment).tracking(), team_model, data, code_provenance(),
                   resolve_hyperparameters(team_model, {}), key=f"{flow_run.id}:experiment")  # fmt: skip
    return run.id


@task(name="trial", task_run_name="trial {number}", **TASK_OPTIONS)
def run_trial(
    model: str,
    data: TierData,
    cost_estimate: CostEstimate,
    number: int,
    parameters: dict[str, ParameterValue],
    parent: str,
    environment: str,
) -> Trial:
    """Train one trial on the training rows alone and return its validation metric; a failed trial says why."""
    env, team_model = open_environment(environment), load_model(model)
    tracking, hyperparameters = env.tracking(), resolve_hyperparameters(team_model, parameters)
    run = open_training_run(
        tracking,
        team_model,
        data,
        code_provenance(),
        hyperparameters,
        key=f"{flow_run.id}:trial:{number}",
        parent=parent,
    )
    variables = {**tracking.job_environment(run.id), **lineage_variables(data, code_provenance())}
    job = training_job(team_model, data, hyperparameters, variables, name=training_job_name(model, run.id))
    value, reason = None, ""
    try:
        run_training_job(
            env.trainer_for(small=cost_estimate.use_local_trainer),
            tracking,
            run,
            job,
            cost_estimate,
            log=get_run_logger().debug,
        )
        value = tracking.run(run.id).metrics.get(f"validation_{team_model.spec.evaluation.comparison.metric}")
    except JobFailed as failed:
        reason = str(failed)
    usable = value is not None and math.isfinite(value)
    tracking.close_run(run.id, "FINISHED" if usable else "FAILED")
    return Trial(number=number, parameters=parameters, value=value if usable else None, run_id=run.id,
                 run_url=run.url, reason=reason or ("" if usable else "no finite validation metric"))  # fmt: skip


@task(name="conclude experiment", **TASK_OPTIONS)
def conclude_experiment(
    model: str, data: TierData, trials: Sequence[Trial], experiment_run_id: str, environment: str
) -> Trial:
    """Close the experiment and show its best trial, ready to paste or to hand to `retrain`.

    Raises:
        Refusal: not one trial ended with a finite metric.
    """
    comparison = load_model(model).spec.evaluation.comparison
    tracking = open_environment(environment).tracking()
    usable = [trial for trial in trials if trial.value is not None]
    tracking.close_run(experiment_run_id, "FINISHED" if usable else "FAILED")
    if not usable:
        raise Refusal(f"none of {len(trials)} trials gave a metric", where=model, value=trials[0].reason or None,
                      remedy="See the trials' logs.")  # fmt: skip
    sign = -1.0 if higher_is_better(comparison.metric) else 1.0
    ranked = sorted(usable, key=lambda trial: sign * float(trial.value or 0.0))
    best = ranked[0]
    tracking.log(experiment_run_id, metrics={f"best_validation_{comparison.metric}": float(best.value or 0.0)})
    create_markdown_artifact(
        key="experiment", markdown=experiment_markdown(model, data, ranked, len(trials), comparison.metric)
    )
    return best
