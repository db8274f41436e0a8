"""Price a run before anything is paid: the worst case against the model's budget, and where the work is done."""

from datetime import datetime
from pathlib import Path

from prefect import get_run_logger
from prefect.runtime import flow_run

from blocks.common.errors import NotFound, PortError
from blocks.common.jobs import JobStatus
from blocks.environment import Environment
from blocks.tracking.base import Tracking, TrackingRun
from blocks.trainers.base import Trainer, TrainingJob, TrainingJobState
from tasks.shared.models import TeamModel
from tasks.shared.namespaces import model_with_namespaces
from tasks.shared.records import CostEstimate, TierData
from tasks.shared.rules.cost.budget import CostBreakdown, is_local_work
from tasks.shared.rules.cost.prices import PriceTable, parse_prices
from tasks.shared.rules.cost.spent import (
    BILLED_SECONDS_METRIC,
    COST_METRIC,
    FAILED_COST_METRIC,
    WORST_CASE_TAG,
    actual_cost,
    month_to_date_cost,
)
from tasks.shared.rules.cost.worst import WorstCaseCost, serving_worst_case, training_worst_case
from tasks.shared.rules.refusal import Refusal

PRICE_TABLE_PATH = Path(__file__).resolve().parent / "rules" / "cost" / "prices.yaml"
NOT_SERVED = WorstCaseCost(0.0, "none: nothing of it is served", is_paid=False)


def uses_local_trainer(env: Environment, model: TeamModel, data: TierData) -> bool:
    """Whether the environment has a trainer for small work, and this is small by the model's own rule."""
    return env.has_small_trainer and is_local_work(data.train_rows, model.spec.budget.local_rows)


def worst_case_costs(
    env: Environment,
    model: TeamModel,
    trainer: Trainer,
    price_table: PriceTable,
    now: datetime,
    *,
    trials: int = 1,
    include_serving: bool = False,
) -> CostBreakdown:
    """Return what the run may cost, what serving would cost, and what the model's runs of this month cost.

    Those of all its namespaces count: another namespace is no other budget.

    Raises:
        Refusal: something that would be paid for has no price.
    """
    name = model.spec.name
    training = training_worst_case(price_table, trainer.compute(max_seconds(model)), now.date(), times=trials)
    serving = (
        serving_worst_case(price_table, env.endpoint().compute(name), now.date()) if include_serving else NOT_SERVED
    )
    if not (training.is_paid or serving.is_paid):
        return CostBreakdown(training, serving, 0.0)  # nothing is paid, so nobody is asked
    return CostBreakdown(training, serving, model_month_to_date_cost(env, name, now))


def model_month_to_date_cost(env: Environment, model: str, now: datetime) -> float:
    """Return what the runs of the model in all its namespaces cost this month, those of this flow run apart."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    own = str(flow_run.id or "none")
    runs = [run for each in model_with_namespaces(env, model) for run in env.tracking().runs(each, since=first)]
    return month_to_date_cost([run for run in runs if run.tags.get("ratchet.flow_run") != own], now)


def max_seconds(model: TeamModel) -> int:
    """Return how long a training of the model may take, in seconds."""
    return max(1, int(model.spec.training.max_minutes * 60))


def read_prices(path: Path = PRICE_TABLE_PATH) -> PriceTable:
    """Return the price table of this checkout. Raises Refusal when it cannot be read."""
    return parse_prices(path.read_bytes(), path.name)


def log_worst_case(tracking: Tracking, run: TrackingRun, cost_estimate: CostEstimate) -> None:
    """Write down what a run may cost before it starts: until it says what it did, it counts with that."""
    if cost_estimate.is_paid:
        tracking.log(run.id, tags={WORST_CASE_TAG: f"{cost_estimate.worst_case_usd:.6f}"})


def log_job_cost(tracking: Tracking, run_id: str, trainer: Trainer, job: TrainingJob) -> float | None:
    """Log what a job cost to its run; return what the run has cost so far in US dollars, None while the job runs on.

    An attempt that failed was paid as well: it stays in the sum when a later one succeeds.

    Raises:
        Refusal: the job's price is not known; the run counts with its worst case.
    """
    try:
        job_state = trainer.state(job.name)
    except NotFound:  # it was refused before it began: nothing runs that could be billed
        job_state = TrainingJobState(job.name, JobStatus.failed, billable_seconds=0.0)
    if job_state.status is JobStatus.in_progress:
        return None
    usd, seconds = actual_cost(read_prices(), trainer.compute(job.max_seconds), job_state)
    return log_attempt_cost(tracking, run_id, usd, seconds, failed=job_state.status is not JobStatus.completed)


def log_attempt_cost(tracking: Tracking, run_id: str, usd: float, seconds: float, *, failed: bool) -> float:
    """Log what an attempt cost on top of those that failed before it; return what the run has cost so far."""
    so_far = tracking.run(run_id).metrics.get(FAILED_COST_METRIC, 0.0) + usd
    tracking.log(
        run_id,
        metrics={
            COST_METRIC: so_far,
            BILLED_SECONDS_METRIC: seconds,
            **({FAILED_COST_METRIC: so_far} if failed else {}),
        },
    )
    return so_far


def try_log_job_cost(tracking: Tracking, run_id: str, trainer: Trainer, job: TrainingJob) -> float | None:
    """Do as `settle`; where that fails warn and return None: the run goes on counting with its worst case."""
    try:
        return log_job_cost(tracking, run_id, trainer, job)
    except (PortError, Refusal) as problem:
        get_run_logger().warning("what run %s cost is not known, so it counts with its worst case: %s", run_id, problem)
        return None
