"""Many trials side by side on a sample; the best parameters come out ready for `retrain`."""

from typing import Any, cast

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.parameters import AsOf, Count, EnvironmentName, ModelName, Parallel, Tier
from tasks.expect import expect
from tasks.experiment import conclude, open_parent, open_study, propose, tell, try_out
from tasks.models import load_model
from tasks.records import Trial
from tasks.sample import sample


@flow(
    name="experiment",
    persist_result=True,
    result_serializer="json",
    flow_run_name="{model}, {trials} trials on {tier}",
    task_runner=cast(Any, ThreadPoolTaskRunner(max_workers=16)),
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
        environment: The set of adapters to run on: a file in deployments/environments/.
    """
    brought = load_model(model)
    data = sample(model, tier, as_of, environment)
    expect(model, data)
    study = open_study(brought)
    parent = open_parent(model, data, environment)
    done: list[Trial] = []
    while len(done) < trials:
        batch = [propose(study, brought) for _ in range(min(parallel, trials - len(done)))]
        running = [try_out.submit(model, data, *proposed, parent, environment) for proposed in batch]
        done += [tell(study, future.result()) for future in running]
    return conclude(model, data, done, parent, environment)
