"""Price a run before anything is paid: the worst case against the model's budget, and where the work is done."""

from datetime import datetime
from pathlib import Path

from prefect import get_run_logger
from prefect.runtime import flow_run

from blocks.common.errors import NotFound, PortError
from blocks.common.jobs import JobStatus
from blocks.environment import Environment
from blocks.tracking.base import Run, Tracking
from blocks.trainers.base import JobState, Trainer, TrainingJob
from tasks.shared.models import Model
from tasks.shared.namespaces import family
from tasks.shared.records import Costed, TierData
from tasks.shared.rules.cost.budget import Bill, stays_here
from tasks.shared.rules.cost.prices import PriceTable, parse_prices
from tasks.shared.rules.cost.spent import BILLED, COST, FAILED, WORST, actual_cost, month_to_date
from tasks.shared.rules.cost.worst import Estimate, serving_worst, training_worst
from tasks.shared.rules.refusal import Refusal

PRICES = Path(__file__).resolve().parent / "rules" / "cost" / "prices.yaml"
UNPAID = Estimate(0.0, "none: nothing of it is served", paid=False)


def is_small(world: Environment, model: Model, data: TierData) -> bool:
    """Whether the environment has a trainer for small work, and this is small by the model's own rule."""
    return world.has_small_trainer and stays_here(data.train_rows, model.spec.budget.local_rows)


def make_bill(
    world: Environment,
    model: Model,
    trainer: Trainer,
    table: PriceTable,
    now: datetime,
    *,
    trials: int = 1,
    to_serve: bool = False,
) -> Bill:
    """Return what the run may cost, what serving would cost, and what the model's runs of this month cost.

    Those of all its namespaces count: another namespace is no other budget.

    Raises:
        Refusal: something that would be paid for has no price.
    """
    name = model.spec.name
    training = training_worst(table, trainer.compute(max_seconds(model)), now.date(), times=trials)
    serving = serving_worst(table, world.endpoint().hosting(name), now.date()) if to_serve else UNPAID
    if not (training.paid or serving.paid):
        return Bill(training, serving, 0.0)  # nothing is paid, so nobody is asked
    return Bill(training, serving, month_so_far(world, name, now))


def month_so_far(world: Environment, model: str, now: datetime) -> float:
    """Return what the runs of the model in all its namespaces cost this month, those of this flow run apart."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    own = str(flow_run.id or "none")
    runs = [run for each in family(world, model) for run in world.tracking().runs(each, since=first)]
    return month_to_date([run for run in runs if run.tags.get("ratchet.flow_run") != own], now)


def max_seconds(model: Model) -> int:
    """Return how long a training of the model may take, in seconds."""
    return max(1, int(model.spec.training.max_minutes * 60))


def read_prices(path: Path = PRICES) -> PriceTable:
    """Return the price table of this checkout. Raises Refusal when it cannot be read."""
    return parse_prices(path.read_bytes(), path.name)


def reserve(tracking: Tracking, run: Run, costed: Costed) -> None:
    """Write down what a run may cost before it starts: until it says what it did, it counts with that."""
    if costed.paid:
        tracking.log(run.id, tags={WORST: f"{costed.worst_usd:.6f}"})


def settle(tracking: Tracking, run_id: str, trainer: Trainer, job: TrainingJob) -> float | None:
    """Log what a job cost to its run; return what the run has cost so far in US dollars, None while the job runs on.

    An attempt that failed was paid as well: it stays in the sum when a later one succeeds.

    Raises:
        Refusal: the job's price is not known; the run counts with its worst case.
    """
    try:
        ended = trainer.state(job.name)
    except NotFound:  # it was refused before it began: nothing runs that could be billed
        ended = JobState(job.name, JobStatus.failed, billable_seconds=0.0)
    if ended.status is JobStatus.in_progress:
        return None
    usd, seconds = actual_cost(read_prices(), trainer.compute(job.max_seconds), ended)
    return log_cost(tracking, run_id, usd, seconds, failed=ended.status is not JobStatus.completed)


def log_cost(tracking: Tracking, run_id: str, usd: float, seconds: float, *, failed: bool) -> float:
    """Log what an attempt cost on top of those that failed before it; return what the run has cost so far."""
    so_far = tracking.run(run_id).metrics.get(FAILED, 0.0) + usd
    tracking.log(run_id, metrics={COST: so_far, BILLED: seconds, **({FAILED: so_far} if failed else {})})
    return so_far


def settle_quietly(tracking: Tracking, run_id: str, trainer: Trainer, job: TrainingJob) -> float | None:
    """Do as `settle`; where that fails warn and return None: the run goes on counting with its worst case."""
    try:
        return settle(tracking, run_id, trainer, job)
    except (PortError, Refusal) as problem:
        get_run_logger().warning("what run %s cost is not known, so it counts with its worst case: %s", run_id, problem)
        return None
