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
from tasks.shared.cost import is_small, make_bill, read_prices
from tasks.shared.models import load_model, provenance
from tasks.shared.records import Costed, TierData, Trained, Trial
from tasks.shared.retries import STAGE
from tasks.shared.rules.cost.budget import bill_markdown, check_budget
from tasks.shared.rules.refusal import Refusal
from tasks.training.jobs import (
    Value,
    chosen_parameters,
    job_name,
    lineage,
    open_run,
    run_paid,
    sign,
    training_job,
    version_tags,
    warm_up,
)
from tasks.training.trials import summary


@task(name="cost", **STAGE)
def price(model: str, data: TierData, environment: str, trials: int = 1, *, to_serve: bool = False) -> Costed:
    """Compute what the run may cost at worst, and refuse it when the model's budget does not allow that.

    Args:
        model: the model's name.
        data: the tier that it will train on.
        environment: the set of adapters.
        trials: how many such trainings the run makes.
        to_serve: whether its model may be put into service, and paid for from then on.
    """
    world, brought = open_environment(environment), load_model(model)
    small = is_small(world, brought, data)
    trainer = world.trainer_for(small=small)
    table, now = read_prices(), datetime.now(UTC)
    bill = make_bill(world, brought, trainer, table, now, trials=trials, to_serve=to_serve)
    budget = brought.spec.budget
    where = f"It trains with {type(trainer).__name__}" + (f": {data.train_rows} rows are few." if small else ".")
    create_markdown_artifact(key="cost", markdown=bill_markdown(bill, budget, model, where), description="Worst case")
    check_budget(bill, budget, model)
    get_run_logger().info("at worst this run costs %s", bill.training.words)
    return Costed(
        small=small,
        paid=bill.training.paid,
        worst_usd=bill.training.usd / trials,
        serving_usd_month=bill.serving.usd if bill.serving.paid else None,
        words=bill.training.words,
    )


@task(name="train", **STAGE)
def train(model: str, data: TierData, costed: Costed, parameters: Mapping[str, Value], environment: str) -> Trained:
    """Train on the tier's training rows, register the model as a version, and return it.

    `costed` says what the budget allows and who trains. `parameters` replace those of `model.yaml`, `seed` among them.
    """
    world, brought = open_environment(environment), load_model(model)
    tracking, made_by = world.tracking(), provenance()
    world.signing.signer("models")  # before the work is paid for: a model that nobody signs is never loaded
    chosen = chosen_parameters(brought, parameters)
    run = open_run(tracking, brought, data, made_by, chosen, key=f"{flow_run.id}:train")
    variables = {**tracking.job_environment(run.id), **lineage(data, made_by)}
    job = training_job(brought, data, chosen, variables, name=job_name(model, run.id))
    warming = Thread(target=warm_up, args=(tracking,), daemon=True)
    warming.start()
    trainer = world.trainer_for(small=costed.small)
    done, cost = run_paid(trainer, tracking, run, job, costed, log=get_run_logger().info)
    warming.join()
    tracking.close_run(run.id, "FINISHED")
    tags = version_tags(brought, data, made_by)
    version = tracking.register(model, run.id, key=f"{flow_run.id}:train", tags=tags)
    artifact = tracking.fetch(model, version.version, world.scratch / "models" / model / version.version)
    sign(world, brought, run.id, version.version, artifact)
    return Trained(
        version=version.version,
        run_id=run.id,
        run_url=run.url,
        version_url=version.url,
        artifact=artifact,
        model_digest=folder_digest(artifact),
        parameters={key: value for key, value in chosen.items() if key != "seed"},
        seed=int(chosen["seed"]),
        commit=made_by.commit,
        patch_digest=made_by.patch_digest,
        seconds=done.seconds,
        cost_usd=cost,
        serving_usd_month=costed.serving_usd_month,
    )


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
