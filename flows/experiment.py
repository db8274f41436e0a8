"""Many trials side by side on a sample; the best parameters come out ready for `retrain`."""

from prefect import flow

from flows.parameters import AsOf, Count, EnvironmentName, ModelName, Parallel, Tier
from flows.run_log import keep_log
from flows.stopping import stop_training
from tasks.sampling.tasks import sample
from tasks.shared.models import load_model
from tasks.shared.records import Trial
from tasks.training.runners import trial_runner
from tasks.training.tasks import conclude, open_parent, price, try_out
from tasks.training.trials import given, open_study, propose, tell
from tasks.validation.tasks import expect


@flow(
    name="experiment",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{model}, {trials} trials on {tier}",
    on_cancellation=[stop_training],
    on_crashed=[stop_training],
    on_running=[keep_log],
)
def experiment(
    model: ModelName,
    trials: Count = 10,
    parallel: Parallel = 2,
    tier: Tier = "development",
    as_of: AsOf = "",
    environment: EnvironmentName = "local",
) -> Trial:
    """Try hyperparameters from the ranges of model.yaml (Optuna) and return the best trial.

    Args:
        model: The model's name: a folder below models/.
        trials: How many sets of parameters to try.
        parallel: How many trials run side by side.
        tier: How much of the data the trials train on. The holdout is out of their reach on every tier.
        as_of: A snapshot's id, or a time with its zone such as 2026-11-21T10:00:00Z. Empty is now.
        environment: The set of adapters to run on: a file in deployments/environments/. Its `task_runner` says
            where trials run: threads of this process, or the workers of a Dask cluster.
    """
    brought = load_model(model)
    data = sample(model, tier, as_of, environment)
    expect(model, data, environment)
    costed = price(model, data, environment, trials)
    study = open_study(brought)
    parent = open_parent(model, data, environment)
    done: list[Trial] = []
    with trial_runner(environment, parallel) as runner:
        while len(done) < trials:
            batch = [propose(study, brought) for _ in range(min(parallel, trials - len(done)))]
            running = [runner.submit(try_out, given(model, data, costed, *each, parent, environment)) for each in batch]
            done += [tell(study, future.result()) for future in running]
    return conclude(model, data, done, parent, environment)
