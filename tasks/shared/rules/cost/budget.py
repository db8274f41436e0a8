"""The budget check: the worst case of paid work, and its refusal above the budget of a run or a month."""

import math
from dataclasses import dataclass
from datetime import date

from blocks.records.compute import Compute, EndpointCompute
from runtime.foreign_text import Markdown, markdown_table
from tasks.shared.rules.cost.prices import InstanceUse, PriceTable, hourly_price
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.model.parts import BudgetSpec
from tasks.shared.rules.refusal import Refusal

SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class WorstCaseCost:
    """A worst case in US dollars with its explanation. `is_paid` is False for work on this machine."""

    usd: float
    explanation: str
    is_paid: bool


def job_worst_case(
    price_table: PriceTable, use: InstanceUse, job: Compute, today: date, count: int = 1
) -> WorstCaseCost:
    """Return the worst case of `count` such jobs: price x instances x (longest time + warm pool).

    Raises:
        Refusal: an instance type has no price, or time, instances or warm pool are not limited.
    """
    if not job.instance_types:
        return WorstCaseCost(0.0, "0.00 USD: it runs on this machine", is_paid=False)
    _refuse_unlimited(job, count)
    price, most_expensive_type = max(
        (hourly_price(price_table, use, job.region, kind, today), kind) for kind in job.instance_types
    )
    seconds = job.max_seconds + job.keep_alive_seconds
    usd = price * job.instance_count * seconds / SECONDS_PER_HOUR * count
    warm = f" + {job.keep_alive_seconds} s of warm pool" if job.keep_alive_seconds else ""
    jobs = f"{count} jobs x " if count > 1 else ""
    instances = f"{jobs}{job.instance_count} x {most_expensive_type}"
    explanation = f"{usd:,.2f} USD: {instances} at {price:g} USD an hour for {job.max_seconds} s{warm}"
    return WorstCaseCost(usd, explanation, is_paid=True)


def serving_worst_case(price_table: PriceTable, served: EndpointCompute, today: date) -> WorstCaseCost:
    """Return the worst case of serving for a month. Raises Refusal as `job_worst_case`."""
    if not served.instance_type:
        return WorstCaseCost(0.0, "0.00 USD a month: the endpoint runs on this machine", is_paid=False)
    if served.instance_count < 1 or not (math.isfinite(served.hours_per_month) and served.hours_per_month > 0):
        value = f"{served.instance_count} instances, {served.hours_per_month} hours"
        raise Refusal(
            "serving without a limit has no worst case", value=value, remedy="Correct the endpoint's settings."
        )
    price = hourly_price(price_table, "hosting", served.region, served.instance_type, today)
    usd = price * served.instance_count * served.hours_per_month
    instances = f"{served.instance_count} x {served.instance_type}"
    explanation = f"{instances} at {price:g} USD an hour for {served.hours_per_month:g} hours"
    return WorstCaseCost(usd, f"{usd:,.2f} USD a month: {explanation}", is_paid=True)


def _refuse_unlimited(job: Compute, times: int) -> None:
    if job.max_seconds <= 0 or job.instance_count < 1 or job.keep_alive_seconds < 0 or times < 1:
        seconds = f"{job.max_seconds} s, {job.keep_alive_seconds} s of warm pool"
        value = f"{times} jobs of {job.instance_count} instances, {seconds}"
        raise Refusal("work without a limit has no worst case", value=value, remedy="Correct the trainer's settings.")


CHEAPER_TRAINING_REMEDY = "Lower training.max_minutes, take a cheaper instance"


@dataclass(frozen=True)
class CostBreakdown:
    """The worst case of a run, that of serving its model for a month, and the month-to-date cost."""

    run: WorstCaseCost
    serving: WorstCaseCost
    month_to_date_usd: float

    @property
    def month_usd(self) -> float:
        """What the month would come to at worst."""
        return self.month_to_date_usd + self.run.usd + self.serving.usd


def check_budget(bill: CostBreakdown, budget: BudgetSpec, model: str, remedy: str = CHEAPER_TRAINING_REMEDY) -> None:
    """Let the work through, or refuse it before anything is paid. Work on this machine is always let through.

    `remedy` says how the work would cost less.

    Raises:
        Refusal: the run or the month would go above the budget; the message has both figures.
    """
    where = f"budget in models/{base_name(model)}/model.yaml"
    if bill.run.is_paid and not bill.run.usd <= budget.per_run_usd:
        problem = f"this run may cost {bill.run.explanation}; the budget is {budget.per_run_usd:,.2f} USD a run"
        raise Refusal(problem, where=f"{where}, per_run_usd", remedy=_budget_remedy(remedy, bill.run.usd))
    if (bill.run.is_paid or bill.serving.is_paid) and not bill.month_usd <= budget.per_month_usd:
        parts = f"so far {bill.month_to_date_usd:,.2f} + this run {bill.run.usd:,.2f}"
        parts += f" + serving {bill.serving.usd:,.2f}"
        problem = f"the month may come to {bill.month_usd:,.2f} USD ({parts})"
        problem += f"; the budget is {budget.per_month_usd:,.2f} USD a month"
        raise Refusal(problem, where=f"{where}, per_month_usd", remedy=_budget_remedy(remedy, bill.month_usd))


def _budget_remedy(cheaper: str, needed: float) -> str:
    return f"{cheaper}, or have the owner allow {needed:,.2f} USD there."


def is_local_work(rows: int, local_rows: int) -> bool:
    """Return whether so few training rows run on the local trainer, where they need no paid instance."""
    return 0 < rows <= local_rows


def cost_markdown(bill: CostBreakdown, budget: BudgetSpec, model: str, where: str) -> Markdown:
    """Return the costs as Markdown; `where` is a sentence about the trainer."""
    rows = [
        ("this run, at worst", bill.run.explanation, f"{budget.per_run_usd:,.2f} USD a run"),
        ("serving, at worst", bill.serving.explanation, ""),
        ("this month so far", f"{bill.month_to_date_usd:,.2f} USD", ""),
        ("this month, at worst", f"{bill.month_usd:,.2f} USD", f"{budget.per_month_usd:,.2f} USD a month"),
    ]
    table = markdown_table(("", "cost", "budget"), rows)
    return Markdown("## Cost of a run of {}\n{}\n\n{}").format(model, where, table)
