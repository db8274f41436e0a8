"""Prefect tasks of training: estimate the cost, train a challenger, and run the trials of an experiment."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from blocks.environment import open_environment
from tasks.shared.cost import estimate_of_bill, read_prices, uses_local_trainer, worst_case_costs
from tasks.shared.models import code_provenance, load_model
from tasks.shared.records import CostEstimate, TierData, TrainingResult, Trial
from tasks.shared.reports import create_markdown_artifact
from tasks.shared.retries import TASK_OPTIONS
from tasks.shared.rules.cost.budget import check_budget, cost_markdown
from tasks.training.jobs import ParameterValue, open_training_run, resolve_hyperparameters, train_and_register
from tasks.training.trials import close_experiment, experiment_markdown, train_trial


@task(name="estimate cost", **TASK_OPTIONS)
def estimate_cost(
    model: str, data: TierData, environment: str, trials: int = 1, *, include_serving: bool = False
) -> CostEstimate:
    """Estimate the worst-case cost of the run, and refuse the run when it exceeds the model's budget.

    `trials` is how many trainings the run makes. `include_serving` says whether this run may deploy the model, which
    costs money from then on.
    """
    env, team_model = open_environment(environment), load_model(model)
    small = uses_local_trainer(env, team_model, data)
    trainer = env.trainer_for(small=small)
    price_table, now = read_prices(), datetime.now(UTC)
    costs = worst_case_costs(env, team_model, trainer, price_table, now, trials=trials, include_serving=include_serving)
    budget = team_model.spec.budget
    few = f": {data.train_rows} rows are few enough for the local trainer." if small else "."
    trainer_text = f"It trains with {type(trainer).__name__}{few}"
    create_markdown_artifact(
        key="cost", markdown=cost_markdown(costs, budget, model, trainer_text), description="Worst case"
    )
    check_budget(costs, budget, model)
    get_run_logger().info("worst case of this run: %s", costs.run.explanation)
    return estimate_of_bill(costs, trials, use_local_trainer=small)


@task(name="train", **TASK_OPTIONS)
def train(
    model: str, data: TierData, cost_estimate: CostEstimate, parameters: Mapping[str, ParameterValue], environment: str
) -> TrainingResult:
    """Train on the tier's training rows, register the model as a version, and return it.

    `cost_estimate` says which trainer is used. `parameters` override those of `model.yaml`, the seed included.
    """
    env, team_model = open_environment(environment), load_model(model)
    key, log = f"{flow_run.id}:train", get_run_logger().info
    return train_and_register(env, team_model, data, cost_estimate, parameters, key=key, log=log)


@task(name="open experiment", **TASK_OPTIONS)
def open_experiment_run(model: str, data: TierData, environment: str) -> str:
    """Open the parent run of all trials, and return its id."""
    env, team_model = open_environment(environment), load_model(model)
    chosen, key = resolve_hyperparameters(team_model, {}), f"{flow_run.id}:experiment"
    return open_training_run(env.tracking(), team_model, data, code_provenance(), chosen, key=key).id


@task(name="run trial", task_run_name="trial {number}", **TASK_OPTIONS)
def run_trial(
    model: str,
    data: TierData,
    cost_estimate: CostEstimate,
    number: int,
    parameters: dict[str, ParameterValue],
    parent: str,
    environment: str,
) -> Trial:
    """Train one trial on the training rows, and return its validation metric, or the reason of its failure."""
    env, team_model = open_environment(environment), load_model(model)
    key, log = f"{flow_run.id}:trial:{number}", get_run_logger().debug
    return train_trial(env, team_model, data, cost_estimate, number, parameters, parent=parent, key=key, log=log)


@task(name="conclude experiment", **TASK_OPTIONS)
def conclude_experiment(
    model: str, data: TierData, trials: Sequence[Trial], experiment_run_id: str, environment: str
) -> Trial:
    """Close the experiment and show its best trial, ready to paste or to hand to `retrain`.

    Raises:
        Refusal: no trial ended with a finite metric.
    """
    env, team_model = open_environment(environment), load_model(model)
    ranked = close_experiment(env.tracking(), team_model, trials, experiment_run_id)
    metric = team_model.spec.evaluation.comparison.metric
    markdown = experiment_markdown(model, data, ranked, len(trials), metric)
    create_markdown_artifact(key="experiment", markdown=markdown)
    return ranked[0]
