"""Run hyperparameter trials in parallel on a sample, and return the best parameters for `retrain`."""

from prefect import flow

from blocks.environment import open_environment
from flows.authorization import authorize_run
from flows.options import FLOW_OPTIONS, end_order
from flows.parameters import AsOf, Count, DataTier, EnvironmentName, ModelName, OrderId, Parallel
from flows.stopping import stop_training_jobs
from tasks.sampling.tasks import sample
from tasks.shared.models import load_model
from tasks.shared.records import Trial
from tasks.training.tasks import conclude_experiment, estimate_cost, open_experiment_run, run_trial
from tasks.training.trials import open_study, report_trial, suggest_trial, trial_task_runner
from tasks.validation.tasks import validate


@flow(
    name="experiment",
    flow_run_name="{model}, {trials} trials on {tier}",
    **FLOW_OPTIONS
    | {"on_cancellation": [stop_training_jobs, end_order], "on_crashed": [stop_training_jobs, end_order]},
)
def experiment(
    model: ModelName,
    trials: Count = 10,
    parallel: Parallel = 2,
    tier: DataTier = "development",
    as_of: AsOf = "",
    environment: EnvironmentName = "local",
    order: OrderId = "",
) -> Trial:
    """Try hyperparameters from the ranges of model.yaml (Optuna) and return the best trial.

    Args:
        model: The model's name: a folder below models/.
        trials: How many sets of parameters to try.
        parallel: How many trials run in parallel.
        tier: Which data tier the trials train on. No trial can read the holdout, on any tier.
        as_of: A snapshot's id, or a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        environment: The set of adapters to run on: a file in deployments/environments/. Its `task_runner` says
            where trials run: threads of this process, or the workers of a Dask cluster.
        order: The signed order of whoever starts the run, made by the gateway (docs/actions.md). Empty: nobody proved
            a name.
    """
    authorize_run("experiment", model, environment, order)
    team_model = load_model(model)
    data = sample(model, tier, as_of, environment)
    validate(model, data, environment)
    cost_estimate = estimate_cost(model, data, environment, trials)
    study = open_study(team_model)
    experiment_run_id = open_experiment_run(model, data, environment)
    arguments = {"model": model, "data": data, "cost_estimate": cost_estimate, "environment": environment}
    finished_trials: list[Trial] = []
    with trial_task_runner(open_environment(environment), parallel) as runner:
        while len(finished_trials) < trials:
            batch = [suggest_trial(study, team_model) for _ in range(min(parallel, trials - len(finished_trials)))]
            futures = [
                runner.submit(
                    run_trial, {**arguments, "number": number, "parameters": parameters, "parent": experiment_run_id}
                )
                for number, parameters in batch
            ]
            finished_trials += [report_trial(study, future.result()) for future in futures]
    return conclude_experiment(model, data, finished_trials, experiment_run_id, environment)
