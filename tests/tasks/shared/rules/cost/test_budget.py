"""The budget: the worst case is price x instances x time; work above the budget, or without a price, is refused."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.records.compute import Compute, EndpointCompute
from tasks.shared.rules.cost.budget import (
    CostBreakdown,
    WorstCaseCost,
    check_budget,
    cost_markdown,
    is_local_work,
    job_worst_case,
    serving_worst_case,
)
from tasks.shared.rules.model.parts import BudgetSpec
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.cost_breakdowns import PAID
from tests.fixtures.price_table import TABLE, TODAY

SERVED = EndpointCompute("ml.m5.large", "eu-central-1", instance_count=2)
HERE = WorstCaseCost(0.0, "0.00 USD: here", is_paid=False)


def bill(training: float, serving: float = 0.0, so_far: float = 0.0) -> CostBreakdown:
    return CostBreakdown(WorstCaseCost(training, f"{training:.2f} USD: 1 x ml.m5.large", is_paid=True),
                WorstCaseCost(serving, "serving", is_paid=serving > 0), so_far)  # fmt: skip


def test_work_on_this_machine_costs_nothing_and_says_so() -> None:
    estimate = job_worst_case(TABLE, "training", Compute(max_seconds=600), TODAY)
    assert (estimate.usd, estimate.is_paid) == (0.0, False) and "this machine" in estimate.explanation
    assert "this machine" in serving_worst_case(TABLE, EndpointCompute(), TODAY).explanation


def test_a_job_costs_price_times_instances_times_its_longest_time() -> None:
    estimate = job_worst_case(TABLE, "training", PAID, TODAY)
    assert estimate.usd == pytest.approx(0.138 * 2 * 0.5)
    assert estimate.explanation == "0.14 USD: 2 x ml.m5.large at 0.138 USD an hour for 1800 s"


def test_the_warm_pool_and_each_trial_are_paid_too() -> None:
    estimate = job_worst_case(TABLE, "training", replace(PAID, keep_alive_seconds=1800), TODAY, count=10)
    assert estimate.usd == pytest.approx(0.138 * 2 * 1.0 * 10)
    assert "10 jobs" in estimate.explanation and "1800 s of warm pool" in estimate.explanation


def test_of_several_types_the_dearest_counts_and_each_needs_a_price() -> None:
    either = replace(PAID, instance_types=("ml.m5.large", "ml.m5.xlarge"))
    assert job_worst_case(TABLE, "training", either, TODAY).usd == pytest.approx(0.276)
    with pytest.raises(Refusal, match="ml.p9.large"):
        job_worst_case(TABLE, "training", replace(PAID, instance_types=("ml.m5.large", "ml.p9.large")), TODAY)


def test_spot_is_not_cheaper_at_worst() -> None:
    assert job_worst_case(TABLE, "training", replace(PAID, spot=True), TODAY) == job_worst_case(
        TABLE, "training", PAID, TODAY
    )


@pytest.mark.parametrize("wrong", [{"max_seconds": 0}, {"instance_count": 0}, {"keep_alive_seconds": -1}], ids=str)
def test_work_without_a_limit_has_no_worst_case(wrong: dict[str, int]) -> None:
    with pytest.raises(Refusal, match="no worst case"):
        job_worst_case(TABLE, "training", replace(PAID, **wrong), TODAY)


def test_serving_costs_its_hours_of_a_month() -> None:
    assert serving_worst_case(TABLE, SERVED, TODAY).usd == pytest.approx(0.1 * 2 * 730)
    assert serving_worst_case(TABLE, replace(SERVED, hours_per_month=10.0), TODAY).usd == pytest.approx(2.0)


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_serving_for_no_known_time_is_refused(hours: float) -> None:
    with pytest.raises(Refusal, match="no worst case"):
        serving_worst_case(TABLE, replace(SERVED, hours_per_month=hours), TODAY)


def test_without_a_budget_nothing_paid_is_done() -> None:
    with pytest.raises(Refusal, match=r"0\.14 USD.*budget is 0\.00 USD a run"):
        check_budget(bill(0.14), BudgetSpec(), "churn")


def test_a_run_above_its_budget_is_refused_with_both_figures_and_the_remedy() -> None:
    told = r"models/churn/model\.yaml, per_run_usd.*may cost 5\.01 USD.*budget is 5\.00 USD.*max_minutes.*allow 5\.01"
    with pytest.raises(Refusal, match=told):
        check_budget(bill(5.01), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn")
    check_budget(bill(5.0), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn")


def test_a_month_above_its_budget_is_refused_with_its_parts() -> None:
    told = (
        r"per_month_usd.*come to 101\.00 USD \(so far 10\.00 \+ this run 1\.00 \+ serving 90\.00\).*100\.00 USD a month"
    )
    with pytest.raises(Refusal, match=told):
        check_budget(bill(1.0, 90.0, 10.0), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn")
    check_budget(bill(1.0, 90.0, 9.0), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn")


def test_serving_is_refused_even_when_training_is_free() -> None:
    with pytest.raises(Refusal, match="serving 90"):
        check_budget(CostBreakdown(HERE, WorstCaseCost(90.0, "serving", is_paid=True), 0.0), BudgetSpec(), "churn")


def test_a_cost_that_is_no_number_is_refused() -> None:
    with pytest.raises(Refusal):
        check_budget(bill(float("nan")), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn")
    with pytest.raises(Refusal):
        check_budget(bill(1.0, so_far=float("nan")), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn")


def test_free_work_is_let_through_without_a_budget() -> None:
    """The check must not raise."""
    check_budget(CostBreakdown(HERE, HERE, 1e9), BudgetSpec(), "churn")


money = st.floats(0, 1e6)


@given(money, money, money, money, money)
def test_whatever_is_let_through_is_within_both_budgets(
    training: float, serving: float, so_far: float, run: float, month: float
) -> None:
    budget = BudgetSpec(per_run_usd=min(run, month), per_month_usd=month)
    made = bill(training, serving, so_far)
    try:
        check_budget(made, budget, "churn")
    except Refusal:
        assert training > budget.per_run_usd or made.month_usd > month
    else:
        assert training <= budget.per_run_usd and so_far + training + serving <= month


@pytest.mark.parametrize(("rows", "limit", "small"), [(10, 10, True), (11, 10, False), (10, 0, False), (0, 10, False)])
def test_small_work_stays_here(rows: int, limit: int, small: bool) -> None:
    assert is_local_work(rows, limit) is small


def test_the_bill_shows_cost_beside_budget() -> None:
    page = cost_markdown(
        bill(1.0, 90.0, 9.0), BudgetSpec(per_run_usd=5.0, per_month_usd=100.0), "churn", "It trains there."
    )
    assert "| this month, at worst | 100.00 USD | 100.00 USD a month |" in page
    assert "| this run, at worst | 1.00 USD: 1 x ml.m5.large | 5.00 USD a run |" in page
