"""The gate: no paid work above what the model's budget allows, for a run and for a month."""

from dataclasses import dataclass
from typing import Protocol

from tasks.shared.rules.cost.worst import WorstCaseCost
from tasks.shared.rules.model.namespaces import base_name
from tasks.shared.rules.refusal import Refusal

CHEAPER_TRAINING_REMEDY = "Lower training.max_minutes, take a cheaper instance"


class BudgetLike(Protocol):
    """What a model may spend; `budget` of `model.yaml` is one."""

    @property
    def per_run_usd(self) -> float:
        """At most this much for one run; 0 is none."""

    @property
    def per_month_usd(self) -> float:
        """At most this much in a calendar month (UTC), serving included; 0 is none."""


@dataclass(frozen=True)
class CostBreakdown:
    """What a run may cost at worst, what serving its model would cost a month, and what the month has cost so far."""

    run: WorstCaseCost
    serving: WorstCaseCost
    month_to_date_usd: float

    @property
    def month_usd(self) -> float:
        """What the month would come to at worst."""
        return self.month_to_date_usd + self.run.usd + self.serving.usd


def check_budget(bill: CostBreakdown, budget: BudgetLike, model: str, remedy: str = CHEAPER_TRAINING_REMEDY) -> None:
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
    """Whether work of so many training rows is small: starting a paid instance takes longer than the work."""
    return 0 < rows <= local_rows


def cost_markdown(bill: CostBreakdown, budget: BudgetLike, model: str, where: str) -> str:
    """Return the bill as Markdown; `where` says who trains, in words."""
    rows = [
        ("this run, at worst", bill.run.explanation, f"{budget.per_run_usd:,.2f} USD a run"),
        ("serving, at worst", bill.serving.explanation, ""),
        ("this month so far", f"{bill.month_to_date_usd:,.2f} USD", ""),
        ("this month, at worst", f"{bill.month_usd:,.2f} USD", f"{budget.per_month_usd:,.2f} USD a month"),
    ]
    lines = [f"| {name} | {cost} | {limit} |" for name, cost, limit in rows]
    return "\n".join([f"## Cost of a run of {model}", where, "", "| | cost | budget |", "|---|---|---|", *lines])
