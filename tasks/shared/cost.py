"""Cost of paid work: the worst case before a run starts, and the logged cost of its jobs."""

from datetime import datetime
from pathlib import Path

from prefect import get_run_logger
from prefect.runtime import flow_run

from blocks.batch_inference.base import BatchInference, BatchInferenceJob
from blocks.common.errors import NotFound, PortError
from blocks.common.jobs import JobStatus
from blocks.environment import Environment
from blocks.records.tracking import TrackingRun
from blocks.tracking.base import Tracking
from blocks.trainers.base import Trainer, TrainingJob
from tasks.shared.models import TeamModel, model_with_namespaces
from tasks.shared.records import CostEstimate, TierData
from tasks.shared.rules.cost.budget import (
    CostBreakdown,
    WorstCaseCost,
    is_local_work,
    job_worst_case,
    serving_worst_case,
)
from tasks.shared.rules.cost.prices import InstanceUse, PriceTable, parse_prices
from tasks.shared.rules.cost.spent import (
    BILLED_SECONDS_METRIC,
    COST_METRIC,
    FAILED_COST_METRIC,
    WORST_CASE_TAG,
    actual_cost,
    month_to_date_cost,
)
from tasks.shared.rules.refusal import Refusal

PRICE_TABLE_PATH = Path(__file__).resolve().parent / "rules" / "cost" / "prices.yaml"
NOT_SERVED = WorstCaseCost(0.0, "none: the run deploys no model", is_paid=False)


def uses_local_trainer(env: Environment, model: TeamModel, data: TierData) -> bool:
    """Return whether the environment has a local trainer and the training rows are within `budget.local_rows`."""
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
    """Return the worst case of the run and of serving, and the month-to-date cost of the model in all its namespaces.

    All namespaces of a model share one budget.

    Raises:
        Refusal: a paid instance type has no price.
    """
    name = model.spec.name
    training = job_worst_case(price_table, "training", trainer.compute(max_seconds(model)), now.date(), trials)
    serving = (
        serving_worst_case(price_table, env.endpoint().compute(name), now.date()) if include_serving else NOT_SERVED
    )
    if not (training.is_paid or serving.is_paid):
        return CostBreakdown(training, serving, 0.0)  # nothing is paid, so the month does not matter
    return CostBreakdown(training, serving, model_month_to_date_cost(env, name, now))


def estimate_of_bill(bill: CostBreakdown, trials: int, *, use_local_trainer: bool) -> CostEstimate:
    """Return what a run of so many trainings may cost, as it is handed to those who train and ask for approval."""
    return CostEstimate(
        use_local_trainer=use_local_trainer,
        is_paid=bill.run.is_paid,
        worst_case_usd=bill.run.usd / trials,
        serving_usd_month=bill.serving.usd if bill.serving.is_paid else None,
        explanation=bill.run.explanation,
    )


def model_month_to_date_cost(env: Environment, model: str, now: datetime) -> float:
    """Return the cost of this month's runs of the model in all its namespaces, without those of this flow run."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    own = str(flow_run.id or "none")
    runs = [run for each in model_with_namespaces(env, model) for run in env.tracking().runs(each, since=first)]
    return month_to_date_cost([run for run in runs if run.tags.get("ratchet.flow_run") != own], now)


def max_seconds(model: TeamModel) -> int:
    """Return the time limit of a training of the model in seconds."""
    return max(1, int(model.spec.training.max_minutes * 60))


def read_prices(path: Path = PRICE_TABLE_PATH) -> PriceTable:
    """Return the price table of this checkout. Raises Refusal when it cannot be read."""
    return parse_prices(path.read_bytes(), path.name)


def log_worst_case(tracking: Tracking, run: TrackingRun, cost_estimate: CostEstimate) -> None:
    """Log the worst case of a run before it starts. It counts against the budget until the cost is logged."""
    if cost_estimate.is_paid:
        tracking.log(run.id, tags={WORST_CASE_TAG: f"{cost_estimate.worst_case_usd:.6f}"})


def log_job_cost(
    tracking: Tracking, run_id: str, machines: Trainer | BatchInference, job: TrainingJob | BatchInferenceJob
) -> float | None:
    """Log the cost of a job to its run. Return the cost of the run so far in US dollars; None while the job runs.

    Failed attempts are paid, too: they stay in the sum when a later attempt succeeds.

    Raises:
        Refusal: the job's price is unknown; its worst case counts.
    """
    use: InstanceUse = "transform" if isinstance(job, BatchInferenceJob) else "training"
    try:
        job_state = machines.state(job.name)
    except NotFound:  # the job was refused before it began, so nothing is billed
        usd, seconds, failed = 0.0, 0.0, True
    else:
        if job_state.status is JobStatus.in_progress:
            return None
        usd, seconds = actual_cost(read_prices(), machines.compute(job.max_seconds), job_state, use)
        failed = job_state.status is not JobStatus.completed
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


def try_log_job_cost(
    tracking: Tracking, run_id: str, machines: Trainer | BatchInference, job: TrainingJob | BatchInferenceJob
) -> float | None:
    """Call `log_job_cost`. On failure log a warning and return None: the worst case keeps counting."""
    try:
        return log_job_cost(tracking, run_id, machines, job)
    except (PortError, Refusal) as problem:
        get_run_logger().warning(
            "the cost of run %s is unknown, so its worst case counts against the budget: %s", run_id, problem
        )
        return None
