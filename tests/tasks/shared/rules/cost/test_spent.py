"""Cost by month: the sum of logged costs, and the worst case of runs without one."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from blocks.common.jobs import JobStatus
from blocks.trainers.base import TrainingJobState
from tasks.shared.rules.cost.spent import (
    COST_METRIC,
    FAILED_COST_METRIC,
    WORST_CASE_TAG,
    MonthlyCost,
    actual_cost,
    charged_cost,
    month_to_date_cost,
    monthly_costs,
)
from tasks.shared.rules.refusal import Refusal
from tests.fixtures.cost_breakdowns import PAID
from tests.fixtures.price_table import TABLE


@dataclass(frozen=True)
class Seen:
    """A tracked run."""

    started: datetime | None = datetime(2026, 11, 3, tzinfo=UTC)
    status: str = "FINISHED"
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


def ended(**more: object) -> TrainingJobState:
    return TrainingJobState("churn-1", JobStatus.completed, 600.0, **more)


CHARGES = {
    "its cost": (Seen(metrics={COST_METRIC: 1.5}, tags={WORST_CASE_TAG: "9"}), 1.5),
    "its worst case when it died unsaid": (Seen(status="FAILED", tags={WORST_CASE_TAG: "9"}), 9.0),
    "its worst case while it runs again": (Seen(status="RUNNING", metrics={COST_METRIC: 2.0, FAILED_COST_METRIC: 2.0}, tags={WORST_CASE_TAG: "9"}), 11.0),
    "nothing when it was not paid work": (Seen(), 0.0),
}  # fmt: skip


@pytest.mark.parametrize(("run", "usd"), CHARGES.values(), ids=CHARGES)
def test_a_run_counts_with(run: Seen, usd: float) -> None:
    assert charged_cost(run) == usd


@pytest.mark.parametrize(
    "run",
    [Seen(metrics={COST_METRIC: float("nan")}), Seen(metrics={COST_METRIC: -1.0}), Seen(tags={WORST_CASE_TAG: "much"})],
)
def test_a_cost_that_is_no_amount_is_refused(run: Seen) -> None:
    with pytest.raises(Refusal, match="not an amount"):
        charged_cost(run)


def test_months_are_summed_newest_first_without_unpaid_runs() -> None:
    october = datetime(2026, 10, 31, 23, 59, tzinfo=UTC)
    runs = [
        Seen(metrics={COST_METRIC: 1.0}),
        Seen(),
        Seen(tags={WORST_CASE_TAG: "2.5"}),
        Seen(started=october, metrics={COST_METRIC: 4.0}),
    ]
    assert monthly_costs(runs) == (MonthlyCost("2026-11", 3.5, 2, 1), MonthlyCost("2026-10", 4.0, 1, 0))
    assert month_to_date_cost(runs, datetime(2026, 11, 25, tzinfo=UTC)) == 3.5
    assert month_to_date_cost(runs, datetime(2026, 12, 1, tzinfo=UTC)) == 0.0


def test_billed_seconds_are_paid_for_each_instance() -> None:
    usd, seconds = actual_cost(TABLE, PAID, ended(billable_seconds=360.0))
    assert (usd, seconds) == (pytest.approx(0.138 * 2 * 0.1), 360.0)


def test_what_the_service_has_not_said_counts_at_its_worst() -> None:
    either = replace(PAID, instance_types=("ml.m5.large", "ml.m5.xlarge"), keep_alive_seconds=300)
    usd, seconds = actual_cost(TABLE, either, ended())
    assert (usd, seconds) == (pytest.approx(0.276 * 2 * 900 / 3600), 900.0)
    known, _ = actual_cost(TABLE, either, ended(instance_type="ml.m5.large"))
    assert known == pytest.approx(usd / 2)


def test_work_on_this_machine_cost_nothing() -> None:
    assert actual_cost(TABLE, replace(PAID, instance_types=()), ended()) == (0.0, 0.0)
